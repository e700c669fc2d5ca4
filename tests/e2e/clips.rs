//! Clips through the program: generated, learned from, evaluated, predicted, encoded, kept.

use std::path::Path;

use image::{Rgb, RgbImage};
use inarch_core::data::FeatureFile;
use serde_json::Value;

use super::Program;
use super::program::{adapter_bytes, sample};
use super::update::{LENIENT, record};
use crate::support::{close, fixture};

/// A small set of actions, as folders of frames or GIFs.
fn actions(program: &Program, name: &str, more: &[&str]) -> Value {
    let numbers = ["--train", "2", "--test", "2", "--length", "12", "--side", "32"];
    program.json(&[&["data", "actions", sample(), "-o", name], &numbers[..], more].concat())
}

fn fit(program: &Program, method: &str, data: &str, more: &[&str], output: &str) {
    let base = ["fit", "-b", "pocket", "-d", data, "-m", method, "--set", "train.budget={ iterations = 4 }"];
    program.succeed(&[&base[..], &["--set", "views=2", "-o", output], more].concat());
}

fn first_clip(program: &Program, data: &str) -> String {
    program.path(data).join("test/growing/000").display().to_string()
}

#[test]
fn folders_of_frames_go_through_every_verb() {
    let program = Program::new();
    let made = actions(&program, "actions", &[]);
    assert_eq!(
        (made["classes"].as_u64(), made["train"].as_u64(), made["test"].as_u64()),
        (Some(10), Some(20), Some(20))
    );

    // Without a word they are images, and the program says what else they could be.
    let images = program.run(&["eval", "-b", "pocket", "-d", "actions", "--json"]);
    assert!(images.stderr.contains("--frames 8"), "{}", images.stderr);
    let found: Value = serde_json::from_str(&images.stdout).expect("JSON");
    assert_eq!(found["n"], 240);

    // Forwards and backwards are one and the same to mean pooling: each opposite pair gets one answer.
    let zero_shot = program.json(&["eval", "-b", "pocket", "-d", "actions", "--frames", "4"]);
    assert_eq!(zero_shot["n"], 20);
    let confusion = zero_shot["confusion"].as_array().expect("counts");
    let of = |class: &str| {
        let classes = zero_shot["classes"].as_array().expect("classes");
        &confusion[classes.iter().position(|name| name == class).expect("a class")]
    };
    for [forwards, backwards] in inarch_core::data::ACTIONS {
        assert_eq!(of(forwards), of(backwards), "{forwards}");
    }

    let store = ["--store", "1GiB"];
    for method in ["temporal-conv", "st-adapter"] {
        let folder = |end: &str| format!("{method}{end}");
        fit(&program, method, "actions", &["--frames", "4"], &folder(""));
        // A store changes nothing, whether it is empty or full.
        for end in ["-first", "-second"] {
            fit(&program, method, "actions", &[&["--frames", "4"][..], &store].concat(), &folder(end));
            assert!(
                adapter_bytes(&program.path(method)) == adapter_bytes(&program.path(&folder(end))),
                "{method}{end}"
            );
        }
    }
    let recipe = std::fs::read_to_string(program.path("temporal-conv/recipe.toml")).expect("the resolved recipe");
    assert!(recipe.contains("[clips]") && recipe.contains("frames = 4"), "{recipe}");

    // The adapter says how its clips are read.
    let report: Value =
        inarch_core::file::read_json(&program.path("temporal-conv/report.json"), "report").expect("JSON");
    let own = program.json(&["eval", "-b", "pocket", "-d", "actions", "-a", "temporal-conv"]);
    assert_eq!(own["accuracy"], report["test"]["accuracy"]);
    let views = ["--clip-views", "3"];
    let several =
        program.json(&[&["eval", "-b", "pocket", "-d", "actions", "-a", "temporal-conv"][..], &views].concat());
    assert_eq!(several["n"], 20);
    assert_ne!(several["ece"], own["ece"], "other frames were seen");

    // Frames that are square look the same in every crop; here the towers run with an adapter in them, and without.
    for adapter in ["temporal-conv", "st-adapter"] {
        let eval = ["eval", "-b", "pocket", "-d", "actions", "-a", adapter];
        let crops = program.json(&[&eval[..], &["--clip-crops", "3"]].concat());
        assert_eq!(crops["confusion"], program.json(&eval)["confusion"], "{adapter}");
    }

    let clip = first_clip(&program, "actions");
    let found = program.json(&["predict", "-b", "pocket", "-a", "temporal-conv", &clip, "--top-k", "10"]);
    assert_eq!(found["images"][0]["predictions"].as_array().map(Vec::len), Some(10));

    // Features of clips are rows like any other.
    program.succeed(&["encode", "-b", "pocket", "--images", "actions", "--frames", "4", "-o", "clips.safetensors"]);
    let of_rows = program.json(&["eval", "-b", "pocket", "-d", "clips.safetensors"]);
    assert_eq!(of_rows["accuracy"], zero_shot["accuracy"]);
    program.succeed(&["encode", "-b", "pocket", "-a", "temporal-conv", "--images", &clip, "-o", "one.safetensors"]);
    let one = FeatureFile::read(&program.path("one.safetensors")).expect("features");
    assert_eq!(one.rows(), 1);

    // What clips cannot do is said.
    program.fail(&["eval", "-b", "pocket", "-d", "actions", "--frames", "0"], 1, &["clips.frames"]);
    let eval = ["eval", "-d", "actions", "--frames", "4", "--clip-crops"];
    program.fail(&[&eval[..], &["2", "-b", "pocket"]].concat(), 1, &["clips.crops", "1, the centre, or 3"]);
    let whole = fixture("parity/families/siglip").display().to_string();
    program.fail(&[&eval[..], &["3", "-b", whole.as_str()]].concat(), 1, &["clips.crops", "whole frames"]);
    program.fail(
        &["eval", "-b", "pocket", "-d", sample(), "--frames", "4"],
        1,
        &["nothing in it has more than one frame"],
    );
    program.fail(
        &["eval", "-b", "pocket", "-d", "actions", "--frames", "4", "--test-time", "tpt"],
        1,
        &["still images"],
    );
}

