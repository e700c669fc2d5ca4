//! `update`, `memory` and `merge`: an adapter in use, new images, and what must be forgotten.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_continual::Memory;
use serde_json::{Value, json};

use super::Program;
use super::program::{adapter_bytes, sample, short_fit};
use crate::support::fixture;

/// A part of the sample: some classes, every `step`-th training image from `from` on, and the test images.
pub(super) fn part(program: &Program, name: &str, classes: &[&str], from: usize, step: usize) -> String {
    for class in classes {
        for split in ["train", "test"] {
            let source = Path::new(sample()).join(split).join(class);
            let into = program.path(name).join(split).join(class);
            std::fs::create_dir_all(&into).expect("creates");
            let files = inarch_core::file::list(&source).expect("lists");
            let (from, step) = if split == "train" { (from, step) } else { (0, 1) };
            for path in files.iter().skip(from).step_by(step) {
                std::fs::copy(path, into.join(path.file_name().expect("a name"))).expect("copies");
            }
        }
    }
    program.path(name).display().to_string()
}

pub(super) const OLD: [&str; 5] = ["hat", "pants", "shirt", "shoes", "skirt"];
pub(super) const NEW: [&str; 2] = ["dress", "shorts"];
/// Share of right answers of whoever draws among the old classes.
const CHANCE: f64 = 1.0 / OLD.len() as f64;

/// Settings under which nothing but the rule in question says no.
pub(super) const LENIENT: &[&str] =
    &["--set", "gate.class_drop=1.0", "--set", "gate.accuracy_drop=1.0", "--set", "gate.negative_flips=1.0"];

pub(super) fn update<'a>(target: &'a str, data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["update", target, "-b", "pocket", "-d", data, "--set", "method.projections=200"], more].concat()
}

pub(super) fn ids(program: &Program, target: &str) -> Vec<String> {
    let shown = program.json(&["memory", "show", target, "--samples"]);
    let list = shown["ids"].as_array().expect("a list").iter();
    list.map(|sample| sample["id"].as_str().expect("text").to_string()).collect()
}

/// A JSON file.
pub(super) fn record(program: &Program, path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(program.path(path)).expect("reads")).expect("JSON")
}

