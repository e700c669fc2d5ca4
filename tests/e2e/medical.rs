//! Medical data as a team meets it: DICOM files among class folders, patients, rare classes, several findings an image.

use image::{Rgb, RgbImage};
use serde_json::Value;

use super::Program;
use crate::support::fixture;

const FILES: [(&str, &str); 10] = [
    ("train/nodule/1.dcm", "ct.dcm"),
    ("train/nodule/2.dcm", "signed12.dcm"),
    ("train/nodule/loop.dcm", "loop-rle.dcm"),
    ("train/clear/1.nii.gz", "short.nii.gz"),
    ("train/clear/2.png", "deep.png"),
    ("train/clear/3.dcm", "rgb.dcm"),
    ("test/nodule/4.dcm", "plate.dcm"),
    ("test/nodule/5.dcm", "exact.dcm"),
    ("test/clear/4.tif", "deep.tif"),
    ("test/clear/5.nii", "float.nii"),
];

/// Class folders of the parity fixture's files.
fn scans(program: &Program) {
    for (to, from) in FILES {
        let path = program.path("scans").join(to);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::copy(fixture("parity/medical_images").join(from), path).expect("the fixture");
    }
}

/// Images whose left half says one thing and whose right half another.
fn halves(program: &Program, path: &str, left: bool, right: bool, number: u32) {
    let path = program.path(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    let shade = |number: u32| (60 + number * 7 % 40) as u8;
    let image = RgbImage::from_fn(32, 32, |x, y| {
        let noise = ((x * 31 + y * 17 + number * 13) % 23) as u8;
        match x < 16 {
            true if left => Rgb([220 - noise, 20, noise]),
            false if right => Rgb([noise, 30, 230 - noise]),
            _ => Rgb([shade(number) + noise; 3]),
        }
    });
    image.save(path).expect("a writable folder");
}

/// What the DICOM files of the fixture say of their patient: parts of the name, number, day of birth.
const PATIENT: [&str; 4] = ["Mustermann", "Erika", "4711", "19640812"];

/// Whether these bytes hold a word by itself; digits within a longer number or a digest are no patient's.
fn holds(bytes: &[u8], word: &str) -> bool {
    let within = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    let at = |place: usize| {
        let before = place.checked_sub(1).and_then(|place| bytes.get(place));
        !within(before) && !within(bytes.get(place + word.len()))
    };
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let mut places = bytes.windows(word.len()).enumerate().filter(|(_, window)| *window == word.as_bytes());
    places.any(|(place, _)| !is_number || at(place))
}

/// Looks for the patient in these files and in those of these folders; the number of files.
#[track_caller]
fn searched(program: &Program, paths: &[&str]) -> usize {
    let mut open: Vec<_> = paths.iter().map(|path| program.path(path)).collect();
    let mut seen = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(inarch_core::file::list(&path).expect("a folder"));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        for secret in PATIENT {
            assert!(!holds(&bytes, secret), "`{secret}` is in {}", path.display());
        }
        seen += 1;
    }
    seen
}

