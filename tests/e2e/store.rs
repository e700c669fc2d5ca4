//! `--store`: frozen features of one run serve the next, and change nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::Program;
use super::program::{adapter_bytes, sample, short_fit};

/// The files of the store with their bytes.
fn kept(program: &Program) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let folders = std::fs::read_dir(program.path("home/features")).into_iter().flatten();
    for folder in folders {
        for file in std::fs::read_dir(folder.expect("an entry").path()).expect("a folder") {
            let path = file.expect("an entry").path();
            found.insert(path.clone(), std::fs::read(path).expect("a file"));
        }
    }
    found
}

fn fit(program: &Program, method: &str, seed: &str, store: &[&str], output: &str) -> [Vec<u8>; 2] {
    let mut arguments = short_fit(method, seed, output);
    arguments.extend(store);
    program.succeed(&arguments);
    adapter_bytes(&program.path(output))
}

#[test]
fn a_stored_run_gives_the_bytes_of_a_fresh_one() {
    let program = Program::new();
    // Pooled features, and activations short of the first block.
    let entries = ["coop", "lora"];
    let fresh = entries.map(|method| fit(&program, method, "1", &[], &format!("{method}-fresh")));
    assert!(kept(&program).is_empty(), "nothing is kept unless it is asked for");

    let store = ["--store", "1GiB"];
    let first = entries.map(|method| fit(&program, method, "1", &store, &format!("{method}-first")));
    let written = kept(&program);
    assert!(!written.is_empty());
    let second = entries.map(|method| fit(&program, method, "1", &store, &format!("{method}-second")));
    assert!(fresh == first && fresh == second);
    assert_eq!(kept(&program), written, "the second run has found all that it needs");

    // Another choice of images: the segments that are there do not change.
    fit(&program, "tip-adapter-f", "2", &store, "more");
    let more = kept(&program);
    assert!(written.iter().all(|(path, bytes)| more.get(path) == Some(bytes)));

    // Damage is found and mended.
    let (victim, whole) = written.first_key_value().expect("a file");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    std::fs::write(victim, damaged).expect("a damaged file");
    let third = entries.map(|method| fit(&program, method, "1", &store, &format!("{method}-third")));
    assert!(fresh == third);
}

#[test]
fn a_store_keeps_its_limit_and_its_precision() {
    let program = Program::new();
    let bytes = |program: &Program| kept(program).values().map(Vec::len).sum::<usize>();
    fit(&program, "coop", "1", &["--store", "1GiB"], "exact");
    let all = bytes(&program);
    fit(&program, "coop", "1", &["--store", "4KiB"], "small");
    assert!(bytes(&program) == all, "a run that finds all it needs writes nothing, and so removes nothing");
    fit(&program, "coop", "2", &["--store", "4KiB"], "small-2");
    assert!(bytes(&program) <= 4096, "{} of {all}", bytes(&program));

    let program = Program::new();
    let half = ["--store", "1GiB", "--store-precision", "f16"];
    let first = fit(&program, "coop", "1", &half, "first");
    let second = fit(&program, "coop", "1", &half, "second");
    assert!(first == second, "what is computed is rounded as what is kept");
    assert!(bytes(&program) < all * 3 / 4, "{} of {all}", bytes(&program));
}

#[test]
fn two_runs_at_once_and_one_that_is_killed_do_no_harm() {
    let program = Program::new();
    let fresh = fit(&program, "coop", "1", &[], "fresh");
    let store = ["--store", "1GiB"];
    let start = |output: &str| {
        let arguments = [&short_fit("coop", "1", output)[..], &store[..]].concat();
        program.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
    };
    let mut both = ["one", "other"].map(start);
    assert!(both.iter_mut().all(|run| run.wait().expect("an end").success()));
    assert!(["one", "other"].iter().all(|output| adapter_bytes(&program.path(output)) == fresh));

    let program = Program::new();
    for (at, milliseconds) in [40, 120, 250, 400].into_iter().enumerate() {
        let output = format!("killed-{at}");
        let arguments = [&short_fit("coop", "1", &output)[..], &store[..]].concat();
        let mut run = program.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a start");
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may have come to its end before.
        let _ = run.kill();
        run.wait().expect("an end");
    }
    assert!(fit(&program, "coop", "1", &store, "after") == fresh);
}

#[test]
fn a_size_that_is_none_is_refused() {
    let program = Program::new();
    program.fail(&["eval", "-b", "pocket", "-d", sample(), "--store", "much"], 2, &["--store", "much"]);
}
