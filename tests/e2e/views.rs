//! Versions whose memory keeps several views of each sample.

use inarch_continual::Memory;

use super::Program;
use super::update::{LENIENT, NEW, OLD, part};

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
    let digest = |of: &serde_json::Value| of["digest"].as_str().expect("a digest").to_string();
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