#[test]
fn an_adapter_takes_in_new_classes_past_a_gate_and_forgets_on_request() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 1), part(&program, "new", &NEW, 0, 1));
    let first = program.json(&update("shop", &old, &["--init", "rail"]));
    assert_eq!(first["version"], "shop/1");
    assert_eq!(first["new_classes"].as_array().map(Vec::len), Some(5));
    assert!(first["accuracy"].as_f64() > Some(CHANCE), "{first}");

    // The gate says no: exit 3, the verdict is on stdout, nothing is published.
    let refused = program.run(&update("shop", &new, &[LENIENT, &["--set", "gate.most_bytes=10"]].concat()));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("most_bytes") && refused.stdout.contains("BROKEN"), "{}", refused.stdout);
    assert!(!program.path("shop/2").exists());
    assert_eq!(record(&program, "shop/report.json")["verdict"]["passed"], false);

    // However its place is written.
    let second = program.json(&update("shop", &new, &[LENIENT, &["-o", "./shop"]].concat()));
    assert_eq!((second["version"].as_str(), second["parent"].as_str()), (Some("./shop/2"), Some("shop/1")));
    assert_eq!(second["new_classes"], json!(NEW));
    // Its report lies beside the versions, and among its own files, where it has no name yet.
    assert_eq!(record(&program, "shop/report.json"), second);
    let own = record(&program, "shop/2/report.json");
    let burn = program.json(&["doctor"])["burn"].clone();
    assert_eq!((&own["burn"], &own["device"], &own["backbone"]), (&burn, &json!("cpu"), &second["backbone"]));
    assert_eq!((&own["recipe"]["gate"]["class_drop"], &own["data"]), (&json!(1.0), &json!("new")));
    assert!(own["peak_memory_bytes"].as_u64() > Some(1 << 20), "{own}");
    assert!(own["version"].is_null() && own["learned"] == second["learned"], "{own}");
    program.fail(&update("shop", &new, LENIENT), 1, &["learned before"]);
    program.fail(&update("shop", &new, &["--init", "rail"]), 1, &["exists already"]);
    program.fail(&update("nowhere", &new, &[]), 1, &["nowhere", "--init"]);

    // It is an adapter like any other, which answers among all classes of both updates.
    let image = inarch_core::file::list(&Path::new(&new).join("test/dress")).expect("images")[0].display().to_string();
    let predicted = program.json(&["predict", "-b", "pocket", "-a", "shop/2", "--top-k", "9", &image]);
    let predictions = predicted["images"][0]["predictions"].as_array().expect("a list");
    let mut labels: Vec<&str> = predictions.iter().filter_map(|one| one["label"].as_str()).collect();
    let scores: Vec<f64> = predictions.iter().filter_map(|one| one["score"].as_f64()).collect();
    assert!(
        scores.is_sorted_by(|one, next| one >= next) && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-3,
        "{predicted}"
    );
    labels.sort_unstable();
    let mut classes = [&OLD[..], &NEW[..]].concat();
    classes.sort_unstable();
    assert_eq!(labels, classes);

    // Forgetting everything of the second update gives the statistics of the first.
    let gone: Vec<String> = ids(&program, "shop").into_iter().filter(|id| id.starts_with("new/")).collect();
    assert!(gone.len() > 20, "the memory holds all of it");
    let mut arguments = vec!["memory", "forget", "shop", "-b", "pocket"];
    arguments.extend(gone.iter().map(String::as_str));
    let report = program.json(&arguments);
    assert_eq!(report["version"], "shop/3");
    assert_eq!(report["influence_removed"], true);
    assert_eq!(report["samples"][1].as_u64(), first["learned"].as_u64());
    assert!(report["residual"].as_f64().is_some_and(|residual| residual < 1e-12), "{report}");
    assert_eq!(report["still_in"], json!(["shop/2"]));
    let classes = |version: &str| -> Value {
        let text = std::fs::read_to_string(program.path(version).join("adapter.json")).expect("a manifest");
        serde_json::from_str::<Value>(&text).expect("JSON")["classes"].clone()
    };
    assert_eq!(classes("shop/3"), classes("shop/1"));
    let proof = record(&program, "shop/3/forgotten.json");
    assert!(!proof.to_string().contains("dress"), "the record names no sample");
    assert_eq!(proof, report, "the record is what was reported");
    assert_eq!((&report["from_memory"], &report["presented"]), (&json!(gone.len()), &json!(0)));
    program.fail(&["memory", "forget", "shop", "-b", "pocket", "new/no-such"], 2, &["unknown sample"]);
    let one = ids(&program, "shop")[0].clone();
    let purged = program.json(&["memory", "forget", "shop", "-b", "pocket", &one, "--purge"]);
    assert_eq!(purged["purged"].as_array().map(Vec::len), Some(3), "{purged}");
    assert!(!program.path("shop/1").exists());
    assert_eq!(record(&program, "shop/4/forgotten.json"), purged, "and what was removed afterwards");
    assert_eq!(purged["still_in"], json!([]));
}

#[test]
fn two_sites_merge_to_the_adapter_of_all_data() {
    let program = Program::new();
    let base = part(&program, "base", &OLD, 0, 3);
    let (north, south) = (part(&program, "north", &OLD, 1, 3), part(&program, "south", &OLD, 2, 3));
    program.json(&update("base-line", &base, &["--init", "rail"]));
    let to = |output: &'static str| [LENIENT, &["-o", output]].concat();
    program.json(&update("base-line", &north, &to("north-line")));
    program.json(&update("base-line", &south, &to("south-line")));
    program.json(&update("north-line", &south, &to("pooled-line")));
    program.fail(&["merge", "north-line", "south-line", "-o", "wrong"], 1, &["share", "--base"]);
    let merged = ["merge", "north-line", "south-line", "--base", "base-line", "-b", "pocket", "-o", "merged-line"];
    let other = [&merged[..], &["--pooled", "north-line"]].concat();
    program.fail(&other, 1, &["north-line", "same data"]);
    let report = program.json(&[&merged[..], &["--pooled", "pooled-line"]].concat());
    assert_eq!(report["exact"], true);
    assert_eq!((&report["pooled"], &report["loss"]), (&report["accuracy"], &json!(0.0)));
    let pooled = program.json(&["eval", "-b", "pocket", "-d", &base, "-a", "pooled-line/1"]);
    let found = program.json(&["eval", "-b", "pocket", "-d", &base, "-a", "merged-line/1"]);
    assert_eq!(pooled["accuracy"], found["accuracy"]);
    let held = |line: &str| ids(&program, line);
    assert_eq!(held("pooled-line"), held("merged-line"));
}

