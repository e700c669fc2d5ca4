//! The registry as a user meets it: publish, use by name, promote, roll back, carry away, verify.

use super::Program;
use super::program::{sample, short_fit};
use crate::support::fixture;

/// Two versions of one adapter and a report of the first fit.
fn published(program: &Program) -> serde_json::Value {
    let publish = ["--publish", "clothes/probe"];
    let first = program.json(&[&short_fit("linear-probe", "1", "one")[..], &publish].concat());
    assert_eq!(first["published"]["number"], 1);
    program.succeed(&[&short_fit("linear-probe", "2", "two")[..], &publish].concat());
    first
}

#[test]
fn an_adapter_is_published_used_by_name_promoted_and_rolled_back() {
    let program = Program::new();
    let fit = published(&program);
    let eval =
        |adapter: &str| program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", adapter])["accuracy"].clone();
    assert_eq!(eval("clothes/probe@1"), fit["runs"][0]["accuracy"]);
    assert_eq!(eval("clothes/probe@1"), eval("one"));
    assert_eq!(eval("clothes/probe"), eval("two"));
    let digest = fit["published"]["digest"].as_str().expect("a digest");
    assert_eq!(eval(digest), eval("one"));

    let registry = |arguments: &[&str]| program.json(&[&["registry"], arguments].concat());
    registry(&["promote", "clothes/probe@1", "prod", "-b", "pocket", "--expect", "none"]);
    registry(&["promote", "clothes/probe@2", "prod", "-b", "pocket", "--expect", "1", "--why", "better"]);
    let expected = ["registry", "tag", "clothes/probe@1", "prod", "--expect", "1"];
    program.fail(&expected, 3, &["clothes/probe@prod", "expected version 1, found version 2"]);
    assert_eq!(registry(&["rollback", "clothes/probe@prod", "--why", "worse at night"])["to"], 1);
    assert_eq!(eval("clothes/probe@prod"), eval("one"));
    let log = registry(&["log", "clothes/probe"]);
    let events: Vec<&str> =
        log["events"].as_array().expect("a list").iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(events, ["moved", "moved", "moved", "published", "published"]);
    let log = program.succeed(&["registry", "log", "clothes/probe", "--json"]);
    assert_eq!(log.matches("\"at\":").count(), events.len(), "{log}");

    let list = registry(&["list", "-m", "linear-probe", "--where", "accuracy>=0", "-n", "9"]);
    assert_eq!(list["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!(registry(&["show", "clothes/probe@prod"])["card"]["method"], "linear-probe");
    let diff = registry(&["diff", "clothes/probe@1", "clothes/probe@2"]);
    assert!(diff["files"].as_array().is_some_and(|files| files.len() >= 2), "{diff}");
    assert_eq!(registry(&["verify"])["problems"].as_array().map(Vec::len), Some(0));
    for text in
        [&["list"][..], &["show", "clothes/probe"], &["log", "clothes/probe"], &["gc", "--dry-run"], &["reindex"]]
    {
        assert!(!program.succeed(&[&["registry"], text].concat()).is_empty());
    }
}

#[test]
fn versions_travel_in_a_bundle_to_a_machine_without_a_network() {
    let (here, there) = (Program::new(), Program::new());
    published(&here);
    here.succeed(&["registry", "tag", "clothes/probe@2", "prod"]);
    let bundle = there.path("bundle.tar").display().to_string();
    here.succeed(&["registry", "export", "clothes/probe@1", "clothes/probe@prod", "-o", &bundle]);
    there.succeed(&["registry", "import", "bundle.tar", "--aliases"]);
    let eval = |program: &Program| {
        program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "clothes/probe@prod"])["accuracy"].clone()
    };
    assert_eq!(eval(&here), eval(&there));
    let report = there.json(&["registry", "import", "bundle.tar"]);
    assert_eq!(report["present"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_folder_whose_saving_was_killed_is_published_whole() {
    let program = Program::new();
    program.succeed(&short_fit("linear-probe", "1", "one"));
    let tensors = program.path("one/adapter.safetensors");
    std::fs::rename(&tensors, program.path("one/adapter.safetensors.staged")).expect("renamed");
    program.succeed(&["registry", "publish", "one", "probe"]);
    assert!(tensors.is_file() && !program.path("one/adapter.safetensors.staged").exists());
    // The tensors of before still had the name.
    std::fs::rename(&tensors, program.path("one/adapter.safetensors.staged")).expect("renamed");
    std::fs::write(&tensors, "of before").expect("written");
    assert_eq!(program.json(&["registry", "publish", "one", "probe"])["is_new"], false);
}

#[test]
fn what_is_wrong_is_named_with_its_cure() {
    let program = Program::new();
    published(&program);
    let eval = |adapter| vec!["eval", "-b", "pocket", "-d", sample(), "-a", adapter];
    program.fail(&eval("clothes/prob"), 2, &["no adapter `clothes/prob`", "did you mean `clothes/probe`", "no folder"]);
    program.fail(&eval("clothes/probe@9"), 2, &["no version `9`", "known: 2, 1"]);
    program.fail(&eval("clothes/probe@prod"), 2, &["no alias `prod`"]);
    program.fail(&eval("No Such"), 2, &["`No Such` does not exist"]);
    let other = fixture("parity/clip_tiny/quick").display().to_string();
    let beside = ["eval", "-b", &other, "-d", sample(), "-a", "clothes/probe@1"];
    program.fail(&beside, 3, &["`clothes/probe@1`", "expected pocket"]);
    program.fail(&["registry", "publish", "nowhere", "x"], 1, &["adapter.json", "inarch fit"]);
    program.fail(&["registry", "publish", "one", "Bad Name"], 2, &["not a valid name"]);
    program.fail(&["registry", "tag", "clothes/probe", "latest"], 2, &["cannot be moved"]);
    program.fail(&["registry", "promote", "clothes/probe", "prod"], 2, &["--backbone"]);
    program.succeed(&["registry", "tag", "clothes/probe@1", "stable"]);
    let rollback = |alias: &'static str| ["registry", "rollback", alias];
    program.fail(&rollback("clothes/probe@stable"), 3, &["it has no past", "inarch registry log"]);
    program.fail(&rollback("clothes/probe@stabel"), 2, &["no alias `stabel`", "did you mean `stable`?"]);
    program.fail(&[&short_fit("coop", "1,2", "x")[..], &["--publish", "x"]].concat(), 2, &["several seeds"]);
    assert!(!program.path("x").exists(), "refused before the training");

    // A blob that rots is found, named, and not used.
    let digest = program.json(&["registry", "show", "clothes/probe@1"]);
    let file = &digest["files"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|file| file["file"] == "adapter.safetensors")
        .expect("a file")["digest"];
    let path =
        program.path("home/registry/blobs/sha256").join(file.as_str().expect("a digest").trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&path).expect("a blob");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, bytes).expect("damaged");
    program.fail(&eval("clothes/probe@1"), 1, &["damaged", "inarch registry verify"]);
    let run = program.run(&["registry", "verify"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.contains("clothes/probe@1") && run.stderr.contains("publish, pull or import"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    program.succeed(&eval("clothes/probe@2"));
}

/// Rehearsal memories are published as well.
#[cfg(unix)]
#[test]
fn what_is_published_is_readable_by_whom_the_mask_of_the_user_lets_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Program::new();
    program.succeed(&short_fit("linear-probe", "1", "one"));
    for (mask, blob, file) in [("077", 0o400, 0o600), ("022", 0o444, 0o644)] {
        let masked = |arguments: &[&str]| {
            let plain = program.command(arguments);
            let mut masked = std::process::Command::new("sh");
            masked
                .args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")])
                .arg(plain.get_program())
                .args(plain.get_args());
            masked.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
            masked.env("INARCH_HOME", program.path(mask)).current_dir(program.folder());
            assert!(masked.output().expect("a shell").status.success(), "{arguments:?}");
        };
        let bundle = format!("{mask}.tar");
        masked(&["registry", "publish", "one", "probe"]);
        masked(&["registry", "export", "probe", "-o", &bundle]);
        let registry = program.path(mask).join("registry");
        let blobs = std::fs::read_dir(registry.join("blobs").join("sha256")).expect("a folder");
        let blobs = blobs.map(|entry| (entry.expect("a blob").path(), blob));
        let files = ["index.json", "oci-layout", "names/probe/versions/1"].map(|name| (registry.join(name), file));
        for (path, expected) in blobs.chain(files).chain([(program.path(&bundle), file)]) {
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, expected, "{} under {mask}", path.display());
        }
    }
}
