//! A device of another process: lent, borrowed, guarded by a token.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use inarch_core::checkpoint::read_safetensors;
use inarch_core::{TOKEN_VARIABLE, lend};
use serde_json::Value;

use super::Program;
use super::program::sample;

/// A process that lends the processor.
struct Lender {
    child: Child,
    address: String,
}

impl Lender {
    fn start(program: &Program, token: Option<&str>) -> Self {
        let mut command = program.command(&["lend", "--listen", "127.0.0.1:0", "--json"]);
        command.env_remove(TOKEN_VARIABLE).envs(token.map(|token| (TOKEN_VARIABLE, token)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let lent: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&lent["device"], &lent["token"]), (&"cpu".into(), &token.is_some().into()));
        Self { child, address: format!("remote:{}", lent["address"].as_str().expect("an address")) }
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
    let lender = Lender::start(&program, None);
    let device = lender.address.as_str();
    std::fs::write(program.path("texts.txt"), "a photo of a cat\na photo of a small dog\n").expect("writes");
    for (name, device) in [("here", "cpu"), ("there", device)] {
        program.succeed(&["encode", "-b", "pocket", "--texts", "texts.txt", "-o", name, "--device", device]);
    }
    let [here, there] = ["here", "there"].map(|name| read_safetensors(&program.path(name)).expect("reads").0);
    let (here, there) = (&here["features"].data, &there["features"].data);
    let greatest = here.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let apart = here.iter().zip(there).fold(0.0f32, |most, (here, there)| most.max((here - there).abs()));
    assert!(apart <= 1e-5 * greatest, "{apart} of {greatest}");
    let budget = "train.budget={ iterations = 3 }";
    for (name, device) in [("fit-here", "cpu"), ("fit-there", device)] {
        let arguments = [
            "fit",
            "-b",
            "pocket",
            "-d",
            sample(),
            "-m",
            "coop",
            "--shots",
            "1",
            "--set",
            budget,
            "-o",
            name,
            "--device",
            device,
        ];
        program.succeed(&arguments);
    }
    let evaluated = ["fit-here", "fit-there"].map(|adapter| {
        let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", adapter]);
        eval["accuracy"].as_f64().expect("a number")
    });
    assert!((evaluated[0] - evaluated[1]).abs() < 0.02, "{evaluated:?}");
}

#[test]
fn a_borrower_without_the_token_is_refused() {
    let program = Program::new();
    let lender = Lender::start(&program, Some("a long word"));
    let arguments = ["predict", "-b", "pocket", "--classes", "a,b", "x.jpg", "--device", &lender.address];
    program.fail(&arguments, 1, &["rejected", TOKEN_VARIABLE]);
    program.fail(&["lend", "--listen", "0.0.0.0:0"], 3, &["no token", TOKEN_VARIABLE]);
}

#[test]
fn nobody_there_and_wrong_addresses_are_faults() {
    let program = Program::new();
    let on = |device| ["predict", "-b", "pocket", "--classes", "a,b", "x.jpg", "--device", device];
    program.fail(&on("remote:127.0.0.1:1"), 1, &["cannot be reached", "inarch lend"]);
    program.fail(&on("remote:nowhere"), 1, &["remote:HOST:PORT"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let cpu = inarch_core::device("cpu").expect("built with `flex`");
    assert!(lend(&cpu, listener, Some("")).is_err());
}
