//! Feature files: written by `encode`, and as good as the images for every method that needs no more.

use inarch_core::checkpoint::read_safetensors;

use super::Program;
use super::program::sample;

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
}
