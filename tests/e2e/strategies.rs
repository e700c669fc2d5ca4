//! Strategies through the binary, where they need images or versions: a representation that moves, and a learner that is handed on.

use inarch_core::checkpoint::read_safetensors;

use super::Program;
use super::program::sample;
use super::update::{LENIENT, NEW, OLD, part, record};

#[test]
fn strategies_train_a_tower_under_a_head() {
    let program = Program::new();
    let settings = [
        "seeds=[1]",
        "stream.experiences=2",
        "stream.shots=4",
        "fit.method.name=\"stack\"",
        "fit.train.budget={ iterations = 4 }",
        "fit.train.batch=8",
        "memory.budget_bytes=262144",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let strategies = "gem,mir,gss-greedy,bic,icarl,slca,o-lora,inflora,sd-lora";
    let arguments =
        ["stream", "-b", "pocket", "-d", sample(), "-s", strategies, "-o", "out"].into_iter().chain(settings);
    let report = program.json(&arguments.collect::<Vec<_>>());
    assert_eq!(report["failures"], serde_json::json!([]));
    for (name, method) in [
        ("bic", "vector-scaling"),
        ("icarl", "linear-probe"),
        ("o-lora", "lora"),
        ("inflora", "lora"),
        ("sd-lora", "lora"),
    ] {
        let folder = program.path("out").join(name).join("seed-1/after-2/adapter");
        let manifest = std::fs::read_to_string(folder.join("adapter.json")).expect("a manifest");
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        let members = manifest["method"]["members"].as_array().expect("a stack");
        assert!(members.iter().any(|member| member["name"] == method), "{name}: {members:?}");
        if method == "lora" {
            assert_eq!((&members[0]["rank"], members.len()), (&serde_json::json!(4), 2), "two updates of rank 2");
        }
        // What answers is an adapter like any other, and answers as it was measured.
        let adapter = folder.display().to_string();
        let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", &adapter]);
        let strategies = report["strategies"].as_array().expect("a list");
        let last = &strategies.iter().find(|strategy| strategy["name"] == name).expect("it ran")["seeds"][0]["last"];
        let [measured, last] = [&eval["accuracy"], last].map(|value| value.as_f64().expect("a number"));
        assert!((measured - last).abs() < 1e-9, "{name}: {measured} {last}");
    }
    for name in ["o-lora", "inflora", "sd-lora"] {
        program.fail(
            &["stream", "-b", "pocket", "-d", sample(), "-s", name, "-o", "other", "--set", "seeds=[1]"],
            2,
            &[name, "lora", "fit.method"],
        );
    }
    assert!(!program.path("other").exists(), "it is said before anything is done");
}

#[test]
fn a_strategy_is_handed_on_from_version_to_version() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 2), part(&program, "new", &NEW, 0, 2));
    let update = |target: &str, data: &str, strategy: &str, more: &[&str]| {
        let strategy = format!("strategy.name=\"{strategy}\"");
        let own = ["--set", &strategy, "--set", "fit.train.budget={ iterations = 20 }"];
        let arguments = [&["update", target, "-b", "pocket", "-d", data], more, &own[..], LENIENT].concat();
        program.json(&arguments)
    };
    let carried = |version: &str| -> Vec<String> {
        let files = inarch_core::file::list(&program.path(version)).expect("a version");
        let name = |path: &std::path::PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        files.iter().map(name).filter(|name| name.starts_with("strategy-") || name == "learner.json").collect()
    };
    let init = ["--init", "linear-probe"];
    update("held", &old, "ewc", &init);
    assert!(carried("held/1").contains(&"strategy-importance.safetensors".to_string()), "{:?}", carried("held/1"));
    // The importance of the first version changes what the second one learns.
    let [with, without] = [("held", "ewc"), ("free", "ewc")].map(|(target, strategy)| {
        if target == "free" {
            update("free", &old, "ewc", &init);
            for name in carried("free/1") {
                std::fs::remove_file(program.path("free/1").join(name)).expect("removed");
            }
        }
        update(target, &new, strategy, &[]);
        std::fs::read(program.path(target).join("2/adapter.safetensors")).expect("an adapter")
    });
    assert!(with != without);
    let learner = std::fs::read_to_string(program.path("held/2/learner.json")).expect("a learner");
    let learner: serde_json::Value = serde_json::from_str(&learner).expect("JSON");
    assert_eq!(learner["experiences"], 2);
    // Other settings of the same strategy go on from the same state: importances are only ever added to.
    let more = part(&program, "more", &OLD, 1, 2);
    update("held", &more, "ewc", &["--set", "strategy.weight=40.0"]);
    let [before, after] = ["held/2", "held/3"].map(|version| {
        let path = program.path(version).join("strategy-importance.safetensors");
        read_safetensors(&path).expect("importances").0
    });
    for (name, before) in &before {
        let kept = before.data.iter().zip(&after[name].data).all(|(before, after)| after >= before);
        assert!(kept && before.data.iter().any(|value| *value > 0.0), "{name}");
    }

    // What is trained further is the adapter, not the correction behind it.
    update("biased", &old, "bic", &init);
    update("biased", &new, "bic", &[]);
    let manifest = std::fs::read_to_string(program.path("biased/2/adapter.json")).expect("a manifest");
    assert_eq!(manifest.matches("vector-scaling").count(), 1, "{manifest}");
    // Another strategy goes on with it.
    update("biased", &more, "er", &[]);
    let manifest = std::fs::read_to_string(program.path("biased/3/adapter.json")).expect("a manifest");
    assert!(!manifest.contains("vector-scaling"), "{manifest}");
    assert!(carried("biased/3").is_empty());
}