#[test]
fn gifs_that_move_need_no_word_and_a_clip_that_cannot_be_read_is_left_out() {
    let program = Program::new();
    actions(&program, "gifs", &["--gif"]);
    actions(&program, "frames", &[]);
    let gifs = program.json(&["eval", "-b", "pocket", "-d", "gifs"]);
    let frames = program.json(&["eval", "-b", "pocket", "-d", "frames", "--frames", "8"]);
    assert_eq!((&gifs["n"], &frames["n"]), (&20.into(), &20.into()));
    fit(&program, "attention-pool", "gifs", &[], "adapter");
    let clip = program.path("gifs/test/growing/000.gif").display().to_string();
    let found = program.json(&["predict", "-b", "pocket", "-a", "adapter", &clip]);
    assert_eq!(found["images"].as_array().map(Vec::len), Some(1));

    let broken = program.path("frames/test/growing/001/003.png");
    std::fs::write(&broken, b"no image").expect("written");
    let eval = ["eval", "-b", "pocket", "-d", "frames", "--frames", "8"];
    program.fail(&eval, 1, &["003.png"]);
    let left = program.json(&[&eval[..], &["--on-bad-image", "skip"]].concat());
    assert_eq!((&left["n"], left["skipped"].as_array().map(Vec::len)), (&19.into(), Some(1)));
    // In training as well, where towers run in every step.
    let broken = program.path("frames/train/growing/001/003.png");
    std::fs::write(&broken, b"no image").expect("written");
    fit(&program, "st-adapter", "frames", &["--frames", "8", "--on-bad-image", "skip", "--set", "views=0"], "skipping");
    assert!(Path::new(&program.path("skipping/adapter.json")).is_file());
    // A frame that one view shows and the other does not.
    let left = [&eval[..], &["-a", "skipping", "--clip-views", "2", "--on-bad-image", "skip"]].concat();
    let left = program.json(&left);
    assert_eq!((&left["n"], left["skipped"].as_array().map(Vec::len)), (&19.into(), Some(1)));

    // It costs a stream nothing else, whatever lies beside it.
    let broken = program.path("gifs/train/growing/001.gif");
    let mut bytes = std::fs::read(&broken).expect("a clip");
    let frame = 13 + bytes[13..].iter().position(|byte| *byte == 0x2C).expect("a frame");
    let colours = if bytes[frame + 9] & 0x80 == 0 { 0 } else { 3usize << ((bytes[frame + 9] & 7) + 1) };
    // No code of pixels has so many bits.
    bytes[frame + 10 + colours] = 20;
    std::fs::write(&broken, bytes).expect("written");
    let stream = |output: &str| {
        let stream = ["stream", "-b", "pocket", "-d", "gifs", "-s", "simple-cil", "--seeds", "1", "-o", output];
        let more = ["--set", "stream.experiences=2", "--on-bad-image", "skip"];
        let report = program.json(&[&stream[..], &more[..]].concat());
        (report["strategies"][0]["seeds"][0]["bytes"].clone(), report["skipped"].as_array().map(Vec::len))
    };
    let (bytes, skipped) = stream("skipped");
    assert_eq!(skipped, Some(1));
    std::fs::remove_file(&broken).expect("removed");
    assert_eq!(stream("without"), (bytes, Some(0)));
}

#[test]
fn an_update_reads_clips_as_the_version_before_did() {
    let program = Program::new();
    actions(&program, "actions", &[]);
    let update = |data: &str, more: &[&str]| {
        let report = program.json(&[&["update", "moves", "-b", "pocket", "-d", data], more].concat());
        (report["learned"].as_u64(), report["held_out"].as_u64())
    };
    assert_eq!(update("actions", &["--init", "simple-cil", "--frames", "4"]), (Some(20), Some(20)));
    let numbers = ["--train", "1", "--test", "1", "--length", "12", "--side", "32", "--seed", "2"];
    program.succeed(&[&["data", "actions", sample(), "-o", "more"], &numbers[..]].concat());
    assert_eq!(update("more", LENIENT), (Some(10), Some(10)));
    for version in ["moves/1", "moves/2"] {
        assert_eq!(record(&program, &format!("{version}/adapter.json"))["clips"]["frames"], 4, "{version}");
    }
    let found = program.json(&["predict", "-b", "pocket", "-a", "moves/2", &first_clip(&program, "actions")]);
    assert_eq!(found["images"].as_array().map(Vec::len), Some(1));
    // What changes the tower, or looks at frames, would need more than is remembered.
    for method in ["lora", "temporal-conv"] {
        let first = ["update", "other", "-b", "pocket", "-d", "actions", "--frames", "4", "--init", method];
        program.fail(&first, 1, &[method, "on clips", "its feature"]);
    }
}

