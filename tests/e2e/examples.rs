//! The example recipes through the program.

use std::path::Path;

use inarch_core::checkpoint::read_safetensors;
use inarch_core::file;

use super::Program;
use super::program::{adapter_bytes, sample};
use crate::support::fixture;

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/examples").join(name).display().to_string()
}

/// Photos of the sample in classes of very unequal size.
fn long_tail(program: &Program) {
    for (split, class, count) in [
        ("train", "dress", 15),
        ("train", "hat", 4),
        ("train", "shoes", 1),
        ("test", "dress", 8),
        ("test", "hat", 8),
        ("test", "shoes", 8),
    ] {
        let into = program.path("data").join(split).join(class);
        file::create_folder(&into).expect("created");
        let photos = file::list(&Path::new(sample()).join(split).join(class)).expect("a class");
        assert!(photos.len() >= count, "{split}/{class}: {}", photos.len());
        for photo in &photos[..count] {
            std::fs::copy(photo, into.join(photo.file_name().expect("a name"))).expect("copied");
        }
    }
}

#[test]
fn the_recipe_for_long_tails_trains_a_tower_and_a_classifier_by_the_shares_of_classes() {
    let program = Program::new();
    long_tail(&program);
    let recipe = example("long-tailed.toml");
    let fit = ["fit", &recipe, "-b", "pocket", "-d", "data", "--set", "train.budget={ iterations = 4 }"];
    let short = ["--set", "train.batch=10"];
    program.succeed(&[&fit[..], &short, &["-o", "run"]].concat());
    program.succeed(&[&fit[..], &short, &["-o", "again"]].concat());
    program.succeed(&[&fit[..], &short, &["--set", "train.imbalance=\"none\"", "-o", "plain"]].concat());
    let bytes = |run: &str| adapter_bytes(&program.path(run));
    assert!(bytes("run") == bytes("again") && bytes("run")[0] != bytes("plain")[0]);

    let written = std::fs::read_to_string(program.path("run/recipe.toml")).expect("a recipe");
    assert!(written.contains("logit-adjustment = 1.0") && written.contains("name = \"adaptformer\""), "{written}");
    let (tensors, _) = read_safetensors(&program.path("run/adapter.safetensors")).expect("an adapter");
    let names: Vec<&String> = tensors.keys().collect();
    for member in ["members.0.", "members.1."] {
        assert!(names.iter().any(|name| name.starts_with(member)), "{member}: {names:?}");
    }
    // The text tower gives the classifier its start and is not touched.
    assert!(names.iter().all(|name| !name.contains(".text.")), "{names:?}");

    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "-a", "run"]);
    assert_eq!((found["n"].as_u64(), found["balanced_accuracy"].is_number()), (Some(24), true));
}

#[test]
fn the_recipe_for_trunks_trains_every_block_of_a_convolutional_tower() {
    let program = Program::new();
    long_tail(&program);
    let backbone = fixture("parity/families/resnet").display().to_string();
    let recipe = example("trunk.toml");
    let short = ["--set", "train.budget={ iterations = 2 }", "--set", "train.batch=4", "--set", "templates=\"{}\""];
    program.succeed(&[&["fit", &recipe, "-b", &backbone, "-d", "data", "-o", "run"], &short[..]].concat());
    let (tensors, _) = read_safetensors(&program.path("run/adapter.safetensors")).expect("an adapter");
    assert!(tensors.keys().all(|name| name.contains("trunk.blocks.")), "{:?}", tensors.keys());
    for block in 0..5 {
        let own = format!("trunk.blocks.{block}.");
        assert!(tensors.keys().any(|name| name.contains(&own)), "{own} {:?}", tensors.keys());
    }
    let found = program.json(&["eval", "-b", &backbone, "-d", "data", "-a", "run"]);
    assert_eq!(found["n"], 24);
}

#[test]
fn the_recipe_for_volumes_makes_each_slice_an_image_and_parts_no_file() {
    let program = Program::new();
    for (split, number) in [("train", 1), ("train", 2), ("test", 3)] {
        for (class, volume) in [("liver", "short.nii.gz"), ("lung", "float.nii")] {
            let into = program.path("volumes").join(split).join(class);
            file::create_folder(&into).expect("created");
            let from = fixture("parity/medical_images").join(volume);
            std::fs::copy(from, into.join(format!("{number}-{volume}"))).expect("copied");
        }
    }
    let recipe = example("volumes.toml");
    let short = ["--set", "train.budget={ iterations = 3 }", "-o", "run"];
    let fitted = program.json(&[&["fit", &recipe, "-b", "pocket", "-d", "volumes"], &short[..]].concat());
    // Six slices of one volume and three of the other in the test split, each file a group.
    let detail = &fitted["runs"][0]["detail"];
    assert_eq!(detail["resampled_groups"], 2, "{detail}");
    let found = program.json(&["eval", "-b", "pocket", "-d", "volumes", "-a", "run", "--slices", "all"]);
    assert_eq!((found["n"].as_u64(), found["resampled_groups"].as_u64()), (Some(6 + 3), Some(2)));
    let written = std::fs::read_to_string(program.path("run/adapter.json")).expect("a manifest");
    assert!(written.contains("\"40:400\""), "{written}");
}