#[test]
fn a_merge_by_weights_tells_what_it_lost_against_pooled_training() {
    let program = Program::new();
    let (north, south) = (part(&program, "north", &OLD, 0, 2), part(&program, "south", &OLD, 1, 2));
    let steps = ["--set", "fit.train.budget={ iterations = 30 }"];
    let run = |target: &str, data: &str, more: &[&str]| {
        program.json(&[&["update", target, "-b", "pocket", "-d", data], more, &steps, LENIENT].concat())
    };
    let init = ["--init", "linear-probe"];
    run("north-line", &north, &init);
    run("south-line", &south, &init);
    run("north-line", &south, &["-o", "pooled-line"]);
    let merged = ["merge", "north-line", "south-line", "-b", "pocket", "-o", "merged-line", "--pooled", "pooled-line"];
    let report = program.json(&merged);
    assert_eq!(report["exact"], false);
    let [pooled, accuracy, loss] = ["pooled", "accuracy", "loss"].map(|name| report[name].as_f64().expect("a number"));
    assert!((pooled - accuracy - loss).abs() < 1e-12 && pooled > CHANCE && accuracy > CHANCE, "{report}");
    let text = program.run(&[&merged[..6], &["other-line"], &merged[7..]].concat());
    assert!(text.stdout.contains("pooled") && text.stdout.contains("lost by merging"), "{}", text.stdout);
}

#[test]
fn an_adapter_trained_by_steps_is_updated_with_rehearsal_and_cannot_be_undone() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 2), part(&program, "new", &NEW, 0, 2));
    let steps = ["--set", "fit.train.budget={ iterations = 30 }"];
    let run = |target, data, more: &[&'static str]| {
        let arguments: Vec<&str> =
            [&["update", target, "-b", "pocket", "-d", data], &steps[..], LENIENT, more].concat();
        program.json(&arguments)
    };
    run("line", &old, &["--init", "linear-probe"]);
    let second = run("line", &new, &[]);
    assert_eq!(second["strategy"], "er");
    assert_eq!(second["version"], "line/2");
    let one = ids(&program, "line")[0].clone();
    program.fail(
        &["memory", "forget", "line", "-b", "pocket", &one],
        3,
        &["cannot be undone", "clean version", "--memory-only"],
    );
    let report = program.json(&["memory", "forget", "line", "-b", "pocket", &one, "--memory-only"]);
    assert_eq!((&report["influence_removed"], &report["from_memory"]), (&json!(false), &json!(1)));
    assert_eq!(record(&program, "line/3/forgotten.json"), report);
    assert!(adapter_bytes(&program.path("line/2"))[0] == adapter_bytes(&program.path("line/3"))[0]);
}

#[test]
fn an_image_that_cannot_be_read_leaves_the_others_under_their_own_names() {
    let program = Program::new();
    let old = part(&program, "old", &OLD[..3], 0, 4);
    let update = |target: &str| {
        let more = ["--init", "linear-probe", "--set", "fit.train.budget={ iterations = 2 }", "--on-bad-image", "skip"];
        program.json(&[&["update", target, "-b", "pocket", "-d", old.as_str()], &more[..]].concat())
    };
    let remembered = |target: &str| -> BTreeMap<String, (String, Vec<f32>)> {
        program.json(&["memory", "export", target, "a.memory"]);
        let memory = Memory::load(&program.path("a.memory"), None).expect("a snapshot");
        memory.samples().map(|sample| (sample.id.clone(), (sample.class.clone(), sample.latent.clone()))).collect()
    };
    update("whole");
    let first = inarch_core::file::list(&Path::new(&old).join("train/hat")).expect("images")[0].clone();
    std::fs::write(&first, "no image").expect("writes");
    let report = update("rest");
    let name = first.file_name().expect("a name").to_string_lossy().into_owned();
    let mut expected = remembered("whole");
    expected.retain(|id, _| !id.contains(&name));
    assert_eq!(remembered("rest"), expected);
    assert_eq!((report["learned"].as_u64(), report["unread"].as_u64()), (Some(expected.len() as u64), Some(1)));

    // A class of which nothing can be read is none that is learned.
    let unreadable = |class: &str| {
        for path in inarch_core::file::list(&Path::new(&old).join("train").join(class)).expect("images") {
            std::fs::write(path, "no image").expect("writes");
        }
    };
    unreadable(OLD[0]);
    assert_eq!(update("fewer")["new_classes"], json!([OLD[1], OLD[2]]));
    let heads = ["update", "heads", "-b", "pocket", "-d", &old, "--init", "rail", "--on-bad-image", "skip"];
    assert_eq!(program.json(&heads)["new_classes"], json!([OLD[1], OLD[2]]));
    OLD[1..3].iter().for_each(|class| unreadable(class));
    for method in ["rail", "linear-probe"] {
        let arguments = ["update", "none", "-b", "pocket", "-d", &old, "--init", method, "--on-bad-image", "skip"];
        program.fail(&arguments, 1, &["data set `old`", "nothing to learn from"]);
        assert!(!program.path("none/1").exists());
    }
}