#[test]
fn what_is_learned_without_rehearsal_is_remembered_for_a_strategy_that_rehearses() {
    let program = Program::new();
    // The memory of one that changes the image tower is of images.
    for (method, content) in [("linear-probe", "latents"), ("lora", "images")] {
        let update = |name: &str, classes: &[&str], more: &[&str]| {
            let data = part(&program, name, classes, 0, 8);
            let own = ["update", method, "-b", "pocket", "-d", &data, "--set", "fit.train.budget={ iterations = 2 }"];
            program.json(&[&own[..], more, LENIENT].concat())["learned"].as_u64().expect("a number")
        };
        let naive = ["--set", "strategy.name=\"naive\""];
        let first = update("old", &OLD[..2], &[&["--init", method], &naive[..]].concat());
        let second = update("new", &NEW, &naive);
        let third = update("more", &OLD[3..], &[]);
        for (number, count) in [(1, first), (2, first + second), (3, first + second + third)] {
            let shown = program.json(&["memory", "show", &format!("{method}/{number}")]);
            assert_eq!(shown["samples"].as_u64(), Some(count), "{method} {number}");
            assert_eq!(shown["config"]["content"], content, "{method} {number}");
        }
    }
}

#[test]
fn a_version_learns_by_the_templates_that_it_answers_by() {
    let program = Program::new();
    part(&program, "old", &OLD[..2], 0, 8);
    part(&program, "new", &NEW, 0, 8);
    part(&program, "more", &OLD[3..], 0, 8);
    let update = |line: &'static str, data: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        let steps = ["--set", "fit.train.budget={ iterations = 3 }", "--set", "fit.train.batch=4"];
        [&["update", line, "-b", "pocket", "-d", data], &steps[..], LENIENT, more].concat()
    };
    let sketch = ["--set", "fit.templates=\"a sketch of a {}.\""];
    let tensors = ["plain", "named"].map(|line| {
        program.json(&update(line, "old", &[&["--init", "lora"], &sketch[..]].concat()));
        // The second time they are named, or kept without a word.
        program.json(&update(line, "new", if line == "named" { &sketch } else { &[] }));
        let manifest = record(&program, &format!("{line}/2/adapter.json"));
        assert_eq!(manifest["templates"], serde_json::json!(["a sketch of a {}."]));
        manifest["tensors"].clone()
    });
    assert_eq!(tensors[0], tensors[1]);
    let other = ["--set", "fit.templates=\"a photo of a {}.\""];
    program.fail(&update("plain", "more", &other), 1, &["fit.templates", "--init"]);
}

#[test]
fn classes_of_which_slca_knows_nothing_keep_their_rows() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD[..2], 0, 8), part(&program, "new", &NEW, 0, 8));
    let update = |data: &str, more: &[&str]| {
        let steps = ["--set", "fit.train.budget={ iterations = 3 }", "--set", "fit.train.batch=4"];
        let own = ["update", "line", "-b", "pocket", "-d", data];
        program.json(&[&own[..], &steps[..], LENIENT, more].concat());
    };
    let rows = |version: u32| {
        let path = program.path(&format!("line/{version}/adapter.safetensors"));
        read_safetensors(&path).expect("an adapter").0.remove("prototypes").expect("the head").data
    };
    update(&old, &["--init", "linear-probe", "--set", "strategy.name=\"naive\""]);
    update(&new, &["--set", "strategy.name=\"slca\"", "--set", "strategy.epochs=1"]);
    let (before, after) = (rows(1), rows(2));
    let kept = before.len();
    assert_eq!(after.len(), 2 * kept);
    assert_eq!(after[..kept], before);
}

#[test]
fn scores_are_remembered_whatever_the_data_is_called() {
    let program = Program::new();
    let bytes = |name: &str| {
        let data = part(&program, name, &OLD[..2], 0, 8);
        let line = format!("{name}-line");
        let steps = ["--set", "fit.train.budget={ iterations = 2 }", "--set", "strategy.name=\"der\""];
        let own = ["update", &line, "--init", "linear-probe", "-b", "pocket", "-d", &data];
        program.json(&[&own[..], &steps[..]].concat());
        program.json(&["memory", "show", &line])["bytes"].clone()
    };
    // A memory's samples are examples by the name `memory/..` while they are rehearsed.
    assert_eq!(bytes("memory"), bytes("albums"));
}

#[test]
fn what_a_strategy_put_aside_is_lost_to_no_other_one() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD[..2], 0, 8), part(&program, "new", &NEW, 0, 8));
    let update = |data, more: &[&'static str]| -> Vec<&str> {
        let steps = ["--set", "fit.train.budget={ iterations = 2 }", "--set", "fit.train.batch=4"];
        [&["update", "line", "-b", "pocket", "-d", data], &steps[..], LENIENT, more].concat()
    };
    let rank = |version: &str| {
        let manifest = record(&program, &format!("{version}/adapter.json"));
        manifest["method"]["rank"].as_u64().expect("a rank")
    };
    program.json(&update(&old, &["--init", "lora", "--set", "strategy.name=\"o-lora\""]));
    program.fail(&update(&new, &[]), 2, &["strategy er", "`o-lora`", "--init"]);
    program.fail(&update(&new, &["--set", "strategy.name=\"joint\""]), 1, &["`joint`", "all data", "`er`"]);
    assert!(!program.path("line/2").exists());
    let weight = ["--set", "strategy.name=\"o-lora\"", "--set", "strategy.weight=0.1"];
    program.json(&update(&new, &weight));
    assert_eq!(rank("line/2"), 2 * rank("line/1"), "both updates answer");
}
