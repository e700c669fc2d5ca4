//! Features encoded in shards: whatever happens to a process, the joined file has the bytes of one run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};
use crate::support::fixture;

/// Encodes one shard of the sample.
fn encode(program: &Program, shard: &str, output: &str) -> Value {
    program.json(&["encode", "-b", "pocket", "--images", sample(), "--shard", shard, "-o", output])
}

fn bytes(program: &Program, name: &str) -> Vec<u8> {
    std::fs::read(program.path(name)).expect("the file is there")
}

/// The sample in one run.
fn whole(program: &Program) -> Vec<u8> {
    program.succeed(&["encode", "-b", "pocket", "--images", sample(), "-o", "whole.safetensors"]);
    bytes(program, "whole.safetensors")
}

#[test]
fn shards_of_images_join_to_the_bytes_of_one_run() {
    let program = Program::new();
    let whole = whole(&program);
    // Sizes that are no multiple of a batch.
    for count in [2, 7] {
        let names: Vec<String> = (0..count).map(|index| format!("{count}-{index}.safetensors")).collect();
        for (index, name) in names.iter().enumerate().rev() {
            let made = encode(&program, &format!("{index}/{count}"), name);
            assert_eq!((&made["shard"], &made["reused"]), (&format!("{index}/{count}").into(), &false.into()));
        }
        let mut arguments = vec!["data", "join", "-o", "joined.safetensors"];
        arguments.extend(names.iter().rev().map(String::as_str));
        assert_eq!(program.json(&arguments)["rows"], 339);
        assert!(bytes(&program, "joined.safetensors") == whole, "{count} shards differ from one run");
    }
    // A shard is a features file as well.
    let part = program.json(&["eval", "-b", "pocket", "-d", "2-0.safetensors"]);
    assert!(part["n"].as_u64().is_some_and(|n| n > 0 && n < 339));
}