#[test]
fn the_recipe_for_closed_models_needs_features_and_no_backbone() {
    let program = Program::new();
    long_tail(&program);
    program.succeed(&["encode", "-b", "pocket", "--images", "data", "-o", "images.safetensors"]);
    let prompts = ["dress", "hat", "shoes"].map(|class| format!("a photo of a {class}."));
    std::fs::write(program.path("texts.txt"), prompts.join("\n")).expect("a writable folder");
    program.succeed(&["encode", "-b", "pocket", "--texts", "texts.txt", "-o", "texts.safetensors"]);
    let (recipe, closed) = (example("features.toml"), "embeddings:texts.safetensors");
    let data = ["-d", "images.safetensors"];
    program.succeed(&[&["fit", &recipe, "-b", closed, "--shots", "4", "-o", "run"], &data[..]].concat());
    let found = program.json(&[&["eval", "-b", closed, "-a", "run"], &data[..]].concat());
    assert_eq!(found["n"], 24);
    let open = ["fit", &recipe, "-b", "pocket", "--shots", "4", "-o", "open"];
    program.succeed(&[&open[..], &data].concat());
    let [closed, open] = ["run", "open"].map(|run| adapter_bytes(&program.path(run)));
    assert!(closed[0] == open[0], "the same is learned with the weights at hand");
}

#[test]
fn the_recipe_for_captions_trains_each_family_under_its_own_objective() {
    for family in ["vilt", "vilt_words", "blip"] {
        let program = Program::new();
        let mut rows = String::from("path,caption\n");
        for (class, words) in [("hat", "a hat"), ("shoes", "a photo of shoes")] {
            let photos = file::list(&Path::new(sample()).join("train").join(class)).expect("a class");
            photos.iter().take(4).for_each(|photo| rows.push_str(&format!("{},{words}\n", photo.display())));
        }
        std::fs::write(program.path("captions.csv"), rows).expect("writes");
        let backbone = fixture(&format!("parity/crossing/{family}")).display().to_string();
        let recipe = example("matched-captions.toml");
        let short = ["--set", "train.budget={ iterations = 2 }", "--set", "train.batch=8"];
        let pretrain = ["pretrain", &recipe, "-b", &backbone, "-d", "captions.csv", "-o", "adapted"];
        let done = program.json(&[&pretrain[..], &short].concat());
        assert_eq!((done["steps"].as_u64(), done["kind"].as_str()), (Some(2), Some("adapter")), "{family}");
        assert!(done["loss"].as_f64().is_some_and(|loss| loss > 0.0), "{family}: {done}");
    }
}

/// Photos of the sample as a list in which some have two labels and some none.
fn findings(program: &Program) {
    let mut rows = String::from("path,label\n");
    for (class, label) in [("dress", "cloth;long"), ("hat", "cloth"), ("shoes", "")] {
        for photo in file::list(&Path::new(sample()).join("train").join(class)).expect("a class").iter().take(8) {
            rows.push_str(&format!("{},{label}\n", photo.display()));
        }
    }
    std::fs::write(program.path("findings.csv"), rows).expect("writes");
}

/// DICOM files of ten patients, who have two each.
fn patients(program: &Program) {
    let files = ["ct.dcm", "plate.dcm", "sigmoid.dcm", "signed12.dcm", "exact.dcm"];
    for patient in 0..10usize {
        let class = ["nodule", "clear"][patient % 2];
        let into = program.path("scans").join(class);
        file::create_folder(&into).expect("created");
        for number in 0..2 {
            let from = fixture("parity/medical_images").join(files[(patient + number) % files.len()]);
            std::fs::copy(from, into.join(format!("p{patient}_{number}.dcm"))).expect("copied");
        }
    }
}

#[test]
fn every_other_recipe_of_fit_runs_and_its_adapter_is_measured_as_it_was() {
    let program = Program::new();
    long_tail(&program);
    findings(&program);
    patients(&program);
    let numbers = ["--train", "2", "--test", "2", "--length", "12", "--side", "32"];
    program.succeed(&[&["data", "actions", sample(), "-o", "movements"], &numbers[..]].concat());
    let sentences = r#"{"dress": ["a long dress", "a red one"], "hat": ["a hat"], "shoes": ["two shoes", "a pair"]}"#;
    std::fs::write(program.path("words.json"), sentences).expect("writes");
    let [vit, blip] =
        ["parity/families/vit", "parity/crossing/blip"].map(|folder| fixture(folder).display().to_string());
    let runs: [(&str, &str, &str, &[&str]); 10] = [
        ("dicom", "pocket", "scans", &[]),
        ("several-labels", "pocket", "findings.csv", &[]),
        ("clips", "pocket", "movements", &[]),
        ("clips-in-the-tower", "pocket", "movements", &[]),
        ("clip-views", "pocket", "movements", &[]),
        // Folders of pictures are bags of tiles.
        ("slides", "pocket", "movements", &[]),
        ("descriptions", "pocket", "data", &["--descriptions", "words.json"]),
        ("vision-only", &vit, "data", &[]),
        ("captions", &blip, "data", &[]),
        ("mixed-precision", "pocket", "data", &[]),
    ];
    for (name, backbone, data, more) in runs {
        let recipe = example(&format!("{name}.toml"));
        let short = ["--set", "train.budget={ iterations = 2 }", "--set", "train.batch=6"];
        program.succeed(&[&["fit", &recipe, "-b", backbone, "-d", data, "-o", name], &short[..], more].concat());
        let report: serde_json::Value =
            file::read_json(&program.path(name).join("report.json"), "report").expect("a report");
        // Clips, window, patients and sentences are those of the adapter.
        let found = program.json(&["eval", "-b", backbone, "-d", data, "-a", name]);
        assert!(found["n"].as_u64() > Some(0), "{name}: {found}");
        for key in ["n", "accuracy", "confusion"] {
            assert_eq!(found[key], report["test"][key], "{name}: {key}");
        }
    }
    // Some of ten patients are tested, with both of their scans.
    let tested = program.json(&["eval", "-b", "pocket", "-d", "scans", "-a", "dicom"]);
    assert_eq!(tested["n"].as_u64(), tested["resampled_groups"].as_u64().map(|patients| 2 * patients), "{tested}");
}
