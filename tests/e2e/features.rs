//! Feature files: written by `encode`, and as good as the images for every method that needs no more.

use inarch_core::checkpoint::read_safetensors;

use super::Program;
use super::program::{sample, short_fit};

#[test]
fn features_of_images_carry_ids_labels_and_backbone() {
    let program = Program::new();
    let encoded = program.json(&["encode", "-b", "pocket", "--images", sample(), "-o", "f.safetensors"]);
    assert_eq!(encoded["rows"], 339);
    let (tensors, metadata) = read_safetensors(&program.path("f.safetensors")).expect("reads");
    assert_eq!(tensors["features"].shape, [339, 64]);
    let digest = program.json(&["backbone", "show", "pocket"])["digest"].clone();
    assert_eq!(Some(metadata["backbone"].as_str()), digest.as_str());
    assert_eq!(metadata["kind"], "image");
    for key in ["ids", "labels"] {
        let list: Vec<String> = serde_json::from_str(&metadata[key]).expect("a JSON list");
        assert_eq!(list.len(), 339, "{key}");
    }
}

#[test]
fn features_stand_in_for_images() {
    let program = Program::new();
    program.succeed(&["encode", "-b", "pocket", "--images", sample(), "-o", "f.safetensors"]);
    let from_images = program.json(&["eval", "-b", "pocket", "-d", sample()]);
    let from_features = program.json(&["eval", "-b", "pocket", "-d", "f.safetensors"]);
    assert_eq!(from_images["confusion"], from_features["confusion"]);
    for method in ["linear-probe", "coop"] {
        let budget = "train.budget={ iterations = 5 }";
        let arguments = ["fit", "-b", "pocket", "-d", "f.safetensors", "-m", method, "--set", budget, "-o", method];
        let fit = program.json(&arguments);
        let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", method]);
        assert_eq!(fit["runs"][0]["accuracy"], eval["accuracy"], "{method}");
    }
    let arguments = ["fit", "-b", "pocket", "-d", "f.safetensors", "-m", "lora", "-o", "lora"];
    program.fail(&arguments, 2, &["lora", "needs images"]);
}

/// An adapter at the feature site would be at work twice on what it has made already.
#[test]
fn features_through_an_adapter_say_so_and_take_no_adapter() {
    let program = Program::new();
    for method in ["clip-adapter", "coop"] {
        program.succeed(&short_fit(method, "1", method));
    }
    let encode = |images: &str, adapter: &str, output: &str| {
        program.succeed(&["encode", "-b", "pocket", "--images", images, "-a", adapter, "-o", output]);
        read_safetensors(&program.path(output)).expect("reads")
    };
    let (adapted, metadata) = encode(sample(), "clip-adapter", "adapted.safetensors");
    let manifest = std::fs::read_to_string(program.path("clip-adapter/adapter.json")).expect("reads");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let tensors = manifest["tensors"].as_str().expect("a digest");
    assert_eq!(metadata["adapter"], format!("clip-adapter {tensors}"));
    // One that leaves the image side alone leaves frozen features.
    let (frozen, metadata) = encode(sample(), "coop", "frozen.safetensors");
    assert_eq!(metadata.get("adapter"), None);
    assert_ne!(frozen["features"].data, adapted["features"].data);
    // Frozen features go through the adapter as their images do.
    let (again, metadata) = encode("frozen.safetensors", "clip-adapter", "again.safetensors");
    assert_eq!(metadata["adapter"], format!("clip-adapter {tensors}"));
    assert_eq!(again["features"].data, adapted["features"].data);
    // What has gone through an adapter still has when it is written again.
    program.succeed(&["encode", "-b", "pocket", "--images", "adapted.safetensors", "-o", "copy.safetensors"]);
    let (copy, metadata) = read_safetensors(&program.path("copy.safetensors")).expect("reads");
    assert_eq!(metadata["adapter"], format!("clip-adapter {tensors}"));
    assert_eq!(copy["features"].data, adapted["features"].data);

    let data = ["-b", "pocket", "-d", "adapted.safetensors"];
    let words = ["refused: features of", "frozen backbone", tensors];
    for arguments in [
        &["eval", "-a", "clip-adapter"][..],
        &["eval", "-a", "coop"],
        &["fit", "-m", "linear-probe", "-o", "head"],
        &["compare", "-m", "linear-probe", "-o", "table"],
    ] {
        program.fail(&[arguments, &data].concat(), 3, &words);
    }
    for output in ["head", "table"] {
        assert!(!program.path(output).exists(), "{output}");
    }
    program.fail(&["predict", "-b", "pocket", "-a", "clip-adapter", "adapted.safetensors"], 3, &words);
    let encode = ["encode", "-b", "pocket", "-a", "clip-adapter", "--images", "adapted.safetensors", "-o", "twice"];
    program.fail(&encode, 3, &words);
    assert!(!program.path("twice").exists());
    // Without one they are what the adapter gives to frozen texts.
    let zero_shot = program.json(&[&["eval"][..], &data].concat());
    let direct = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "clip-adapter"]);
    assert_eq!(zero_shot["n"], direct["n"]);
}

#[test]
fn texts_are_encoded_line_by_line() {
    let program = Program::new();
    std::fs::write(program.path("texts.txt"), "a photo of a cat.\na photo of a dog.\n").expect("writes");
    let encoded = program.json(&["encode", "-b", "pocket", "--texts", "texts.txt", "-o", "t.safetensors"]);
    assert_eq!((encoded["rows"].as_u64(), encoded["dim"].as_u64()), (Some(2), Some(64)));
    let (tensors, metadata) = read_safetensors(&program.path("t.safetensors")).expect("reads");
    assert_eq!(metadata["kind"], "text");
    let [cat, dog] = [0, 1].map(|row| &tensors["features"].data[row * 64..(row + 1) * 64]);
    assert_ne!(cat, dog);
    // Rows are lines.
    std::fs::write(program.path("gap.txt"), "a cat\n\na dog\n").expect("writes");
    let encode = ["encode", "-b", "pocket", "--texts", "gap.txt", "-o", "gap.safetensors"];
    program.fail(&encode, 1, &["gap.txt", "line 2 is empty"]);
    assert!(!program.path("gap.safetensors").exists());
}