fn share(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn scans_among_class_folders_are_images_and_patients_stay_unnamed() {
    let program = Program::new();
    scans(&program);
    let fit = [
        "fit",
        "-b",
        "pocket",
        "-d",
        "scans",
        "-m",
        "linear-probe",
        "-o",
        "run",
        "--set",
        "train.budget={ iterations = 5 }",
    ];
    let fitted = program.json(&fit);
    assert!(fitted["runs"][0]["detail"]["auroc"].is_number());
    let found = program.json(&["eval", "-b", "pocket", "-d", "scans", "-a", "run"]);
    assert_eq!((found["n"].as_u64(), found["classes"].as_array().map(Vec::len)), (Some(4), Some(2)));
    // Every frame of the loop is an image of its own, and no file is parted between splits.
    let rows = |arguments: &[&str]| {
        let encoded = program
            .json(&[&["encode", "-b", "pocket", "--images", "scans", "-o", "f.safetensors"], arguments].concat());
        encoded["rows"].as_u64().expect("a number")
    };
    assert_eq!((rows(&[]), rows(&["--slices", "all"])), (10, 10 + 4 + 5 + 2));
    let named =
        program.json(&["predict", "-b", "pocket", "-a", "run", "scans/train/nodule/loop.dcm#2", "--window", "full"]);
    assert_eq!(named["images"][0]["image"], "scans/train/nodule/loop.dcm#2");
    let all = program.json(&["predict", "-b", "pocket", "-a", "run", "scans/train/nodule/loop.dcm", "--slices", "all"]);
    let images = all["images"].as_array().expect("images");
    assert_eq!((images.len(), &images[4]["image"]), (5, &Value::from("scans/train/nodule/loop.dcm#5")));
    // Windows change what is seen.
    let scores = |window: &[&str]| {
        let found =
            program.json(&[&["predict", "-b", "pocket", "-a", "run", "scans/train/nodule/1.dcm"], window].concat());
        found["images"][0]["predictions"].to_string()
    };
    assert_ne!(scores(&[]), scores(&["--window", "-600:1500"]));
    program.fail(
        &["predict", "-b", "pocket", "-a", "run", "scans/train/nodule/loop.dcm#6"],
        1,
        &["frame 6", "it has 5"],
    );
    program.fail(&["eval", "-b", "pocket", "-d", "scans", "--window", "wide"], 2, &["CENTRE:WIDTH"]);
    // What comes next reads the images as they were read.
    let read = ["--window", "-600:1500", "--group-by", "([0-9]|loop)"];
    let fit = ["fit", "-b", "pocket", "-d", "scans", "-m", "linear-probe", "-o", "probe"];
    let said = program.run(&[&fit[..], &["--set", "train.budget={ iterations = 3 }"], &read].concat()).stdout;
    let next = "next: inarch eval -b pocket -d scans --group-by '([0-9]|loop)' --window -600:1500 -a probe\n";
    assert!(said.contains(next), "{said}");

    assert!(searched(&program, &["run", "f.safetensors"]) >= 6);
}

#[test]
fn what_is_printed_and_published_names_no_patient() {
    let program = Program::new();
    scans(&program);
    // A file that breaks off behind the patient's name, among the others and by itself.
    let whole = std::fs::read(program.path("scans/train/nodule/1.dcm")).expect("a scan");
    let cut = &whole[..whole.len() - 5];
    assert!(PATIENT.iter().all(|secret| holds(cut, secret)), "the fixture names its patient");
    std::fs::write(program.path("cut.dcm"), cut).expect("writes");
    for split in ["train", "test"] {
        std::fs::write(program.path(&format!("scans/{split}/nodule/broken.dcm")), cut).expect("writes");
    }
    let skip = &["--on-bad-image", "skip"][..];
    let budget = "train.budget={ iterations = 3 }";
    let fit = &["fit", "-b", "pocket", "-d", "scans", "-m", "linear-probe", "--set", budget, "--store", "64MiB"][..];
    let eval = &["eval", "-b", "pocket", "-d", "scans"][..];
    let encode = &["encode", "-b", "pocket", "--images", "scans", "-o", "f.safetensors"][..];
    let predict = &["predict", "-b", "pocket", "-a", "chest/probe"][..];
    let runs: Vec<(Vec<&str>, i32)> = vec![
        ([fit, &["-o", "stopped"][..]].concat(), 1),
        ([fit, skip, &["-o", "run", "--publish", "chest/probe"][..]].concat(), 0),
        ([fit, skip, &["-o", "again", "--json"][..]].concat(), 0),
        (eval.to_vec(), 1),
        ([eval, skip, &["-a", "run"][..]].concat(), 0),
        ([eval, skip, &["-a", "run", "--json"][..]].concat(), 0),
        (encode.to_vec(), 1),
        ([encode, skip].concat(), 0),
        ([predict, &["scans/test/nodule/4.dcm"][..]].concat(), 0),
        ([predict, &["scans/test/nodule/4.dcm", "--json"][..]].concat(), 0),
        ([predict, &["cut.dcm"][..]].concat(), 1),
        ([predict, &["cut.dcm", "--json"][..]].concat(), 1),
        ([predict, &["scans/train/nodule/loop.dcm#6"][..]].concat(), 1),
        (vec!["registry", "show", "chest/probe"], 0),
        (vec!["registry", "show", "chest/probe", "--json"], 0),
        (vec!["registry", "list"], 0),
    ];
    for (arguments, code) in runs {
        let run = program.run(&arguments);
        assert_eq!(run.code, code, "{arguments:?}\n{}", run.stderr);
        assert!(!(run.stdout.is_empty() && run.stderr.is_empty()), "{arguments:?}");
        for secret in PATIENT {
            let said = holds(run.stdout.as_bytes(), secret) || holds(run.stderr.as_bytes(), secret);
            assert!(!said, "`{secret}` is in what {arguments:?} prints:\n{}\n{}", run.stdout, run.stderr);
        }
    }
    // The home has the registry with its index, and the store of features.
    assert!(program.path("home/registry").is_dir());
    assert!(searched(&program, &["run", "again", "f.safetensors", "home"]) >= 16);
}

#[test]
fn a_patient_in_two_splits_is_refused_and_splits_made_here_keep_them() {
    let program = Program::new();
    let mut rows = String::new();
    for number in 0..40u32 {
        let (class, patient) = (["clear", "nodule"][number as usize % 2], number / 4);
        let path = format!("images/p{patient}_{number}.png");
        halves(&program, &path, class == "nodule", false, number);
        rows.push_str(&format!("{path},{class},p{patient},{}\n", if number < 38 { "train" } else { "test" }));
    }
    std::fs::write(program.path("leaky.csv"), format!("path,label,group,split\n{rows}")).expect("writes");
    let words = ["group `p9` is in train and in test", "1 of 10 groups"];
    for command in [
        &["eval", "-b", "pocket", "-d", "leaky.csv"][..],
        &["fit", "-b", "pocket", "-d", "leaky.csv", "-m", "linear-probe"],
        &["encode", "-b", "pocket", "--images", "leaky.csv", "-o", "f.safetensors"],
    ] {
        program.fail(command, 3, &words);
    }
    // The same by a pattern over the names of a list without groups; without the pattern nobody can know.
    let ungrouped: String = rows
        .lines()
        .map(|row| {
            let parts: Vec<&str> = row.split(',').collect();
            format!("{},{},{}\n", parts[0], parts[1], parts[3])
        })
        .collect();
    std::fs::write(program.path("plain.csv"), format!("path,label,split\n{ungrouped}")).expect("writes");
    program.succeed(&["eval", "-b", "pocket", "-d", "plain.csv"]);
    program.fail(&["eval", "-b", "pocket", "-d", "plain.csv", "--group-by", "(p[0-9]+)_"], 3, &words);
    program.fail(
        &["eval", "-b", "pocket", "-d", "plain.csv", "--group-by", "(q[0-9]+)_"],
        1,
        &["does not match `images/p"],
    );
    program.fail(&["eval", "-b", "pocket", "-d", "plain.csv", "--group-by", "("], 1, &["group pattern"]);
    // Without a split column the groups decide.
    let free: String = rows.lines().map(|row| format!("{}\n", row.rsplit_once(',').expect("columns").0)).collect();
    std::fs::write(program.path("free.csv"), format!("path,label,group\n{free}")).expect("writes");
    program.succeed(&["encode", "-b", "pocket", "--images", "free.csv", "-o", "free.safetensors"]);
    let file = inarch_core::data::FeatureFile::read(&program.path("free.safetensors")).expect("features");
    let splits = file.splits.expect("splits");
    for (id, split) in file.ids.iter().zip(&splits) {
        let patient = id.split('_').next().expect("a name");
        let other = file.ids.iter().position(|other| other.starts_with(&format!("{patient}_"))).expect("itself");
        assert_eq!(*split, splits[other], "{id}");
    }
    // Written down they are the same splits, now checked whenever they are read.
    let written = program.json(&["data", "split", "-d", "free.csv", "-o", "written.csv"]);
    let groups: u64 = ["train", "val", "test"].iter().filter_map(|split| written["groups"][split].as_u64()).sum();
    assert_eq!(groups, 10);
    program.succeed(&["encode", "-b", "pocket", "--images", "written.csv", "-o", "again.safetensors"]);
    let again = inarch_core::data::FeatureFile::read(&program.path("again.safetensors")).expect("features");
    assert_eq!((again.ids, again.splits.as_ref()), (file.ids.clone(), Some(&splits)));
    assert!(splits.contains(&inarch_core::data::Split::Train) && splits.contains(&inarch_core::data::Split::Test));
}

#[test]
fn rare_classes_can_be_given_their_weight() {
    let program = Program::new();
    for number in 0..66u32 {
        let (split, rare) = (if number < 40 { "train" } else { "test" }, number % 13 == 0);
        let path = format!("data/{split}/{}/{number}.png", if rare { "rare" } else { "common" });
        halves(&program, &path, rare && number % 2 == 0, false, number);
    }
    let adapter = |output: &str, method: &str, setting: Option<&str>| {
        let budget = "train.budget={ iterations = 6 }";
        let mut words = vec!["fit", "-b", "pocket", "-d", "data", "-m", method, "-o", output, "--set", budget];
        words.extend(setting.iter().flat_map(|setting| ["--set", setting]));
        program.succeed(&words);
        std::fs::read(program.path(output).join("adapter.safetensors")).expect("an adapter")
    };
    let settings = ["balanced-sampling", "class-weights", "{ logit-adjustment = 1.0 }"];
    for method in ["linear-probe", "lora", "proda"] {
        let mut found = vec![adapter(&format!("{method}-plain"), method, None)];
        for setting in settings {
            let value = if setting.starts_with('{') { setting.to_string() } else { format!("{setting:?}") };
            found.push(adapter(&format!("{method}-{setting}"), method, Some(&format!("train.imbalance={value}"))));
        }
        for (at, one) in found.iter().enumerate() {
            assert!(found[..at].iter().all(|other| other != one), "{method}: setting {at} changes nothing");
        }
        let recipe = std::fs::read_to_string(program.path(&format!("{method}-plain/recipe.toml"))).expect("a recipe");
        assert!(!recipe.contains("imbalance"));
        assert_eq!(found[0], adapter("again", method, Some("train.imbalance=\"none\"")));
        let again = format!("{method}-{}", settings[2]);
        let recipe = std::fs::read_to_string(program.path(&again).join("recipe.toml")).expect("a recipe");
        assert!(recipe.contains("logit-adjustment = 1.0"), "{recipe}");
    }
    let arguments = ["fit", "-b", "pocket", "-d", "data", "-m", "lora", "--set"];
    program.fail(&[&arguments[..], &["train.imbalance={ logit-adjustment = -1.0 }"]].concat(), 2, &["above 0"]);
    program.fail(&[&arguments[..], &["train.imbalance=\"often\""]].concat(), 2, &["often"]);
}

#[test]
fn images_may_have_several_findings() {
    let program = Program::new();
    let mut rows = String::from("path,label,split\n");
    for number in 0..64u32 {
        let (left, right) = (number & 1 == 1, number & 2 == 2);
        let path = format!("images/{number}.png");
        halves(&program, &path, left, right, number);
        let findings = [("red mass", left), ("blue fluid", right)];
        let findings: Vec<&str> = findings.iter().filter(|(_, held)| *held).map(|(name, _)| *name).collect();
        rows.push_str(&format!("{path},{},{}\n", findings.join(";"), if number < 40 { "train" } else { "test" }));
    }
    std::fs::write(program.path("findings.csv"), rows).expect("writes");
    let zero_shot = program.json(&["eval", "-b", "pocket", "-d", "findings.csv"]);
    assert!(share(&zero_shot["mean_average_precision"]) < 0.95, "{zero_shot}");
    // A prompt alone moves slowly.
    for (method, iterations) in [("linear-probe", 60), ("coop", 200), ("lora", 60)] {
        let budget = format!("train.budget={{ iterations = {iterations} }}");
        let words = ["fit", "-b", "pocket", "-d", "findings.csv", "-m", method, "-o", method, "--set", &budget];
        program.succeed(&words);
        let found = program.json(&["eval", "-b", "pocket", "-d", "findings.csv", "-a", method]);
        assert_eq!((found["n"].as_u64(), found["ranking"].as_array().map(Vec::len)), (Some(24), Some(2)));
        let (before, after) = (share(&zero_shot["mean_average_precision"]), share(&found["mean_average_precision"]));
        assert!(after > before, "{method}: {before} {after}");
        if method == "lora" {
            assert!(after > 0.99 && share(&found["accuracy"]) > 0.9, "{found}");
        }
        // Each finding has a probability of its own: the image has both, the other none.
        let found =
            program.json(&["predict", "-b", "pocket", "-a", method, "images/43.png", "images/44.png", "--top-k", "1"]);
        for image in found["images"].as_array().expect("images") {
            assert_eq!(image["predictions"].as_array().map(Vec::len), Some(2));
        }
        let sum = |image: usize| {
            let all = found["images"][image]["predictions"].as_array().expect("predictions");
            all.iter().map(|prediction| share(&prediction["score"])).sum::<f64>()
        };
        assert!(sum(0) > sum(1), "{method}: {found}");
    }
    let fit = ["fit", "-b", "pocket", "-d", "findings.csv", "-m"];
    program.fail(&[&fit[..], &["tip-adapter-f"]].concat(), 2, &["one label each"]);
    let balanced = ["lora", "--set", "train.imbalance=\"balanced-sampling\""];
    program.fail(&[&fit[..], &balanced].concat(), 2, &["several labels"]);
    program.fail(&["eval", "-b", "pocket", "-d", "findings.csv", "--test-time", "zero"], 1, &["one label each"]);
}

#[test]
fn unsure_answers_are_withheld() {
    let program = Program::new();
    for number in 0..24u32 {
        let class = ["left", "plain"][number as usize % 2];
        halves(&program, &format!("data/test/{class}/{number}.png"), class == "left", false, number);
    }
    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "--abstain", "0.55"]);
    let points = found["selective"]["points"].as_array().expect("points");
    let at = |threshold: f64| points.iter().find(|point| share(&point["threshold"]) == threshold).expect("a point");
    assert_eq!(share(&at(0.0)["coverage"]), 1.0);
    assert_eq!(share(&at(0.0)["accuracy"]), share(&found["accuracy"]));
    let images: Vec<String> = (0..24).map(|n| format!("data/test/{}/{n}.png", ["left", "plain"][n % 2])).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let predict = ["predict", "-b", "pocket", "--classes", "left,plain", "--abstain", "0.55"];
    let answers = program.json(&[&predict[..], &images].concat());
    let answers = answers["images"].as_array().expect("images");
    let given = answers.iter().filter(|image| image["abstained"] == false).count();
    assert!((given as f64 / 24.0 - share(&at(0.55)["coverage"])).abs() < 1e-9);
    for image in answers {
        assert_eq!(image["abstained"] == true, share(&image["predictions"][0]["score"]) < 0.55);
    }
    program.fail(&["eval", "-b", "pocket", "-d", "data", "--abstain", "2"], 2, &["from 0 to 1"]);
    // The threshold that answers half of the images answers them.
    let surest = found["selective"]["surest"].as_array().expect("points");
    assert_eq!(surest.iter().map(|point| share(&point["share"])).collect::<Vec<_>>(), [1.0, 0.9, 0.8, 0.5]);
    assert_eq!(share(&surest[0]["accuracy"]), share(&found["accuracy"]));
    // Read back from text, it may be off by its last bit.
    let threshold = share(&surest[3]["threshold"]) - 1e-9;
    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "--abstain", &threshold.to_string()]);
    let points = found["selective"]["points"].as_array().expect("points");
    let close = |point: &&Value| (share(&point["threshold"]) - threshold).abs() < 1e-12;
    let point = points.iter().find(close).expect("the threshold");
    for key in ["coverage", "accuracy"] {
        assert_eq!(share(&point[key]), share(&surest[3][key]), "{key}");
    }
    assert!(share(&point["coverage"]) >= 0.5);
}

