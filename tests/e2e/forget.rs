//! `memory forget` where a version never changes, and where the memory does not hold the sample any more.

use inarch_continual::{Memory, Sample};
use serde_json::{Value, json};

use super::Program;
use super::update::{OLD, ids, part, record, update};

/// The arguments that forget one sample, and more.
fn forget<'a>(target: &'a str, id: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["memory", "forget", target, "-b", "pocket", id], more].concat()
}

#[test]
fn an_alias_of_the_registry_forgets() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 2);
    program.json(&update("shop@prod", &old, &["--init", "rail"]));
    let one = ids(&program, "shop@prod")[0].clone();
    // What cannot be done is said before anything is.
    program.fail(&forget("shop@prod", &one, &["--purge"]), 1, &["never change", "gc --keep"]);
    program.fail(&forget("shop@1", &one, &[]), 2, &["never changes"]);
    assert!(ids(&program, "shop@prod").contains(&one));
    let report = program.json(&forget("shop@prod", &one, &[]));
    assert_eq!((&report["version"], &report["parent"]), (&json!("shop@2"), &json!("shop@1")));
    assert_eq!((&report["from_memory"], &report["still_in"]), (&json!(1), &json!(["shop@1"])));
    assert!(!ids(&program, "shop@prod").contains(&one) && ids(&program, "shop@1").contains(&one));
    // A bare name is the newest version, as for `update`.
    assert_eq!(ids(&program, "shop"), ids(&program, "shop@2"));
    let other = ids(&program, "shop")[0].clone();
    let newest = program.json(&forget("shop", &other, &[]));
    assert_eq!((&newest["version"], &newest["still_in"]), (&json!("shop@3"), &json!(["shop@1", "shop@2"])));
    // The record is part of the version: all of it but the name, which is given to what is whole.
    let files = inarch_core::file::list(&program.path("home/registry/checkouts"));
    let records = files.expect("lists").into_iter().map(|folder| folder.join("forgotten.json"));
    let texts: Vec<String> = records.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let mut found = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    let mut expected = report;
    expected["version"] = Value::Null;
    assert!(found.any(|record| record == expected), "{texts:?}");
}

#[test]
fn what_was_forgotten_is_purged_from_older_versions_later_on() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 4);
    program.json(&update("shop", &old, &["--init", "rail"]));
    let one = ids(&program, "shop")[0].clone();
    let first = program.json(&forget("shop", &one, &[]));
    assert_eq!((&first["from_memory"], &first["still_in"]), (&json!(1), &json!(["shop/1"])));
    let left = ids(&program, "shop");
    // As a process leaves it that is killed while it removes a version.
    std::fs::create_dir(program.path("shop/.withdrawn")).expect("creates");
    std::fs::write(program.path("shop/.withdrawn/memory.inarch"), "samples").expect("writes");
    let name = one.split('#').next().expect("a name");
    let purged = program.json(&forget("shop", name, &["--purge"]));
    assert_eq!((&purged["version"], &purged["from_memory"]), (&json!("shop/3"), &json!(0)));
    assert_eq!((&purged["purged"], &purged["still_in"]), (&json!(["shop/1"]), &json!([])));
    assert!(!program.path("shop/1").exists() && !program.path("shop/.withdrawn").exists());
    assert!(program.path("shop/2").exists() && ids(&program, "shop") == left);
    program.fail(&forget("shop", &one, &["--purge"]), 2, &["unknown sample"]);
}

