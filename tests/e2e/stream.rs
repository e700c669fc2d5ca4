//! `stream`: what is measured, that its adapters are adapters, and that a killed run ends as one that was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use inarch_core::Seed;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::FeatureFile;
use serde_json::Value;

use super::Program;
use super::program::{adapter_bytes, sample};
use super::update::part;
use crate::support::close;

const SHORT: &[&str] =
    &["--seeds", "1", "--set", "fit.train.budget={ iterations = 12 }", "--set", "memory.budget_bytes=32768"];

fn arguments<'a>(strategies: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["stream", "-b", "pocket", "-d", sample(), "-s", strategies, "-o", output], SHORT, more].concat()
}

#[test]
fn a_stream_is_measured_and_its_adapters_are_adapters() {
    let program = Program::new();
    let report = program.json(&arguments("rail,simple-cil,naive,joint", "out", &[]));
    let strategies = report["strategies"].as_array().expect("a list");
    assert_eq!(strategies.len(), 4);
    assert!(report["burn"].is_string() && report["peak_memory_bytes"].as_u64() > Some(1 << 20), "{report}");
    for strategy in strategies {
        let seed = &strategy["seeds"][0];
        assert_eq!(seed["matrix"]["rows"].as_array().map(Vec::len), Some(5));
        assert_eq!(seed["seen"].as_array().map(Vec::len), Some(5));
        assert!(seed["measures"]["forgetting_since_learned"].is_number() && seed["bytes"].as_u64() > Some(0));
        // Only those that can name classes that have not come yet are asked about them.
        let open = strategy["name"] == "rail";
        assert_eq!(seed["matrix"]["rows"][0][4].is_number(), open, "{strategy}");
        assert_eq!(seed["measures"]["transfer"].is_number(), open);
        assert_eq!(strategy["zero_shot_retention"].is_object(), open);
        assert_eq!(strategy["zero_shot_retention"], strategy["measures"]["zero_shot_retention"]);
        if open {
            let rows = seed["matrix"]["rows"].as_array().expect("a matrix");
            let ahead: Vec<(usize, usize)> = (0..5).flat_map(|k| (k + 1..5).map(move |i| (k, i))).collect();
            let sum =
                |of: &dyn Fn(usize, usize) -> Option<f64>| ahead.iter().filter_map(|(k, i)| of(*k, *i)).sum::<f64>();
            let kept = sum(&|k, i| rows[k][i].as_f64()) / sum(&|_, i| seed["zero_shot"][i].as_f64());
            let found = strategy["zero_shot_retention"]["mean"].as_f64().expect("a number");
            assert!((found - kept).abs() < 1e-9, "{found} {kept}");
        }
        for name in ["negative_flips", "positive_flips", "bytes", "seconds"] {
            assert_eq!(strategy["measures"][name]["mean"].as_f64(), seed[name].as_f64(), "{name}");
        }
    }
    let rail = &strategies[0]["seeds"][0];
    let adapter = "out/rail/seed-1/after-5/adapter";
    let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", adapter]);
    let [measured, last] = [&eval["accuracy"], &rail["last"]].map(|value| value.as_f64().expect("a number"));
    assert!((measured - last).abs() < 1e-9, "{measured} {last}");
    for file in ["report.json", "report.html", "recipe.toml"] {
        assert!(program.path("out").join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(program.path("out").join("report.html")).expect("a page");
    let measures = strategies[0]["measures"].as_object().expect("measures");
    assert!(measures.len() == 14 && measures.keys().all(|name| page.contains(&format!(">{name}<"))), "{measures:?}");
    // The recipe that was written is the same run, and all of it is done.
    let again = program.json(&["stream", "out/recipe.toml", "-o", "out"]);
    assert_eq!(again["strategies"], report["strategies"]);
    let changed = arguments("rail", "out", &["--set", "stream.experiences=2"]);
    program.fail(&changed, 1, &["other settings or data"]);
}

#[test]
fn domains_are_made_of_corruptions() {
    let program = Program::new();
    let domains = "stream.corruptions=[\"none\", \"contrast\"]";
    let report =
        program.json(&arguments("rail", "out", &["--set", "stream.kind=\"domain-incremental\"", "--set", domains]));
    assert_eq!(report["experiences"], serde_json::json!(["none", "contrast"]));
    assert!(report["strategies"][0]["last"]["mean"].as_f64() > Some(0.1));
}

#[test]
fn features_of_several_data_sets_stand_in_for_their_images() {
    let program = Program::new();
    part(&program, "first", &["hat", "shoes"], 0, 4);
    part(&program, "second", &["shirt", "pants", "hat"], 0, 4);
    let encode = |name: &str| {
        let output = format!("{name}.safetensors");
        program.succeed(&["encode", "-b", "pocket", "--images", name, "-o", &output]);
        output
    };
    let files = ["first", "second"].map(encode);
    let run = |data: [&str; 2], output: &str| {
        let tail = ["--set", "stream.kind=\"x-tail\"", "-s", "rail,simple-cil,naive", "-o", output];
        program.json(&[&["stream", "-b", "pocket", "-d", data[0], "-d", data[1]], &tail[..], SHORT].concat())
    };
    let [images, features] = [run(["first", "second"], "images"), run([&files[0], &files[1]], "features")];
    assert_eq!(images["experiences"], serde_json::json!(["first", "second"]));
    assert_eq!((&features["experiences"], &features["failures"]), (&images["experiences"], &serde_json::json!([])));
    for at in 0..3 {
        let [found, expected] = [&features, &images].map(|report| &report["strategies"][at]);
        for key in ["matrix", "zero_shot", "classes", "seen"] {
            assert_eq!(found["seeds"][0][key], expected["seeds"][0][key], "{} {key}", expected["name"]);
        }
    }
    for strategy in ["simple-cil", "naive"] {
        let [found, expected] = ["features", "images"].map(|output| {
            let folder = program.path(output).join(strategy).join("seed-1/after-2/adapter");
            read_safetensors(&folder.join("adapter.safetensors")).expect("an adapter").0
        });
        assert!(found.keys().eq(expected.keys()) && !found.is_empty());
        for (name, tensor) in &expected {
            close(&format!("{strategy} {name}"), &found[name].data, &tensor.data, 1e-4);
        }
    }
    // Features of another backbone, and images beside features, are told apart from these before anything is run.
    let mut other = FeatureFile::read(&program.path(&files[1])).expect("features");
    other.backbone = "sha256:another".into();
    other.write(&program.path("other.safetensors")).expect("written");
    let refuse = |second: &str, code: i32, words: &[&str]| {
        let data = ["stream", "-b", "pocket", "-d", &files[0], "-d", second, "-o", "refused"];
        program.fail(&[&data[..], &["--set", "stream.kind=\"x-tail\""], SHORT].concat(), code, words);
    };
    refuse("other.safetensors", 3, &["backbone of the features of `other`", "as `first` has it", "sha256:another"]);
    refuse("second", 1, &["`first` holds features", "`second` images", "inarch encode"]);
}

#[test]
fn a_wrong_recipe_is_named() {
    let program = Program::new();
    program.fail(&arguments("raill", "out", &[]), 2, &["raill", "did you mean `rail`?"]);
    program.fail(&arguments("rail", "out", &["--set", "stream.experience=3"]), 2, &["experience"]);
    program.fail(&arguments("rail", "out", &["--set", "stream.experiences=30"]), 1, &["30 experiences", "10"]);
    for (setting, instead) in [("fit.seed=3", "--seeds"), ("fit.shots=2", "stream.shots")] {
        program.fail(&arguments("naive", "out", &["--set", setting]), 2, &["not taken up", instead]);
    }
    program.fail(&["stream", "-b", "pocket"], 2, &["no data set", "-d"]);
    // A strategy that cannot train the method is refused where it is named, and left out of all.
    program.fail(&arguments("rail,coda-prompt", "out", &[]), 2, &["coda-prompt", "fit.method"]);
    program.fail(&arguments("slca", "out", &["-m", "lora"]), 2, &["slca", "linear-probe"]);
    let all = ["left out", "o-lora, inflora, sd-lora", "s-prompts", "fit.method", "no data set"];
    program.fail(&["stream", "-b", "pocket", "-s", "all"], 2, &all);
    assert!(!program.path("out/rail").exists());
}

fn results(folder: &Path) -> Vec<[Vec<u8>; 2]> {
    let adapter = folder.join("er/seed-1/after-2/adapter");
    if adapter.is_dir() { vec![adapter_bytes(&adapter)] } else { Vec::new() }
}

#[test]
fn a_method_is_named_on_the_command_line() {
    let program = Program::new();
    let settings = ["seeds=[1]", "stream.experiences=2", "stream.shots=2", "fit.train.budget={ iterations = 2 }"];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let of = |method, output| {
        [&["stream", "-b", "pocket", "-d", sample(), "-m", method, "-o", output], &settings[..]].concat()
    };
    let report = program.json(&[&of("coda-prompt", "out")[..], &["--set", "fit.method.components=8"]].concat());
    assert_eq!((&report["strategies"][0]["name"], &report["failures"]), (&"naive".into(), &serde_json::json!([])));
    let adapter = program.path("out/naive/seed-1/after-2/adapter/adapter.json");
    let manifest: Value = inarch_core::file::read_json(&adapter, "adapter").expect("an adapter");
    assert_eq!((&manifest["method"]["name"], &manifest["method"]["components"]), (&"coda-prompt".into(), &8.into()));
    program.fail(&of("coda-promt", "other"), 2, &["coda-promt", "did you mean `coda-prompt`?"]);
}

/// The step above 0 that a training went on from.
fn resumed(stderr: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(stderr);
    let step = |line: &str| line.strip_prefix("going on from step ")?.split(' ').next()?.parse::<usize>().ok();
    text.lines().filter_map(step).find(|step| *step > 0)
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_anywhere_ends_in_the_bytes_of_one_that_was_not() {
    use std::os::unix::process::ExitStatusExt as _;

    let program = Program::new();
    let settings = [
        "strategy=[{ name = \"er\", replay = 8 }]",
        "seeds=[1]",
        "stream.experiences=2",
        "stream.shots=4",
        "fit.method.name=\"lora\"",
        "fit.train.budget={ iterations = 30 }",
        "fit.train.batch=8",
        "memory.budget_bytes=262144",
    ];
    let of = |output: &'static str| -> Vec<&str> {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        ["stream", "-b", "pocket", "-d", sample(), "-o", output].into_iter().chain(settings).collect()
    };
    let started = Instant::now();
    program.succeed(&of("whole"));
    let duration = started.elapsed();
    let whole = results(&program.path("whole"));
    assert_eq!(whole.len(), 1);
    // Stopped anywhere between a tenth and nine tenths of that, by Ctrl-C, which saves in the middle of a training, and by -9
    // in turn, until -9 has hit a training that went on from a saved step.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos();
    eprintln!("seed of the waits: {seed}");
    let mut hit = false;
    for round in 0..40u32 {
        let share = Seed::new(u64::from(seed)).split(round).hash("wait") as f64 / u64::MAX as f64;
        let mut command = program.command(&of("killed"));
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(duration.mul_f64(0.1 + 0.8 * share));
        let signal = if round % 2 == 0 { "-INT" } else { "-KILL" };
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
        assert!(sent.is_ok());
        let ended = child.wait_with_output().expect("ends");
        hit |= ended.status.signal() == Some(9) && resumed(&ended.stderr).is_some();
        if hit && round >= 5 {
            break;
        }
        if ended.status.success() {
            // It was done before; from the start again.
            assert!(results(&program.path("killed")) == whole, "seed {seed}, round {round}");
            std::fs::remove_dir_all(program.path("killed")).expect("removes");
        }
    }
    assert!(hit, "-9 never hit a training that went on from a saved step; seed {seed}");
    program.succeed(&of("killed"));
    assert!(results(&program.path("killed")) == whole, "seed {seed}");
    let memory =
        |folder: &str| std::fs::read(program.path(folder).join("er/seed-1/after-2/memory.inarch")).expect("a memory");
    assert!(memory("killed") == memory("whole"), "seed {seed}");
}