#[test]
fn a_temperature_from_validation_images_changes_probabilities_and_no_answer() {
    let program = Program::new();
    for number in 0..24u32 {
        let class = ["left", "plain"][number as usize % 2];
        // The same images twice, so that what is likeliest there is likeliest here.
        for split in ["val", "test"] {
            halves(&program, &format!("data/{split}/{class}/{number}.png"), class == "left", false, number);
        }
        halves(&program, &format!("data/train/{class}/{number}.png"), class == "left", false, 24 + number);
    }
    let budget = "train.budget={ iterations = 20 }";
    program.json(&["fit", "-b", "pocket", "-d", "data", "-m", "linear-probe", "--set", budget, "-o", "run"]);
    let eval = ["eval", "-b", "pocket", "-d", "data"];
    for (given, folder) in [(&[][..], "zero-shot"), (&["-a", "run"][..], "probe")] {
        let before = program.json(&[&eval[..], given].concat());
        let after = program.json(&[&eval[..], given, &["--calibrate", folder]].concat());
        assert_eq!((&after["accuracy"], &after["confusion"]), (&before["accuracy"], &before["confusion"]));
        let temperature = share(&after["temperature"]);
        assert!(temperature > 0.0 && (temperature - 1.0).abs() > 1e-3, "{temperature}");
        assert!(share(&after["nll"]) < share(&before["nll"]), "{folder}: {} {}", after["nll"], before["nll"]);
        // What was written is what was measured.
        let again = program.json(&[&eval[..], &["-a", folder]].concat());
        assert!((share(&again["nll"]) - share(&after["nll"])).abs() < 1e-6, "{} {}", again["nll"], after["nll"]);
        assert!(again["temperature"].is_null());
    }
    std::fs::remove_dir_all(program.path("data/val")).expect("a folder");
    program.fail(&[&eval[..], &["--calibrate", "none"]].concat(), 1, &["no validation images"]);
}