#[test]
fn what_the_memory_has_dropped_is_forgotten_by_its_image() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 1);
    program.json(&update("whole", &old, &["--init", "rail"]));
    let first = program.json(&update("shop", &old, &["--init", "rail", "--set", "memory.budget_bytes=4096"]));
    let learned = first["learned"].as_u64().expect("a number");
    let held = ids(&program, "shop");
    assert!(!held.is_empty() && held.len() < 40, "{}", held.len());
    let evicted = ids(&program, "whole").into_iter().find(|id| !held.contains(id)).expect("some were evicted");
    program.fail(&forget("shop", &evicted, &[]), 3, &["does not hold it any more", "-d DATA"]);

    // Another image under its name is not it.
    let other = part(&program, "elsewhere/old", &OLD, 0, 1);
    let image = inarch_core::file::list(&program.path("old/test/hat")).expect("images")[0].clone();
    for class in OLD {
        for path in inarch_core::file::list(&program.path("elsewhere/old/train").join(class)).expect("images") {
            std::fs::copy(&image, path).expect("copies");
        }
    }
    program.fail(&forget("shop", &evicted, &["-d", &other]), 3, &["does not hold it any more"]);
    assert!(!program.path("shop/2").exists());

    // An image beside it that cannot be read does not stand in its way, where that is said; no record names it.
    let broken = inarch_core::file::list(&program.path("old/test/pants")).expect("images")[0].clone();
    std::fs::write(&broken, "no image").expect("writes");
    program.fail(&forget("shop", &evicted, &["-d", &old]), 1, &["old/test/pants", "--on-bad-image skip"]);
    program.fail(&forget("shop", &evicted, &["--on-bad-image", "skip"]), 2, &["--data"]);
    let present = ["-d", &old, "--on-bad-image", "skip"];
    let mut report = program.json(&forget("shop", &evicted, &present));
    let skipped = report.as_object_mut().expect("an object").remove("skipped").expect("a list");
    let name = broken.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(skipped.as_array().map(Vec::len) == Some(1) && skipped.to_string().contains(&name), "{skipped}");
    assert_eq!((&report["presented"], &report["from_memory"]), (&json!(1), &json!(0)));
    assert_eq!((&report["samples"], &report["influence_removed"]), (&json!([learned, learned - 1]), &json!(true)));
    assert_eq!((ids(&program, "shop"), &record(&program, "shop/2/forgotten.json")), (held, &report));
    program.fail(&forget("shop", &evicted, &present), 2, &["unknown sample"]);
    // To the last digits it is the adapter of a memory that still held it.
    let same = program.json(&forget("whole", &evicted, &[]));
    assert_eq!((&same["presented"], &same["from_memory"]), (&json!(0), &json!(1)));
    assert_eq!(same["statistics"], report["statistics"]);
}

#[test]
fn a_latent_that_was_not_learned_is_not_subtracted_nor_one_of_another_class() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 4);
    program.json(&update("shop", &old, &["--init", "rail"]));
    let file = program.path("shop/1/memory.inarch");
    let whole = Memory::load(&file, None).expect("a memory");
    let own = whole.samples().next().expect("a sample").clone();
    let class = OLD.iter().find(|class| **class != own.class).expect("another class").to_string();
    let (mut moved, renamed) = (own.clone(), Sample { class, ..own });
    moved.latent[0] += 1.0;
    for sample in [moved, renamed] {
        let (mut memory, id) = (whole.clone(), sample.id.clone());
        memory.offer([sample]).expect("it takes the place of the other");
        memory.save(&file, None).expect("writes");
        program.fail(&forget("shop", &id, &[]), 3, &[&id, "is not the sample that was learned"]);
    }
    assert!(!program.path("shop/2").exists());
}

/// Files of a version that show some text.
fn showing(program: &Program, version: &str, text: &str) -> Vec<String> {
    let files = inarch_core::file::list(&program.path(version)).expect("lists").into_iter();
    let shows = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).expect("reads");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    files.filter(shows).map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn under_a_key_no_file_of_a_version_shows_the_name_of_a_sample() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 4);
    program.succeed(&["memory", "key", "key"]);
    let first = |target, more: &[&'static str]| {
        program.json(&[&["update", target, "-b", "pocket", "-d", &old, "--init", "rail-dual"], more].concat())
    };
    first("plain", &[]);
    first("sealed", &["--key", "key"]);
    let name = ids(&program, "plain")[0].clone();
    assert_eq!(showing(&program, "plain/1", &name), ["memory.inarch", "statistics.safetensors"]);
    assert!(showing(&program, "sealed/1", &name).is_empty());
    // And it is forgotten under the key, alike.
    let plain = program.json(&forget("plain", &name, &[]));
    let sealed = program.json(&forget("sealed", &name, &["--key", "key"]));
    for field in ["samples", "adapter", "statistics"] {
        assert_eq!(plain[field], sealed[field], "{field}");
    }
    assert!(showing(&program, "plain/2", &name).is_empty());
}
