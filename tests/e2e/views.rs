//! Versions whose memory keeps several views of each sample.

use inarch_continual::{FolderVersions, Memory, Sample, Versions as _};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::Rows;
use serde_json::{Value, json};

use super::Program;
use super::update::{LENIENT, NEW, OLD, part};
use crate::contract::case::configured;
use crate::support::close;

const SETTINGS: [&str; 6] = [
    "--set",
    "fit.train.budget={ iterations = 8 }",
    "--set",
    "fit.train.batch=8",
    "--set",
    "fit.augment={ crop = { resized = { scale = [0.3, 1.0], ratio = [0.75, 1.33] } }, flip = 0.5 }",
];

#[test]
fn views_go_with_a_memory_from_version_to_version_and_from_place_to_place() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD[..2], 0, 2), part(&program, "new", &NEW, 0, 2));
    let views = ["--set", "memory.views=3"];
    let run = |target: &str, data: &str, more: &[&str]| {
        let own = ["update", target, "-b", "pocket", "-d", data];
        program.json(&[&own[..], &SETTINGS, LENIENT, more].concat())
    };
    let init = [&["--init", "linear-probe"][..], &views].concat();
    for line in ["one", "two"] {
        run(line, &old, &init);
        // The memory has its settings; the next update need not say them again.
        run(line, &new, &[]);
    }
    let memory = |version: &str| Memory::load(&program.path(version).join("memory.inarch"), None).expect("a memory");
    for version in [1, 2] {
        let [one, two] = ["one", "two"].map(|line| memory(&format!("{line}/{version}")));
        assert!(one.samples().all(|sample| sample.views.len() == 2 * sample.latent.len()));
        // All but the time at which they came.
        let held = |memory: &Memory| -> Vec<(String, Vec<f32>)> {
            memory.samples().map(|sample| (sample.id.clone(), sample.views.clone())).collect()
        };
        assert!(one.len() > 8 && held(&one) == held(&two), "version {version}");
    }
    let shown = program.json(&["memory", "show", "one", "--samples"]);
    assert_eq!(shown["config"]["views"], 3, "{shown}");
    assert!(shown["bytes"].as_u64() <= shown["config"]["budget_bytes"].as_u64(), "{shown}");
    assert_eq!(shown["classes"].as_array().map(Vec::len), Some(4), "{shown}");

    // A snapshot is exact, also where it was encrypted and at work, and joins its like alone.
    program.json(&["memory", "key", "secret.key"]);
    let digest = |of: &Value| of["digest"].as_str().expect("a digest").to_string();
    let exported = program.json(&["memory", "export", "one", "one.memory"]);
    program.json(&["memory", "export", "one", "sealed.memory", "--seal", "secret.key"]);
    let import = ["memory", "import", "sealed.memory", "work", "--key", "secret.key"];
    assert_eq!(digest(&program.json(&import)), digest(&exported));
    assert_eq!(program.json(&["memory", "verify", "one.memory", "-b", "pocket"])["within_budget"], true);
    program.json(&["memory", "drift", "one.memory", "-d", &new, "-b", "pocket"]);
    program.fail(&["memory", "add", "work", "-d", &new, "-b", "pocket"], 2, &["centre views", "memory.views"]);
    let more = ["memory", "add", "other", "-d", &new, "-b", "pocket", "--set", "views=3"];
    program.fail(&more, 2, &["centre views", "memory.views"]);
    program.json(&more[..more.len() - 2]);
    program.fail(&["memory", "import", "one.memory", "other"], 1, &["\"views\":3"]);

    let id = shown["ids"][0]["id"].as_str().expect("an id").to_string();
    let gone = program.json(&["memory", "forget", "one", "-b", "pocket", &id, "--memory-only"]);
    assert_eq!(gone["from_memory"], 1, "{gone}");
    let left = program.json(&["memory", "show", "one"]);
    assert_eq!(
        (&left["config"], left["samples"].as_u64()),
        (&shown["config"], shown["samples"].as_u64().map(|n| n - 1))
    );

    // Heads in closed form and what is held out are of the centre view.
    let init = |method: &str, settings: &[&str], words: &[&str]| {
        let own = ["update", "plain", "-b", "pocket", "-d", &old, "--init", method];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        program.fail(&own.into_iter().chain(settings).collect::<Vec<_>>(), 1, words);
        assert!(!program.path("plain/1").exists());
    };
    init("rail", &["memory.views=3", "method.projections=200"], &["memory.views", "`rail`"]);
    init("linear-probe", &["memory.views=3", "strategy.name=\"naive\""], &["memory.views", "`naive`"]);
    init("linear-probe", &["memory.views=3"], &["memory.views", "every view would be the centre view"]);
    init("linear-probe", &["probe.views=2"], &["probe.views"]);
    init("linear-probe", &["memory.views=2", "memory.content=\"images\""], &["memory.views", "an image that is kept"]);
}

