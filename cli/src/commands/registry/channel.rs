//! `registry channel`: what a fleet shall run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inarch_core::file;
use inarch_registry::{
    ChannelKeys, Lifetimes, Name, Offer, PushOptions, Reference, RolloutDecision, RolloutLimits, SecretKey, Selector,
    StepReport, Timestamp, Transfer, Version, decide, with_channel,
};
use serde::Serialize;

use super::transport::delta_to_previous;
use crate::args::{ChannelArgs, ChannelCommand, RootKeyArgs};
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::published;

/// What is printed with `--json`.
#[derive(Serialize)]
struct ChannelResult {
    channel: String,
    offers: Vec<Offer>,
    /// Where the root file was written.
    root: Option<PathBuf>,
}

pub(super) fn run(command: &ChannelCommand, output: &Output) -> Result<(), CommandError> {
    match command {
        ChannelCommand::Create { channel, roots } => change_keys(channel, roots, None, output),
        ChannelCommand::Rotate { channel, roots, old_root_key } => {
            change_keys(channel, roots, Some(old_root_key), output)
        }
        ChannelCommand::Offer { reference, channel, share } => offer(reference, channel, *share, output),
        ChannelCommand::Withdraw { reference, channel } => {
            let (name, number) = version_of(reference)?;
            work(channel, output, |publisher, keys| publisher.withdraw(&name, number, keys))
        }
        ChannelCommand::Refresh { channel } => work(channel, output, |publisher, keys| publisher.refresh(keys)),
        ChannelCommand::Show { channel } => {
            let (remote, name) = published::channel(channel)?;
            let offers =
                with_channel(&*remote, &name, Lifetimes::default(), Timestamp::now(), |publisher| publisher.offers())
                    .map_err(|error| fault(channel, error))?;
            show(channel, offers, None, output);
            Ok(())
        }
        ChannelCommand::Decide { reference, reports, least_reports, failures } => {
            let limits = RolloutLimits { least_reports: *least_reports, failures: failures / 100.0 };
            decide_rollout(reference, reports, &limits, output)
        }
    }
}

/// Faults of a channel under the address that it was given by.
fn fault(address: &str, error: inarch_registry::Error) -> CommandError {
    use inarch_registry::Error;
    match error {
        Error::Unknown { kind: "channel", .. } => CommandError::usage(
            format!("there is no channel `{address}`"),
            "`inarch registry channel create` makes one",
        ),
        Error::Conflict { what, .. } if what == "the channel" => CommandError::refused(
            format!("the channel `{address}` exists already"),
            "`inarch registry channel rotate` changes its keys; another name begins another channel",
        ),
        error => {
            let unsigned = error.to_string().contains("signatures that are needed");
            let told = CommandError::from(error);
            match unsigned {
                true => told.with_hint("`--key` takes the online keys that the channel was made or rotated with"),
                false => told,
            }
        }
    }
}

fn keys(files: &[PathBuf]) -> Result<Vec<SecretKey>, CommandError> {
    files.iter().map(|file| Ok(SecretKey::read(file)?)).collect()
}

fn lifetimes(args: &ChannelArgs) -> Lifetimes {
    Lifetimes { timestamp_days: args.fresh_days, ..Lifetimes::default() }
}

fn change_keys(
    args: &ChannelArgs,
    roots: &RootKeyArgs,
    old: Option<&[PathBuf]>,
    output: &Output,
) -> Result<(), CommandError> {
    // A channel whose root nobody has could not be followed.
    file::check_target(&roots.output)?;
    let (remote, name) = published::channel(&args.channel)?;
    let (root, online) = (keys(&roots.root_key)?, keys(&args.key)?);
    let new = ChannelKeys {
        root: &root,
        root_threshold: roots.root_threshold,
        online: &online,
        online_threshold: roots.threshold,
    };
    let old = old.map(keys).transpose()?;
    let (bytes, offers) = with_channel(&*remote, &name, lifetimes(args), Timestamp::now(), |publisher| {
        let bytes = match &old {
            Some(old) => publisher.rotate(&new, old)?,
            None => publisher.create(&new)?,
        };
        Ok((bytes, publisher.offers()?))
    })
    .map_err(|error| fault(&args.channel, error))?;
    file::write(&roots.output, &bytes)?;
    show(&args.channel, offers, Some(roots.output.clone()), output);
    Ok(())
}