#[test]
fn classes_may_be_described() {
    let program = Program::new();
    for number in 0..16u32 {
        let class = ["lesion", "plain"][number as usize % 2];
        let split = if number < 8 { "train" } else { "test" };
        halves(&program, &format!("data/{split}/{class}/{number}.png"), class == "lesion", false, number);
    }
    let text = r#"{"Lesion": ["a red car", "a red truck"], "plain": ["a grey cat", "a grey ship"]}"#;
    std::fs::write(program.path("words.json"), text).expect("writes");
    let named = program.json(&["eval", "-b", "pocket", "-d", "data"]);
    let described = program.json(&["eval", "-b", "pocket", "-d", "data", "--descriptions", "words.json"]);
    assert_ne!(named["nll"], described["nll"]);
    // A recipe and its adapter hold the sentences themselves.
    let fit = ["fit", "-b", "pocket", "-d", "data", "-m", "lora", "--descriptions", "words.json", "-o", "run"];
    let budget = "train.budget={ iterations = 2 }";
    program.succeed(&[&fit[..], &["--set", budget]].concat());
    std::fs::remove_file(program.path("words.json")).expect("removes");
    let first = std::fs::read(program.path("run/adapter.safetensors")).expect("an adapter");
    program.succeed(&["eval", "-b", "pocket", "-d", "data", "-a", "run"]);
    program.succeed(&["fit", "run/recipe.toml", "-o", "again"]);
    assert_eq!(first, std::fs::read(program.path("again/adapter.safetensors")).expect("an adapter"));
    std::fs::write(program.path("words.json"), r#"{"lesion": ["a red car"]}"#).expect("writes");
    program.fail(&["eval", "-b", "pocket", "-d", "data", "--descriptions", "words.json"], 1, &["class `plain`"]);
}
