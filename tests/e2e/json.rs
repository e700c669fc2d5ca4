//! What commands print with `--json` has the keys that the guide says, and no others.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};
use super::update::{LENIENT, OLD, part, update};
use crate::docs::documented;

/// Compares the keys of an object with those that the guide has below a heading.
#[track_caller]
fn check(heading: &str, command: &str, found: &Value) {
    let documented = documented(heading, command);
    let found: BTreeSet<&str> = found.as_object().expect("an object").keys().map(String::as_str).collect();
    let undocumented: Vec<&&str> = found.iter().filter(|key| !documented.contains_key(**key)).collect();
    assert!(undocumented.is_empty(), "`{command}` prints {undocumented:?}, of which docs/json.md does not tell");
    let missing = documented.iter().filter(|(key, always)| **always && !found.contains(key.as_str()));
    let missing: Vec<&String> = missing.map(|(key, _)| key).collect();
    assert!(missing.is_empty(), "`{command}` does not print {missing:?}, which docs/json.md promises");
}

/// Runs a command and checks its keys.
#[track_caller]
fn run(program: &Program, heading: &str, command: &str, arguments: &[&str]) -> Value {
    let found = program.json(arguments);
    check(heading, command, &found);
    found
}

#[test]
fn training_and_use_print_what_the_guide_says() {
    let program = Program::new();
    let run = |heading: &str, command: &str, arguments: &[&str]| run(&program, heading, command, arguments);
    let fit = short_fit("linear-probe", "1", "run");
    run("fit", "fit", &fit);
    run("fit --explain", "fit", &[&fit[..], &["--explain"]].concat());
    run("eval", "eval", &["eval", "-b", "pocket", "-d", sample(), "-a", "run"]);
    let photos = part(&program, "photos", &OLD[..2], 0, 99);
    let photo = &inarch_core::file::list(&Path::new(&photos).join("train").join(OLD[0])).expect("a folder")[0];
    run("predict", "predict", &["predict", "-b", "pocket", "-a", "run", &photo.display().to_string()]);
    let encode = ["encode", "-b", "pocket", "--images", "photos", "-o"];
    run("encode and data join", "encode", &[&encode[..], &["all.safetensors"]].concat());
    run("encode and data join", "encode", &[&encode[..], &["part.safetensors", "--shard", "0/1"]].concat());
    let join = ["data", "join", "part.safetensors", "-o", "joined.safetensors"];
    run("encode and data join", "data join", &join);
    run("combine and convert", "combine", &["combine", "-b", "pocket", "run", "run", "-o", "both"]);
    let convert = ["convert", "run", "copy", "--from", "inarch", "--to", "inarch", "-b", "pocket"];
    run("combine and convert", "convert", &convert);
    run("corrupt", "corrupt", &["corrupt", "-d", "photos", "-o", "damaged", "--kind", "jpeg", "--severity", "1"]);
    run("data commands", "data split", &["data", "split", "-d", "photos", "-o", "splits.csv"]);
    let compare = ["compare", "-b", "pocket", "-d", sample(), "-m", "taskres", "--shots", "1", "--seeds", "1"];
    let short = ["--set", "train.budget={ iterations = 2 }", "-o", "compared"];
    run("compare", "compare", &[&compare[..], &short].concat());
    let pretrain = ["pretrain", "-b", "pocket", "-d", sample(), "-o", "adapted"];
    run("pretrain", "pretrain", &[&pretrain[..], &["--set", "train.budget={ iterations = 2 }"]].concat());
    run("doctor", "doctor", &["doctor"]);
    run("backbone", "list", &["backbone", "list"]);
    run("backbone", "show", &["backbone", "show", "pocket"]);
}