fn work(
    args: &ChannelArgs,
    output: &Output,
    work: impl FnOnce(&inarch_registry::Publisher<'_>, &[SecretKey]) -> inarch_registry::Result<()>,
) -> Result<(), CommandError> {
    let (remote, name) = published::channel(&args.channel)?;
    let keys = keys(&args.key)?;
    let offers = with_channel(&*remote, &name, lifetimes(args), Timestamp::now(), |publisher| {
        work(publisher, &keys)?;
        publisher.offers()
    })
    .map_err(|error| fault(&args.channel, error))?;
    show(&args.channel, offers, None, output);
    Ok(())
}

fn offer(reference: &str, args: &ChannelArgs, share: f64, output: &Output) -> Result<(), CommandError> {
    if !(0.0..=100.0).contains(&share) {
        return Err(CommandError::usage(format!("a share of {share} % cannot be"), "give 0 to 100"));
    }
    let registry = published::open()?;
    let version: Version = registry.resolve(reference)?;
    let (remote, _) = published::channel(&args.channel)?;
    delta_to_previous(&registry, &version)?;
    registry.push(&version, &*remote, &PushOptions::default(), &Transfer::default())?;
    let offer = Offer {
        name: version.name.clone(),
        number: version.number,
        digest: version.digest,
        manifest_bytes: version.manifest_bytes,
        share: (share * 100.0).round() as u32,
    };
    work(args, output, |publisher, keys| publisher.offer(offer, keys))
}

fn version_of(reference: &str) -> Result<(Name, u64), CommandError> {
    match reference.parse::<Reference>()? {
        Reference { name: Some(name), selector: Selector::Number(number) } => Ok((name, number)),
        _ => Err(CommandError::usage(
            format!("`{reference}` names no version by number"),
            "expected NAME@VERSION, such as `chest@3`",
        )),
    }
}

fn show(channel: &str, offers: Vec<Offer>, root: Option<PathBuf>, output: &Output) {
    let result = ChannelResult { channel: channel.into(), offers, root };
    output.result(&result, || {
        let mut rows = vec![["offered", "share", "digest"].map(String::from).to_vec()];
        for offer in &result.offers {
            let share = format!("{} %", f64::from(offer.share) / 100.0);
            rows.push(vec![format!("{}@{}", offer.name, offer.number), share, offer.digest.short()]);
        }
        let mut text = if result.offers.is_empty() { "nothing is offered yet\n".into() } else { table(&rows) };
        if let Some(root) = &result.root {
            text.push_str(&format!("give devices `{}`: it is what they trust\n", root.display()));
        }
        text
    });
}

/// What `decide --json` prints.
#[derive(Serialize)]
struct DecideResult {
    #[serde(flatten)]
    decision: RolloutDecision,
}

fn decide_rollout(
    reference: &str,
    paths: &[PathBuf],
    limits: &RolloutLimits,
    output: &Output,
) -> Result<(), CommandError> {
    let (name, number) = version_of(reference)?;
    let mut last: BTreeMap<String, StepReport> = BTreeMap::new();
    for path in paths {
        let files = if path.is_dir() { file::list(path)? } else { vec![path.clone()] };
        for path in files {
            for report in read_reports(&path)? {
                // Of each device, the last that says something about this version.
                let says = report.outcomes.iter().any(|outcome| outcome.is_about(&name, number));
                let is_newer = last.get(&report.device).is_none_or(|known| known.at <= report.at);
                if says && is_newer {
                    last.insert(report.device.clone(), report);
                }
            }
        }
    }
    let result = DecideResult { decision: decide(last.values(), &name, number, limits) };
    output.result(&result, || match &result.decision {
        RolloutDecision::Advance { succeeded, failed } => {
            format!("go on: {succeeded} devices run it, {failed} went back")
        }
        RolloutDecision::Wait { reports } => {
            format!("wait: {reports} devices have reported, {} are needed", limits.least_reports)
        }
        RolloutDecision::Halt { succeeded, failed } => format!("stop: {failed} devices went back, {succeeded} run it"),
    });
    match result.decision {
        RolloutDecision::Halt { .. } => Err(CommandError::refused(
            format!("too many devices went back from `{reference}`"),
            format!("`inarch registry channel withdraw {reference} CHANNEL --key FILE` takes it back from all"),
        )),
        _ => Ok(()),
    }
}

fn read_reports(path: &Path) -> Result<Vec<StepReport>, CommandError> {
    let text = file::read_text(path)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let read = |line: &str| {
        serde_json::from_str(line).map_err(|error| {
            CommandError::failed(
                format!("`{}` is no report of an agent: {error}", path.display()),
                "give what `inarch agent --json` printed",
            )
        })
    };
    lines.map(read).collect()
}