/// Makes a first version of one part, updates of it with either other part and with both, and the merge of the two updates:
/// `NAME-first`, `NAME-north`, `NAME-south`, `NAME-pooled`, `NAME-merged`. Returns what the merge says.
fn merged(program: &Program, name: &str, method: &str, settings: &[&str]) -> Value {
    let [first, north, south, pooled, output] =
        ["first", "north", "south", "pooled", "merged"].map(|place| format!("{name}-{place}"));
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let run = |target: &str, data: &str, more: &[&str]| {
        let own = ["update", target, "-b", "pocket", "-d", data];
        program.json(&[&own[..], more, LENIENT, &settings[..]].concat());
    };
    run(&first, "first", &["--init", method]);
    run(&first, "north", &["-o", &north]);
    run(&first, "south", &["-o", &south]);
    run(&north, "south", &["-o", &pooled]);
    program.json(&["merge", &north, &south, "--base", &first, "--pooled", &pooled, "-b", "pocket", "-o", &output])
}

#[test]
fn two_sites_whose_memories_keep_views_merge_to_the_memory_and_the_head_of_all_data() {
    let program = Program::new();
    // Names of one length, so that a budget holds as many samples whoever drops them.
    let classes = &OLD[1..];
    for (name, from) in [("first", 0), ("north", 1), ("south", 2)] {
        part(&program, name, classes, from, 3);
    }
    let all = 16 * classes.len();
    let views = ["memory.views=3", SETTINGS[1], SETTINGS[3], SETTINGS[5]];
    let memories = |name: &str, budget: &str| -> [Memory; 2] {
        let settings = [&views[..], &[budget]].concat();
        let report = merged(&program, name, "linear-probe", &settings);
        assert_eq!((&report["exact"], &report["samples"]), (&json!(false), &json!(all)));
        ["merged", "pooled"].map(|place| {
            let file = program.path(&format!("{name}-{place}/1/memory.inarch"));
            Memory::load(&file, None).expect("a memory")
        })
    };
    // All but the time at which they came.
    let held = |memory: &Memory| -> Vec<Sample> {
        memory.samples().map(|sample| Sample { time: 0, ..sample.clone() }).collect()
    };
    let [tight, tight_pooled] = memories("tight", "memory.budget_bytes=16384");
    assert!(tight.len() > all / 4 && tight.len() < all, "{}", tight.len());
    assert!(held(&tight) == held(&tight_pooled) && tight.bytes() <= 16384);
    let [whole, pooled] = memories("whole", "memory.budget_bytes=262144");
    assert!(held(&whole) == held(&pooled) && whole.len() == all);
    // Each sample was offered once, at either site or at both.
    assert_eq!(whole.offered(), pooled.offered());
    assert_eq!(whole.offered().values().sum::<u64>(), all as u64);
    for memory in [&tight, &whole] {
        assert_eq!(memory.config().views, 3);
        assert!(memory.samples().all(|sample| sample.views.len() == 2 * sample.latent.len()));
    }

    // A head in closed form over the same data: that of the merge is that of all in one place, and a sample that is remembered in
    // three views counts in it once.
    let report = merged(&program, "heads", "rail", &["method.projections=200", "method.lambda=0.5"]);
    assert_eq!((&report["exact"], &report["samples"], &report["loss"]), (&json!(true), &json!(all), &json!(0.0)));
    let [at_merge, at_pooled] = ["merged", "pooled"].map(|place| program.path(&format!("heads-{place}")));
    let [of_merge, of_pooled] = [&at_merge, &at_pooled].map(|line| {
        let version = FolderVersions.open(&line.display().to_string()).expect("a version");
        version.statistics(None).expect("reads").expect("statistics")
    });
    assert!(of_merge.distance(&of_pooled) < 1e-13, "{}", of_merge.distance(&of_pooled));
    let (ids, names): (Vec<String>, Vec<String>) =
        whole.samples().map(|sample| (sample.id.clone(), sample.class.clone())).unzip();
    let features: Vec<f32> = whole.samples().flat_map(|sample| sample.latent.iter().copied()).collect();
    let rail = configured("rail", "projections = 200");
    let empty = rail.analytic().expect("a head in closed form").statistics(whole.fingerprint().dim);
    let mut anew = empty.expect("valid settings");
    anew.add(&Rows { ids: &ids, classes: &names, features: &features }).expect("adds");
    assert_eq!((anew.samples(), of_merge.samples()), (all as u64, all as u64));
    assert!(anew.distance(&of_pooled) < 1e-12, "{}", anew.distance(&of_pooled));
    let [found, expected] =
        [at_merge, at_pooled].map(|line| read_safetensors(&line.join("1/adapter.safetensors")).expect("an adapter").0);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in &expected {
        close(name, &found[name].data, &tensor.data, 1e-5);
    }
}
