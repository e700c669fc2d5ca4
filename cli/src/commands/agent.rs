//! `inarch agent`: a device of a fleet.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inarch_core::backbone::Backbone;
use inarch_core::file;
use inarch_registry::{
    Agent, AgentOptions, Candidate, Digest, Outcome, Registry, StepReport, Timestamp, Transfer, Version,
};

use crate::args::AgentArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::home::home;
use crate::output::Output;
use crate::published;

/// How often a program that has not ended is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// This machine, with its backbone.
struct Machine {
    backbone: Backbone,
    registry: Registry,
    health: Option<PathBuf>,
    /// How long that program may take.
    patience: Duration,
}

impl inarch_registry::Device for Machine {
    fn self_test(&self, candidate: &Candidate<'_>) -> Result<(), String> {
        published::self_test(candidate.folder, &self.backbone).map_err(|error| error.to_string())
    }

    fn health(&self, version: &Version) -> Result<(), String> {
        let Some(program) = &self.health else {
            let checkout = self.registry.checkout(version).map_err(|error| error.to_string())?;
            return published::self_test(checkout.folder(), &self.backbone).map_err(|error| error.to_string());
        };
        let mut command = Command::new(program);
        command.arg(version.name.as_str()).arg(version.number.to_string());
        succeeds(&mut command, self.patience).map_err(|fault| format!("`{}` {fault}", program.display()))
    }
}

/// Whether a program ends well, and in time: one that hangs must not keep a device from going back.
fn succeeds(command: &mut Command, patience: Duration) -> Result<(), String> {
    let not_run = |error: std::io::Error| format!("cannot be run: {error}");
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(not_run)?;
    loop {
        match child.try_wait().map_err(not_run)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("ended with {status}")),
            None if started.elapsed() < patience => std::thread::sleep(PAUSE),
            None => {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("took more than {} s and was stopped", patience.as_secs_f64()));
            }
        }
    }
}

pub(crate) fn run(args: &AgentArgs, output: &Output) -> Result<(), CommandError> {
    let (remote, channel) = published::channel(&args.channel)?;
    let registry = published::open()?;
    let root = args.root.as_ref().map(|path| file::read(path)).transpose()?;
    // Each channel is remembered by itself: what one promised says nothing about another.
    let folder = home()?.join("agent").join(Digest::of(args.channel.as_bytes()).short());
    let name = args.name.clone().unwrap_or_else(machine_name);
    let options = AgentOptions {
        folder,
        device: name.clone(),
        channel,
        alias: args.alias.parse()?,
        checks: args.checks,
        max_bytes: args.max_bytes,
        transfer: Transfer::default(),
    };
    let mut agent = Agent::open(registry.clone(), options, root.as_deref())?;
    let backbone = backbones::open(&args.backbone, &inarch_core::device(&args.device.device)?)?;
    let patience = Duration::from_secs(args.health_s);
    let machine = Machine { backbone, registry, health: args.health.clone(), patience };
    for step in 0_u64.. {
        let report = agent.step(&*remote, &machine, Timestamp::now())?;
        output.result(&report, || text(&report));
        if args.once {
            return verdict(&report);
        }
        // Devices that were started together must not ask together.
        let chance = Digest::of(format!("{name} {step} {}", std::process::id()).as_bytes()).bytes()[0];
        std::thread::sleep(Duration::from_secs(args.interval).mul_f64(0.8 + 0.4 * f64::from(chance) / 255.0));
    }
    Ok(())
}

/// A single step that went wrong is a failed command.
fn verdict(report: &StepReport) -> Result<(), CommandError> {
    if let Some(fault) = &report.channel_fault {
        let hint = "what is in use stays in use; the next step tries again";
        return Err(match report.is_distrusted {
            true => CommandError::refused(fault.clone(), hint),
            false => CommandError::failed(fault.clone(), hint),
        });
    }
    for outcome in &report.outcomes {
        if let Outcome::Failed { name, number, reason, active } = outcome {
            let hint = match active {
                Some(active) => format!("`{name}@{active}`, which worked before, is in use"),
                None => format!("nothing is in use, since no version of `{name}` has worked here; offer another one"),
            };
            return Err(CommandError::refused(format!("`{name}@{number}` does not work here: {reason}"), hint));
        }
        if let Outcome::Delayed { name, number, reason } = outcome {
            return Err(CommandError::failed(
                format!("`{name}@{number}` could not be had: {reason}"),
                "the next step tries again",
            ));
        }
    }
    Ok(())
}

fn text(report: &StepReport) -> String {
    let mut text = String::new();
    if let Some(fault) = &report.channel_fault {
        text.push_str(&format!("{}  channel: {fault}\n", report.at));
    }
    for outcome in &report.outcomes {
        let line = match outcome {
            Outcome::Current { name, number } => format!("{name}@{number} is in use"),
            Outcome::Activated { name, number, moved_bytes, full_bytes } => {
                format!("{name}@{number} is in use and watched ({moved_bytes} of {full_bytes} bytes moved)")
            }
            Outcome::Watching { name, number } => format!("{name}@{number} works so far"),
            Outcome::Committed { name, number } => format!("{name}@{number} has proved itself"),
            Outcome::Failed { name, number, reason, active } => {
                let active = active.map_or("nothing".into(), |active| format!("{name}@{active}"));
                format!("{name}@{number} does not work here ({reason}); {active} is in use")
            }
            Outcome::Delayed { name, number, reason } => format!("{name}@{number} could not be had: {reason}"),
        };
        text.push_str(&format!("{}  {line}\n", report.at));
    }
    text
}

/// What the machine calls itself.
fn machine_name() -> String {
    let named = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let file = || std::fs::read_to_string("/etc/machine-id").or_else(|_| std::fs::read_to_string("/etc/hostname")).ok();
    named.or_else(file).map_or_else(|| "device".into(), |name| name.trim().to_string())
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::succeeds;

    #[test]
    fn a_health_check_that_hangs_has_failed() {
        let check = |script: &str, patience: u64| {
            succeeds(Command::new("sh").args(["-c", script]), Duration::from_millis(patience))
        };
        assert_eq!(check("exit 0", 60_000), Ok(()));
        assert!(check("exit 3", 60_000).unwrap_err().contains("ended with"));
        assert_eq!(check("exec sleep 600", 100).unwrap_err(), "took more than 0.1 s and was stopped");
        assert!(
            succeeds(&mut Command::new("./no-such-program"), Duration::ZERO).unwrap_err().contains("cannot be run")
        );
    }
}