/// Encodes what the arguments name at once and in shards, and compares the bytes; returns what a shard says of itself.
#[track_caller]
fn equal_in_shards(program: &Program, count: usize, arguments: &[&str]) -> Vec<Value> {
    let base = [&["encode", "-b", "pocket"], arguments].concat();
    program.succeed(&[&base[..], &["-o", "whole.st"]].concat());
    let names: Vec<String> = (0..count).map(|index| format!("{index}.st")).collect();
    let made = names.iter().enumerate().map(|(index, name)| {
        let shard = format!("{index}/{count}");
        program.json(&[&base[..], &["--shard", &shard, "-o", name]].concat())
    });
    let made = made.collect();
    program.succeed(
        &[&["data", "join", "-o", "joined.st"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(),
    );
    assert!(bytes(program, "joined.st") == bytes(program, "whole.st"), "{arguments:?} in {count} shards");
    made
}

#[test]
fn shards_of_clips_slices_and_adapted_features_join_to_the_bytes_of_one_run() {
    let program = Program::new();
    let numbers = ["--train", "1", "--test", "1", "--length", "12", "--side", "32"];
    program.succeed(&[&["data", "actions", sample(), "-o", "actions"], &numbers[..]].concat());
    // Down to a shard for each clip.
    for count in [3, 20] {
        equal_in_shards(&program, count, &["--images", "actions", "--frames", "4", "--clip-views", "2"]);
    }
    std::fs::create_dir(program.path("scans")).expect("a folder");
    for scan in ["ct.dcm", "loop-rle.dcm", "short.nii.gz"] {
        let file = fixture("parity/medical_images").join(scan);
        std::fs::copy(file, program.path("scans").join(scan)).expect("copied");
    }
    let slices = |window| ["--images", "scans", "--slices", "all", "--window", window];
    let full = equal_in_shards(&program, 4, &slices("full"));
    let narrow = equal_in_shards(&program, 4, &slices("p5:95"));
    assert_eq!(full[0]["rows"].as_u64(), narrow[0]["rows"].as_u64());
    // What is shown otherwise is another list.
    assert!(full[0]["work"] != narrow[0]["work"] && narrow[0]["reused"] == false);
    program.succeed(&short_fit("clip-adapter", "1", "adapted"));
    equal_in_shards(&program, 3, &["--images", "scans", "-a", "adapted"]);
}

#[test]
fn what_cannot_be_read_is_left_out_by_its_shard() {
    let program = Program::new();
    let photos = program.path("photos");
    std::fs::create_dir(&photos).expect("a folder");
    for (at, photo) in walk(Path::new(sample())).iter().take(5).enumerate() {
        std::fs::copy(photo, photos.join(format!("{at}.jpg"))).expect("copied");
    }
    std::fs::write(photos.join("3.jpg"), "no photo").expect("writes");
    let made = equal_in_shards(&program, 2, &["--images", "photos", "--on-bad-image", "skip"]);
    assert_eq!((&made[0]["rows"], &made[1]["rows"]), (&2.into(), &2.into()));
    assert!(made[1]["skipped"][0].as_str().is_some_and(|path| path.ends_with("3.jpg")), "{made:?}");
    let shard = ["encode", "-b", "pocket", "--images", "photos", "--shard", "1/2", "-o", "x.st"];
    program.fail(&shard, 1, &["3.jpg"]);
}

#[test]
fn a_killed_shard_is_run_again_alone() {
    let program = Program::new();
    let whole = whole(&program);
    for index in 0..3 {
        let (shard, name) = (format!("{index}/3"), format!("{index}.safetensors"));
        let arguments = ["encode", "-b", "pocket", "--images", sample(), "--shard", &shard, "-o", &name];
        if index == 1 {
            for delay in [20, 60, 150] {
                let mut child =
                    program.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
                std::thread::sleep(Duration::from_millis(delay));
                child.kill().expect("killed or at its end");
                child.wait().expect("ended");
            }
            if !program.path(&name).exists() {
                let join = ["data", "join", "0.safetensors", "-o", "joined.safetensors"];
                program.fail(&join, 1, &["missing: 1/3, 2/3"]);
            }
        }
        program.succeed(&arguments);
    }
    // The shards that were there are kept.
    assert_eq!(encode(&program, "0/3", "0.safetensors")["reused"], true);
    program.succeed(&["data", "join", "0.safetensors", "1.safetensors", "2.safetensors", "-o", "joined.safetensors"]);
    assert!(bytes(&program, "joined.safetensors") == whole);
}

#[test]
fn a_shard_of_other_content_is_made_again() {
    let program = Program::new();
    let photos = program.path("photos");
    std::fs::create_dir(&photos).expect("a folder");
    let mut from: Vec<_> = walk(Path::new(sample()));
    from.truncate(4);
    for (at, photo) in from.iter().enumerate() {
        std::fs::copy(photo, photos.join(format!("{at}.jpg"))).expect("copied");
    }
    let shard = ["encode", "-b", "pocket", "--images", "photos", "--shard", "1/2", "-o", "1.safetensors"];
    assert_eq!(program.json(&shard)["reused"], false);
    assert_eq!(program.json(&shard)["reused"], true);
    let first = bytes(&program, "1.safetensors");
    // The same size and another pixel: bytes in front of the end-of-image marker.
    let mut photo = std::fs::read(photos.join("3.jpg")).expect("reads");
    let at = photo.len() - 40;
    photo[at] ^= 0x10;
    std::fs::write(photos.join("3.jpg"), photo).expect("writes");
    assert_eq!(program.json(&shard)["reused"], false);
    assert_ne!(bytes(&program, "1.safetensors"), first);
}

#[test]
fn foreign_shards_and_wrong_numbers_are_refused_by_name() {
    let program = Program::new();
    let photos = walk(Path::new(sample()));
    for (folder, third) in [("photos", 2), ("others", 3)] {
        std::fs::create_dir(program.path(folder)).expect("a folder");
        for (at, photo) in [0, 1, third].into_iter().enumerate() {
            std::fs::copy(&photos[photo], program.path(folder).join(format!("{at}.jpg"))).expect("copied");
        }
    }
    let image = |folder: &str, shard: &str, name: &str| {
        program.succeed(&["encode", "-b", "pocket", "--images", folder, "--shard", shard, "-o", name]);
    };
    image("photos", "0/3", "0.st");
    image("photos", "1/3", "1.st");
    image("others", "2/3", "foreign.st");
    let join = ["data", "join", "0.st", "foreign.st", "1.st", "-o", "joined.st"];
    program.fail(&join, 3, &["`foreign.st` is a shard of another list", "each of its shards once"]);
    program.fail(&["data", "join", "0.st", "1.st", "-o", "joined.st"], 1, &["missing: 2/3"]);
    program.fail(&["data", "join", "0.st", "1.st", "1.st", "-o", "joined.st"], 3, &["both are shard 1/3"]);
    assert!(!program.path("joined.st").exists());
    let encode = |shard| ["encode", "-b", "pocket", "--images", "photos", "--shard", shard, "-o", "x.st"];
    program.fail(&encode("3/3"), 2, &["0/3 to 2/3"]);
    program.fail(&encode("half"), 2, &["INDEX/COUNT"]);
    program.fail(&encode("0/9"), 1, &["only 3"]);
    std::fs::write(program.path("texts.txt"), "a cat\na dog\n").expect("writes");
    let texts = ["encode", "-b", "pocket", "--texts", "texts.txt", "--shard", "0/2", "-o", "x.st"];
    program.fail(&texts, 2, &["`--shard` is for images", "in one run"]);
    assert!(!program.path("x.st").exists());
}

#[test]
fn the_examples_for_clusters_run() {
    let program = Program::new();
    let whole = whole(&program);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster");
    let script = |name: &str, task: Option<&str>| {
        let mut command = Command::new("bash");
        command.arg(examples.join(name)).current_dir(program.folder()).env("INARCH_HOME", program.path("home"));
        command.env("INARCH", env!("CARGO_BIN_EXE_inarch-under-test"));
        command.envs([("SHARDS", "3"), ("BACKBONE", "pocket"), ("IMAGES", sample()), ("OUT", "features")]);
        command.envs(task.map(|task| ("SLURM_ARRAY_TASK_ID", task)));
        let output = command.output().expect("bash starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for task in ["2", "0", "1"] {
        script("slurm-encode.sh", Some(task));
    }
    script("slurm-join.sh", None);
    assert!(bytes(&program, "features/features.safetensors") == whole);
    std::fs::remove_dir_all(program.path("features")).expect("removed");
    script("local.sh", None);
    assert!(bytes(&program, "features/features.safetensors") == whole);
    // What the Jobs hand to the binary is understood by it.
    let jobs = std::fs::read_to_string(examples.join("kubernetes.yaml")).expect("reads");
    let given = jobs.lines().filter_map(|line| line.trim().strip_prefix("- --")).map(|option| option.split('=').next());
    let help = program.succeed(&["encode", "--help"]);
    let given: Vec<&str> = given.flatten().collect();
    assert_eq!(given, ["backbone", "images", "shard", "output"]);
    assert!(given.iter().all(|option| help.contains(&format!("--{option} <"))), "{help}");
}

/// All files below a folder, in the order of their names.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    entries.into_iter().flat_map(|entry| if entry.is_dir() { walk(&entry) } else { vec![entry] }).collect()
}