#[test]
fn memories_are_kept_apart_from_other_backbones_and_other_eyes() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 2);
    program.succeed(&["memory", "key", "key"]);
    program.fail(&["memory", "key", "key"], 1, &["key"]);
    program.json(&update("shop", &old, &["--init", "rail", "--key", "key"]));
    program.fail(&["memory", "show", "shop"], 2, &["encrypted", "--key"]);
    assert!(!program.path("shop/1/statistics.safetensors").exists());
    let new = part(&program, "new", &NEW, 0, 4);
    program.fail(&update("shop", &new, LENIENT), 2, &["statistics.inarch", "encrypted", "--key"]);
    let second = program.json(&update("shop", &new, &[LENIENT, &["--key", "key"]].concat()));
    assert_eq!(second["new_classes"], json!(NEW));
    let shown = program.json(&["memory", "show", "shop", "--key", "key"]);
    let (bytes, budget) = (shown["bytes"].as_u64(), shown["config"]["budget_bytes"].as_u64());
    assert!(bytes <= budget && bytes > Some(0), "{shown}");

    program.json(&["memory", "add", "camera", "-b", "pocket", "-d", &old, "--set", "budget_bytes=4096"]);
    let other = fixture("parity/clip_tiny/quick").display().to_string();
    program.fail(&["memory", "verify", "camera", "-b", &other], 3, &["refused", "pocket"]);
    program.fail(&["memory", "add", "camera", "-b", &other, "-d", &old], 3, &["refused"]);
    let verified = program.json(&["memory", "verify", "camera", "-b", "pocket"]);
    assert_eq!(verified["within_budget"], true);

    // A snapshot is exact: the database can be lost.
    let exported = program.json(&["memory", "export", "camera", "camera.memory"]);
    std::fs::remove_dir_all(program.path("home/memory/camera.sled")).expect("removes");
    let imported = program.json(&["memory", "import", "camera.memory", "camera"]);
    assert_eq!(imported["digest"], exported["digest"]);
    program.json(&["memory", "import", "camera.memory", "sealed", "--seal", "key"]);
    program.fail(&["memory", "import", "camera.memory", "sealed"], 2, &["sealed.sled", "encrypted", "--seal"]);
    let one = ids(&program, "camera")[0].clone();
    assert_eq!(program.json(&["memory", "forget", "camera", &one])["forgotten"], 1);
    let records = record(&program, "home/memory/camera.forgotten.json");
    assert_eq!((records.as_array().map(Vec::len), &records[0]["from_memory"]), (Some(1), &json!(1)), "{records}");
    assert_eq!(records[0]["memory"][0], imported["digest"]);
    assert_ne!(records[0]["memory"][0], records[0]["memory"][1]);
    assert!(!records.to_string().contains("hat") && records[0]["forgotten"][0].as_str().is_some_and(|x| x.len() == 32));
    program.fail(&["memory", "forget", "camera", &one], 2, &["unknown sample"]);

    let drift = program.json(&["memory", "drift", "camera", "-b", "pocket", "-d", &old, "--state", "drift.json"]);
    assert!(drift["drifted"].is_boolean() && program.path("drift.json").is_file());
}