#[test]
fn data_that_keeps_coming_prints_what_the_guide_says() {
    let program = Program::new();
    let run = |heading: &str, command: &str, arguments: &[&str]| run(&program, heading, command, arguments);
    let [base, north, south] = [0, 1, 2].map(|from| part(&program, &format!("data-{from}"), &OLD[..2], from, 3));
    run("update", "update", &update("base", &base, &["--init", "rail"]));
    for (data, output) in [(&north, "north"), (&south, "south")] {
        run("update", "update", &update("base", data, &[LENIENT, &["-o", output]].concat()));
    }
    run("merge", "merge", &["merge", "north", "south", "--base", "base", "-b", "pocket", "-o", "merged"]);
    run("memory", "show", &["memory", "show", "base"]);
    let shown = run("memory", "show", &["memory", "show", "base", "--samples"]);
    run("memory", "export", &["memory", "export", "base", "base.memory"]);
    run("memory", "import", &["memory", "import", "base.memory", "work"]);
    run("memory", "add", &["memory", "add", "work", "-d", &north, "-b", "pocket"]);
    run("memory", "verify", &["memory", "verify", "work"]);
    run("memory", "drift", &["memory", "drift", "work", "-d", &south, "-b", "pocket"]);
    run("memory", "key", &["memory", "key", "secret.key"]);
    let id = shown["ids"][0]["id"].as_str().expect("an id");
    run("memory", "forget", &["memory", "forget", "base", "-b", "pocket", id]);
    let stream = ["stream", "-b", "pocket", "-d", sample(), "-s", "rail", "-o", "stream", "--seeds", "1"];
    run("stream", "stream", &[&stream[..], &["--set", "stream.experiences=2"]].concat());
}

#[test]
fn the_registry_prints_what_the_guide_says() {
    let program = Program::new();
    for (seed, output) in [("1", "one"), ("2", "two")] {
        program.succeed(&short_fit("linear-probe", seed, output));
    }
    let run = |command: &str, arguments: &[&str]| {
        run(&program, "registry commands", command, &[&["registry"], arguments].concat())
    };
    for folder in ["one", "two"] {
        run("publish", &["publish", folder, "chest"]);
    }
    run("list", &["list"]);
    run("show", &["show", "chest"]);
    run("tag", &["tag", "chest@1", "prod"]);
    run("promote", &["promote", "chest@2", "prod", "--without-self-test", "--why", "newer"]);
    run("rollback", &["rollback", "chest@prod"]);
    run("untag", &["untag", "chest@prod"]);
    run("log", &["log", "chest"]);
    run("diff", &["diff", "chest@1", "chest@2"]);
    run("verify", &["verify"]);
    run("checkout", &["checkout", "chest@1"]);
    run("pin", &["pin", "chest@1"]);
    run("gc", &["gc", "--dry-run"]);
    run("export", &["export", "chest@2", "-o", "bundle.tar"]);
    run("import", &["import", "bundle.tar"]);
    let mirror = program.path("mirror").display().to_string();
    run("push", &["push", "chest@2", &mirror]);
    run("pull", &["pull", "chest@2", &mirror]);
    run("reindex", &["reindex"]);
    run("keys generate", &["keys", "generate", "our.key"]);
    run("keys generate", &["keys", "generate", "root.key"]);
    run("sign", &["sign", "chest@2", "--key", "our.key"]);
    run("keys trust", &["keys", "trust", "our.key.pub"]);
    run("keys list", &["keys", "list"]);
    run("keys distrust", &["keys", "distrust", "our.key.pub"]);
    let channel = format!("{mirror}#stable");
    let channel = channel.as_str();
    let on_channel = |command: &str, arguments: &[&str]| {
        let begin = ["registry", "channel", command];
        check("registry channel", command, &program.json(&[&begin[..], arguments].concat()));
    };
    on_channel("create", &[channel, "--root-key", "root.key", "--key", "our.key"]);
    on_channel("offer", &["chest@2", channel, "--key", "our.key"]);
    on_channel("show", &[channel]);
    let agent = ["agent", channel, "-b", "pocket", "--once", "--name", "ward-3", "--root", "root.json"];
    check("agent", "agent", &program.json(&agent));
}
