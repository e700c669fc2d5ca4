//! Strategies on a stream of features that needs no images: each learns, and each does what it is for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inarch_continual::{GradientConfig, LearnerConfig, StreamRecipe, run_stream};
use inarch_core::Seed;
use inarch_core::data::{Dataset, Example, FeatureFile, FeatureKind, Source};
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Silent};

use crate::support::tiny;

/// Features of four classes around four centres, 24 of each to learn and 12 to test.
fn dataset() -> Dataset {
    let dim = tiny().spec().dim;
    let names: Vec<String> = ["cat", "dog", "red hat", "x ray"].map(String::from).into();
    let (mut values, mut ids, mut train, mut test) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for label in 0..4 {
        let centre = Seed::new(100 + label as u64).normals(dim, 1.0);
        for at in 0..36 {
            let id = format!("{label}/{at}");
            let noise = Seed::new(7).split(&id).normals(dim, 1.4);
            values.extend(centre.iter().zip(noise).map(|(centre, noise)| centre + noise));
            let example = Example::new(id.clone(), Source::Row(ids.len()), label);
            ids.push(id);
            if at < 24 { train.push(example) } else { test.push(example) }
        }
    }
    let features = FeatureFile {
        backbone: "synthetic".into(),
        kind: FeatureKind::Image,
        ids,
        labels: None,
        classes: None,
        splits: None,
        dim,
        values,
    };
    Dataset {
        name: "blobs".into(),
        classes: names,
        train,
        val: Vec::new(),
        test,
        features: Some(Arc::new(features)),
        ignored_files: 0,
        multi_label: false,
    }
}

fn run(strategies: &[&str], settings: &[&str], folder: &Path) -> inarch_continual::StreamReport {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let mut recipe = StreamRecipe::read("", "test", &settings).expect("valid settings");
    recipe.choose(&strategies.iter().map(ToString::to_string).collect::<Vec<_>>());
    for table in &mut recipe.strategy {
        if ["ranpac", "acil", "rail"].contains(&table["name"].as_str().unwrap_or_default()) {
            table.insert("projections".into(), toml::Value::Integer(60));
        }
    }
    let protocol = recipe.protocol().expect("valid settings");
    let stop = AtomicBool::new(false);
    let control = Control::new(&Silent, &stop);
    run_stream(tiny(), &[dataset()], &protocol, OnBadImage::Fail, folder, control).expect("runs")
}

const SETTINGS: &[&str] = &[
    "seeds=[1]",
    "stream.experiences=2",
    "fit.train.budget={ iterations = 60 }",
    "fit.train.batch=16",
    "fit.train.optimizer={ name = \"sgd\", lr = 0.05, momentum = 0.9, weight_decay = 0.0 }",
    "memory.budget_bytes=8192",
];

fn last(report: &inarch_continual::StreamReport, name: &str) -> f64 {
    let strategy = report.strategies.iter().find(|strategy| strategy.name == name);
    strategy.unwrap_or_else(|| panic!("{name} is missing")).last.mean
}

#[test]
fn every_strategy_learns_a_stream_and_rehearsal_beats_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = LearnerConfig::names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let report = run(&names, SETTINGS, folder.path());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let (joint, naive) = (last(&report, "joint"), last(&report, "naive"));
    assert!(joint > 0.9 && naive < joint, "joint {joint}, naive {naive}");
    for name in &names {
        let found = last(&report, name);
        assert!(found > 0.2, "{name}: {found}");
    }
    // Those that cannot forget, and those that remember.
    for name in ["simple-cil", "ranpac", "rail", "rail-dual", "fecam", "nme", "er", "gdumb"] {
        let found = last(&report, name);
        assert!(found >= joint - 0.25, "{name}: {found}, joint {joint}");
    }
    for name in ["er-ace", "der-plus-plus", "ewc", "lwf"] {
        let found = last(&report, name);
        assert!(found >= naive - 0.05, "{name}: {found}, naive {naive}");
    }
    // Run again it does nothing and says the same.
    let again = run(&names, SETTINGS, folder.path());
    let text = |report: &inarch_continual::StreamReport| serde_json::to_string(report).expect("plain");
    assert_eq!(text(&again), text(&report));
    assert!(folder.path().join("report.html").is_file());
}

#[test]
fn streams_of_every_kind_run_online_and_blurry() {
    for kind in ["class-incremental", "task-incremental", "blurry", "x-tail"] {
        let folder = tempfile::tempdir().expect("a folder");
        let kind_setting = format!("stream.kind=\"{kind}\"");
        let settings = [SETTINGS, &[&kind_setting, "stream.chunk=12", "stream.blur=0.2"]].concat();
        let report = run(&["rail", "er"], &settings, folder.path());
        assert!(last(&report, "rail") > 0.7, "{kind}: rail {}", last(&report, "rail"));
        assert!(last(&report, "er") > 0.2, "{kind}: er {}", last(&report, "er"));
    }
}

#[test]
fn an_analytic_head_ends_alike_whatever_the_parts() {
    let parts = |experiences: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let setting = format!("stream.experiences={experiences}");
        let report = run(&["ranpac", "rail"], &[SETTINGS, &[&setting]].concat(), folder.path());
        ["ranpac", "rail"].map(|name| last(&report, name))
    };
    assert_eq!(parts("1"), parts("4"));
}

#[test]
fn settings_of_strategies_are_read() {
    let table = toml::from_str("name = \"der-plus-plus\"\nalpha = 0.7").expect("TOML");
    let LearnerConfig::Gradient(GradientConfig::DerPlusPlus { alpha, .. }) =
        LearnerConfig::read(&table).expect("valid")
    else {
        panic!("another strategy")
    };
    assert!((alpha - 0.7).abs() < 1e-12);
}
