//! A device of another process: lent, borrowed, guarded by a token.

use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

use inarch_core::checkpoint::read_safetensors;
use inarch_core::{TOKEN_VARIABLE, lend};
use serde_json::Value;

use super::Program;
use super::program::short_fit;

/// A process that lends the processor.
struct Lender {
    child: Child,
    address: String,
    token: String,
}

impl Lender {
    /// With this token, or when it is empty with one that is drawn.
    fn start(program: &Program, token: &str) -> Self {
        let mut command = program.command(&["lend", "--listen", "127.0.0.1:0", "--json"]);
        command.env(TOKEN_VARIABLE, token);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let lent: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(lent["device"], "cpu");
        let drawn = lent["token"].as_str().map(String::from);
        assert_eq!(drawn.as_ref().is_some_and(|drawn| drawn.len() > 20), token.is_empty());
        let address = format!("remote:{}", lent["address"].as_str().expect("an address"));
        Self { child, address, token: drawn.unwrap_or_else(|| token.into()) }
    }

    /// Runs a command on the device.
    fn borrowed(&self, program: &Program, arguments: &[&str]) -> Output {
        let mut command = program.command(&[arguments, &["--device", &self.address]].concat());
        command.env(TOKEN_VARIABLE, &self.token).output().expect("the binary starts")
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn features_and_training_on_a_borrowed_device_equal_those_here() {
    let program = Program::new();
    let lender = Lender::start(&program, "");
    let succeeds = |arguments: &[&str]| {
        let output = lender.borrowed(&program, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(program.path("texts.txt"), "a photo of a cat\na photo of a small dog\n").expect("writes");
    let encode = |name| ["encode", "-b", "pocket", "--texts", "texts.txt", "-o", name];
    program.succeed(&encode("here"));
    succeeds(&encode("there"));
    let [here, there] = ["here", "there"].map(|name| read_safetensors(&program.path(name)).expect("reads").0);
    let (here, there) = (&here["features"].data, &there["features"].data);
    let greatest = here.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let apart = here.iter().zip(there).fold(0.0f32, |most, (here, there)| most.max((here - there).abs()));
    assert!(apart <= 1e-5 * greatest, "{apart} of {greatest}");
    // Through the text tower and through the image tower.
    for method in ["coop", "lora"] {
        let names = [format!("{method}-here"), format!("{method}-there")];
        program.succeed(&short_fit(method, "1", &names[0]));
        succeeds(&short_fit(method, "1", &names[1]));
        let reports = names.map(|name| -> Value {
            let report = std::fs::read_to_string(program.path(&name).join("report.json")).expect("a report");
            serde_json::from_str(&report).expect("JSON")
        });
        assert_eq!([&reports[0]["device"], &reports[1]["device"]], ["cpu", "remote"]);
        let losses = reports.map(|report| {
            let losses = report["losses"].as_array().expect("losses").clone();
            losses.iter().map(|loss| loss.as_f64().expect("a number")).collect::<Vec<f64>>()
        });
        assert!(losses[0].len() > 3, "{losses:?}");
        for (here, there) in losses[0].iter().zip(&losses[1]) {
            assert!((here - there).abs() < 1e-3 * here.max(1.0), "{method}: {losses:?}");
        }
    }
}

#[test]
fn a_borrower_without_the_token_is_refused() {
    let program = Program::new();
    let lender = Lender::start(&program, "a long word");
    let arguments = ["predict", "-b", "pocket", "--classes", "a,b", "x.jpg", "--device", &lender.address];
    program.fail(&arguments, 1, &["rejected", TOKEN_VARIABLE]);
    program.fail(&["lend", "--device", "remote:127.0.0.1:1"], 3, &["cannot be lent"]);
}

#[test]
fn a_device_that_goes_away_ends_the_command_with_a_hint() {
    let program = Program::new();
    let mut lender = Lender::start(&program, "");
    let fit = [&short_fit("lora", "1", "out")[..], &["--set", "train.budget={ iterations = 4000 }"]].concat();
    let mut command = program.command(&[&fit[..], &["--device", &lender.address]].concat());
    command.env(TOKEN_VARIABLE, &lender.token).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(child.try_wait().expect("a process"), None, "it is still at work");
    lender.child.kill().expect("a process");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("give the command again"), "{stderr}");
}

#[test]
fn nobody_there_and_wrong_addresses_are_faults() {
    let program = Program::new();
    let on = |device| ["predict", "-b", "pocket", "--classes", "a,b", "x.jpg", "--device", device];
    program.fail(&on("remote:127.0.0.1:1"), 1, &["cannot be reached", "inarch lend"]);
    program.fail(&on("remote:nowhere"), 1, &["remote:HOST:PORT"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let cpu = inarch_core::device("cpu").expect("built with `flex`");
    assert!(lend(&cpu, listener, "").is_err());
}
