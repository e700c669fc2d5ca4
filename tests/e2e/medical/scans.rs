//! DICOM files and volumes as images, and what of them may be told.

use inarch_core::data::FeatureFile;
use serde_json::Value;

use super::Program;
use crate::e2e::update::LENIENT;
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
    let corrupt = ["corrupt", "-d", "scans", "-o", "damaged", "--kind", "clean", "--slices", "all"];
    assert_eq!(
        program.json(&corrupt)["copies"][0]["images"],
        3 + 3,
        "two plates, a photo, and a volume of three slices"
    );
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
    // The adapter remembers the window: nothing else is said, it is said, or another one.
    let scores = |window: &[&str]| {
        let found =
            program.json(&[&["predict", "-b", "pocket", "-a", "probe", "scans/train/nodule/1.dcm"], window].concat());
        (found["images"][0]["image"].clone(), found["images"][0]["predictions"].to_string())
    };
    let remembered = scores(&[]);
    assert_eq!(remembered, scores(&["--window", "-600:1500"]));
    assert_eq!(remembered.0, "scans/train/nodule/1.dcm");
    assert_ne!(remembered.1, scores(&["--window", "full"]).1);
    let accuracy = |window: &[&str]| {
        let eval = ["eval", "-b", "pocket", "-d", "scans", "-a", "probe", "--group-by", "([0-9]|loop)"];
        program.json(&[&eval[..], window].concat())["nll"].to_string()
    };
    assert_eq!(accuracy(&[]), accuracy(&["--window", "-600:1500"]));
    assert_ne!(accuracy(&[]), accuracy(&["--window", "full"]));

    assert!(searched(&program, &["run", "f.safetensors", "damaged"]) >= 6 + 6);
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
fn what_an_update_remembers_of_scans_are_pixels_in_the_window_they_were_seen_in() {
    let program = Program::new();
    scans(&program);
    let budget = ["--set", "fit.train.budget={ iterations = 2 }"];
    let read = ["--init", "lora", "--window", "-600:1500", "--slices", "all"];
    let first = program.json(&[&["update", "ward", "-b", "pocket", "-d", "scans"], &read[..], &budget].concat());
    // Six files to learn from, of which the loop has five frames and the volume six; four held out, one of them with three slices.
    assert_eq!((first["learned"].as_u64(), first["held_out"].as_u64()), (Some(6 + 4 + 5), Some(4 + 2)));
    let shown = program.json(&["memory", "show", "ward", "--samples"]);
    assert_eq!(shown["config"]["content"], "images");
    assert!(shown["samples"].as_u64() > Some(0), "{shown}");
    // Kept pixels are rehearsed and judged by like any image.
    for (to, from) in [("nodule/6.dcm", "palette.dcm"), ("clear/6.dcm", "ybr.dcm")] {
        for split in ["train", "test"] {
            let path =
                program.path("later").join(split).join(to.replace('6', if split == "train" { "6" } else { "7" }));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
            std::fs::copy(fixture("parity/medical_images").join(from), path).expect("the fixture");
        }
    }
    // The window is that of the version before.
    let second = program.json(&[&["update", "ward", "-b", "pocket", "-d", "later"], &budget[..], LENIENT].concat());
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(program.path("ward/2/adapter.json")).expect("a manifest")).expect("JSON");
    assert_eq!(manifest["window"], "-600:1500");
    assert_eq!((second["version"].as_str(), second["learned"].as_u64()), (Some("ward/2"), Some(2)));
    assert!(second["accuracy_before"].is_number(), "{second}");
    assert!(searched(&program, &["ward"]) >= 8);
}

#[test]
fn what_has_drifted_is_seen_in_the_window_of_the_version() {
    let program = Program::new();
    scans(&program);
    let all = ["-b", "pocket", "-d", "scans", "--slices", "all"];
    let window = ["--window", "-600:1500"];
    program.json(&[&["update", "ward", "--init", "simple-cil"], &all[..], &window].concat());
    let drift = |more: &[&str]| program.json(&[&["memory", "drift", "ward"], &all[..], more].concat());
    assert_eq!(drift(&[]), drift(&window));
    assert_ne!(drift(&[])["mmd"]["statistic"], drift(&["--window", "full"])["mmd"]["statistic"]);
}

#[test]
fn latents_of_two_windows_are_never_in_one_memory() {
    let program = Program::new();
    scans(&program);
    let all = ["-b", "pocket", "-d", "scans", "--slices", "all"];
    let (window, other) = (["--window", "-600:1500"], ["--window", "full"]);
    let say = ["window -600:1500", "window full"];
    // Of a version ...
    program.json(&[&["update", "ward", "--init", "simple-cil"], &all[..], &window].concat());
    program.fail(&[&["update", "ward"], &all[..], &other].concat(), 3, &say);
    let ids = program.json(&["memory", "show", "ward", "--samples"])["ids"].clone();
    let id = ids[0]["id"].as_str().expect("an id").to_string();
    program.fail(&[&["memory", "forget", "ward", &id], &all[..], &other].concat(), 3, &say);
    assert!(!program.path("ward/2").exists());
    // ... and of a memory at work, which goes on in the window that it was begun with, and so does a snapshot of it.
    program.json(&[&["memory", "add", "seen"], &all[..], &window].concat());
    let before = program.json(&["memory", "show", "seen"]);
    assert_eq!(before["fingerprint"]["window"], "-600:1500");
    program.fail(&[&["memory", "add", "seen"], &all[..], &other].concat(), 3, &say);
    program.json(&[&["memory", "add", "seen"], &all[..]].concat());
    program.json(&["memory", "export", "seen", "seen.memory"]);
    for memory in ["seen", "seen.memory"] {
        let drift = |more: &[&str]| program.json(&[&["memory", "drift", memory], &all[..], more].concat());
        assert_eq!(drift(&[]), drift(&window));
        assert_ne!(drift(&[])["mmd"]["statistic"], drift(&other)["mmd"]["statistic"]);
    }
}

/// Files of an archive often have no extension.
#[test]
fn files_without_extension_are_shown_in_a_window_and_frame_by_frame() {
    let program = Program::new();
    for (from, to) in [("ct.dcm", "IM1"), ("ct.dcm", "one.dcm"), ("loop.dcm", "IM2"), ("loop.dcm", "two.dcm")] {
        std::fs::copy(fixture("parity/medical_images").join(from), program.path(to)).expect("the fixture");
    }
    for (list, rows) in [("plain.csv", "IM1,a\nIM2,b\n"), ("named.csv", "one.dcm,a\ntwo.dcm,b\n")] {
        std::fs::write(program.path(list), format!("path,label\n{rows}")).expect("a writable folder");
    }
    let features = |list: &str, more: &[&str]| {
        let encode = ["encode", "-b", "pocket", "--images", list, "-o", "features.safetensors"];
        program.succeed(&[&encode[..], more].concat());
        FeatureFile::read(&program.path("features.safetensors")).expect("features").values
    };
    for more in [&["--window", "-600:1500"][..], &["--slices", "all"], &["--slices", "1", "--window", "full"]] {
        assert_eq!(features("plain.csv", more), features("named.csv", more), "{more:?}");
    }
    let predict = ["predict", "-b", "pocket", "--classes", "a,b", "IM2#3", "--window", "full"];
    assert_eq!(program.json(&predict)["images"][0]["image"], "IM2#3");
}
