//! A run that is stopped and started again ends in the bytes of one that was not.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Program;
use super::program::{adapter_bytes, sample, short_fit};
use super::update::LENIENT;

const STEPS: &str = "train.budget={ iterations = 250 }";

fn arguments(output: &str) -> Vec<&str> {
    vec!["fit", "-b", "pocket", "-d", sample(), "-m", "lora", "--shots", "2", "--set", STEPS, "-o", output]
}

/// Starts a fit and waits until it is well on its way: it starts in a tenth of a second and trains for several.
fn started(program: &Program, output: &str) -> Child {
    let child = program.command(&arguments(output)).stderr(Stdio::null()).spawn().expect("the binary starts");
    std::thread::sleep(Duration::from_millis(1500));
    child
}

fn files(folder: &Path) -> Vec<String> {
    let entries = inarch_core::file::list(folder).expect("the run's folder");
    entries.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_same_command_goes_on() {
    let program = Program::new();
    program.succeed(&arguments("whole"));
    let mut child = started(&program, "stopped");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    assert_eq!(child.wait().expect("ends").code(), Some(1));
    assert!(
        files(&program.path("stopped")).contains(&"state.json".to_string()),
        "{:?}",
        files(&program.path("stopped"))
    );
    assert!(!program.path("stopped/adapter.json").exists());
    let read = |name: &str| -> Value {
        inarch_core::file::read_json(&program.path("stopped").join(name), "file of a run").expect("a file")
    };
    let state = read("state.json")["folder"].as_str().expect("a name").to_string();
    let before = read(&format!("{state}/past.json"))["seconds"].as_f64().expect("seconds");

    let run = program.run(&arguments("stopped"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("going on from step"), "{}", run.stderr);
    assert!(adapter_bytes(&program.path("whole")) == adapter_bytes(&program.path("stopped")));
    // What it took before it was stopped is part of what it took.
    let report = read("report.json");
    let [training, all] = ["train", "total"].map(|part| report["seconds"][part].as_f64().expect("seconds"));
    assert!(0.0 < before && before < training && training < all, "{before} {training} {all}");
    assert!(!files(&program.path("stopped")).iter().any(|name| name.starts_with("state")));
}

#[test]
fn a_killed_run_leaves_nothing_in_the_way() {
    let program = Program::new();
    program.succeed(&arguments("whole"));
    let mut child = started(&program, "killed");
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert!(!program.path("killed/adapter.json").exists());
    program.succeed(&arguments("killed"));
    assert!(adapter_bytes(&program.path("whole")) == adapter_bytes(&program.path("killed")));
}

#[cfg(unix)]
#[test]
fn a_stopped_update_goes_on_and_ends_in_the_same_bytes() {
    let program = Program::new();
    program.succeed(&short_fit("linear-probe", "1", "base"));
    let steps = "fit.train.budget={ iterations = 3000 }";
    let update = |output| [&["update", "base", "-d", sample(), "--set", steps, "-o", output][..], LENIENT].concat();
    program.succeed(&update("whole"));
    assert!(!program.path("whole/.update").exists(), "nothing but the version is left");

    // A machine with other work may not have come to the first step when the first signal comes.
    for wait in [300, 900, 2000, 4000] {
        let mut child = program.command(&update("stopped")).stderr(Stdio::null()).spawn().expect("the binary starts");
        // Its folder is made when the training begins.
        for _ in 0..600 {
            if program.path("stopped/.update/inputs").is_file() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(wait));
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        assert_eq!(child.wait().expect("ends").code(), Some(1));
        if program.path("stopped/.update/training").is_dir() {
            break;
        }
    }
    assert!(program.path("stopped/.update/training").is_dir() && !program.path("stopped/1").exists());

    let run = program.run(&update("stopped"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("going on from step"), "{}", run.stderr);
    assert!(adapter_bytes(&program.path("whole/1")) == adapter_bytes(&program.path("stopped/1")));
    assert!(!program.path("stopped/.update").exists());
}