#[test]
fn an_alias_of_the_registry_is_brought_up_to_date() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 1), part(&program, "new", &NEW, 0, 1));
    let first = program.json(&update("shop@prod", &old, &["--init", "rail"]));
    assert_eq!(first["version"], "shop@1");
    let refused = program.run(&update("shop@prod", &new, &[LENIENT, &["--set", "gate.most_bytes=10"]].concat()));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    // As a process leaves it that is killed while it publishes.
    let left = program.path("home/updates/.staging").join(inarch_core::Digest::of(b"shop").short());
    std::fs::create_dir_all(&left).expect("creates");
    std::fs::write(left.join("memory.inarch"), "samples").expect("writes");
    let text = program.succeed(&update("shop@prod", &new, LENIENT));
    assert!(!left.exists(), "it went with the next version");
    assert!(text.contains("published shop@2") && text.contains("predict -b pocket -a shop@2 "), "{text}");
    let shown = program.json(&["registry", "show", "shop@prod"]);
    assert_eq!(shown["number"], 2, "{shown}");
    let files = shown["files"].as_array().expect("a list");
    assert!(files.iter().any(|file| file["file"] == "report.json"), "{shown}");
    let image = inarch_core::file::list(&Path::new(&new).join("test/dress")).expect("images")[0].display().to_string();
    let answer = |adapter: &str| program.json(&["predict", "-b", "pocket", "-a", adapter, &image])["images"].clone();
    assert_eq!(answer("shop@prod"), answer("shop@2"));
    assert_ne!(answer("shop@prod"), answer("shop@1"));
    assert!(ids(&program, "shop@prod").iter().any(|id| id.starts_with("new/")), "the memory is published with it");
    // What moved meanwhile is not overwritten: a version itself is no target.
    // That is said before anything is learned: these samples are known already, which would be said later.
    program.fail(&update("shop@1", &new, LENIENT), 2, &["never changes", "shop@prod", "registry tag"]);
    program.fail(&update("nobody@prod", &new, &[]), 2, &["nobody", "known: shop"]);
}

#[test]
fn devices_get_a_version_without_what_only_updates_need() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 1), part(&program, "new", &NEW, 0, 2));
    let more = part(&program, "more", &NEW, 1, 2);
    program.json(&update("shop", &old, &["--init", "rail"]));
    program.json(&update("shop", &new, LENIENT));
    // A folder of versions stands for the one in force.
    program.json(&["registry", "publish", "shop", "whole", "-b", "pocket"]);
    program.json(&["registry", "publish", "shop", "device", "-b", "pocket", "--for-devices"]);
    let size = |name: &str| program.json(&["registry", "show", name])["bytes"].as_u64().expect("a size");
    assert!(2 * size("device") < size("whole"), "{} of {} bytes", size("device"), size("whole"));
    let image = inarch_core::file::list(&Path::new(&new).join("test/dress")).expect("images")[0].display().to_string();
    let answer = |adapter: &str| program.json(&["predict", "-b", "pocket", "-a", adapter, &image])["images"].clone();
    assert_eq!(answer("whole"), answer("shop/2"));
    assert_eq!(answer("device"), answer("whole"));
    program.fail(&update("device", &more, LENIENT), 1, &["no statistics", "--for-devices"]);
    let mut whole = update("whole", &more, LENIENT);
    whole.extend(["-o", "again"]);
    program.json(&whole);
}

#[test]
fn one_class_may_come_alone_where_others_are_known() {
    let program = Program::new();
    let (old, dress) = (part(&program, "old", &OLD, 0, 2), part(&program, "dress", &["dress"], 0, 2));
    // A first version has nothing to tell it from.
    program.fail(&update("shop", &dress, &["--init", "rail"]), 1, &["more than one class", "only `dress`"]);
    program.succeed(&update("shop", &old, &["--init", "rail"]));
    let second = program.json(&update("shop", &dress, LENIENT));
    assert_eq!((&second["version"], &second["new_classes"]), (&json!("shop/2"), &json!(["dress"])));

    // Steps need samples of others, which an adapter without a memory does not have.
    program.succeed(&[&short_fit("linear-probe", "1", "probe")[..], &["--publish", "probe"]].concat());
    std::fs::rename(program.path("probe"), program.path("moved")).expect("renames");
    program.fail(&["update", "probe", "-b", "pocket", "-d", &dress], 1, &["one class, `dress`", "add images"]);

    // Features and memories tell nothing apart.
    let encoded = program.json(&["encode", "-b", "pocket", "--images", &dress, "-o", "dress.safetensors"]);
    let images =
        |split: &str| inarch_core::file::list(&program.path("dress").join(split).join("dress")).map(|all| all.len());
    let (train, test) = (images("train").expect("images"), images("test").expect("images"));
    assert_eq!(encoded["rows"], json!(train + test));
    let added = program.json(&["memory", "add", "camera", "-b", "pocket", "-d", &dress]);
    assert_eq!(added["samples"], json!(train));
    program.fail(&["eval", "-b", "pocket", "-d", &dress], 1, &["more than one class", "only `dress`"]);
}