#[test]
fn the_crops_of_a_clip_are_averaged() {
    let program = Program::new();
    // Frames as high as the backbone's input and twice as wide, and parts of them as clips of their own.
    let write = |name: &str, from: u32, width: u32| {
        let folder = program.path(name);
        std::fs::create_dir_all(&folder).expect("a writable folder");
        for frame in 0..4 {
            let at = |x: u32, y: u32| Rgb([4 * (x + from), 7 * y + 9 * frame, (x + from) * y].map(|level| level as u8));
            RgbImage::from_fn(width, 32, at).save(folder.join(format!("{frame}.png"))).expect("a writable folder");
        }
    };
    write("wide", 0, 64);
    let parts = [("middle", 16), ("left", 0), ("right", 32)];
    for (name, from) in parts {
        write(name, from, 32);
    }
    let encode = |images: &str, more: &[&str]| {
        let output = format!("{images}-{}.safetensors", more.len());
        let base = ["encode", "-b", "pocket", "--images", images, "--frames", "4", "-o", output.as_str()];
        program.succeed(&[&base[..], more].concat());
        FeatureFile::read(&program.path(&output)).expect("features").values
    };
    assert_eq!(encode("wide", &[]), encode("middle", &[]));

    // The mean of directions: its product with the direction of any class is the mean of what the crops score there.
    let directions = parts.map(|(name, _)| {
        let feature = encode(name, &[]);
        let length = feature.iter().map(|value| value * value).sum::<f32>().sqrt();
        feature.into_iter().map(|value| value / length).collect::<Vec<_>>()
    });
    let [middle, left, right] = &directions;
    let expected: Vec<f32> =
        middle.iter().zip(left).zip(right).map(|((middle, left), right)| (middle + left + right) / 3.0).collect();
    close("three crops", &encode("wide", &["--clip-crops", "3"]), &expected, 1e-5);
    // The same frames are chosen in both of two views of four frames, so that these change nothing.
    let views = ["--clip-crops", "3", "--clip-views", "2"];
    close("two views of three crops", &encode("wide", &views), &expected, 1e-5);
    assert_ne!(left, right);
}

#[test]
fn clips_are_compared_over_seeds_and_on_both_halves_of_the_classes() {
    let program = Program::new();
    actions(&program, "actions", &[]);
    let base = ["compare", "-b", "pocket", "-d", "actions", "--frames", "4", "-m", "vita-clip,temporal-conv,taskres"];
    let protocol = ["--shots", "1", "--seeds", "1,2", "--base-to-new", "--set", "train.budget={ iterations = 2 }"];
    let compare = [&base[..], &protocol, &["-o", "out"]].concat();
    let report = program.json(&compare);
    assert_eq!((&report["classes"], report["runs"].as_array().map(Vec::len)), (&5.into(), Some(6)));
    // Both halves are read as clips, of which each class has two in the test.
    for (subset, key) in [("base", "accuracy"), ("new", "new_accuracy")] {
        let eval = ["eval", "-b", "pocket", "-d", "actions", "--frames", "4", "--subset", subset];
        let zero_shot = program.json(&eval);
        assert_eq!((&zero_shot["n"], &zero_shot["accuracy"]), (&10.into(), &report["zero_shot"][key]), "{subset}");
    }
    for line in report["lines"].as_array().expect("lines") {
        assert_eq!(line["accuracy"]["n"], 2, "{line}");
        // A method with a row for each class cannot name new ones.
        assert_eq!(line["base_to_new"].is_null(), line["method"] == "taskres", "{line}");
    }
    // A run gives what the same fit gives, and the comparison goes on from its list.
    let fit = ["fit", "-b", "pocket", "-d", "actions", "--frames", "4", "--subset", "base", "-m", "vita-clip"];
    let same = ["--shots", "1", "--seed", "2", "--set", "train.budget={ iterations = 2 }", "-o", "alone"];
    program.succeed(&[&fit[..], &same].concat());
    let run = program.path("out/runs/vita-clip-1-shot-seed-2");
    let [alone, run] = [program.path("alone"), run].map(|folder| adapter_bytes(&folder));
    assert!(alone[0] == run[0], "another adapter");
    assert_eq!(program.json(&compare)["runs"], report["runs"]);
    let other = ["--set", "clips.frames=2", "-o", "other"];
    program.fail(&[&base[..], &protocol, &other].concat(), 2, &["clips", "--frames"]);
    assert!(!program.path("other").exists());
}
