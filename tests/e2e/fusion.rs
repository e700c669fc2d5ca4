//! A learned mixture of trained adapters, which stand still.

use inarch_core::checkpoint::read_safetensors;
use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};

#[test]
fn trained_adapters_are_mixed_and_stand_still() {
    let program = Program::new();
    program.succeed(&short_fit("lora", "1", "a"));
    program.succeed(&short_fit("houlsby", "2", "b"));
    let fit = ["fit", "-b", "pocket", "-d", sample(), "-m", "fusion", "--shots", "2", "--seed", "1"];
    let settings = ["--set", r#"method.sources=["a", "b"]"#, "--set", "train.budget={ iterations = 3 }"];
    let found = program.json(&[&fit[..], &settings, &["-o", "fused"]].concat());
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(program.path("fused/adapter.json")).expect("a file")).expect("JSON");
    let names: Vec<&str> = manifest["method"]["members"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["lora", "houlsby"], "what is mixed is recorded");
    let tensors =
        |folder: &str| read_safetensors(&program.path(folder).join("adapter.safetensors")).expect("tensors").0;
    let fused = tensors("fused");
    let trained: usize =
        fused.iter().filter(|(name, _)| !name.starts_with("fixed.")).map(|(_, tensor)| tensor.data.len()).sum();
    assert_eq!(manifest["parameters"].as_u64(), Some(trained as u64));
    for (index, (folder, variant)) in [("a", "Lora"), ("b", "Houlsby")].into_iter().enumerate() {
        for (name, tensor) in tensors(folder) {
            assert_eq!(fused[&format!("fixed.{index}.{variant}.{name}")].data, tensor.data, "{folder} {name}");
        }
    }
    assert!(fused["image"].data.iter().any(|value| *value != 0.0), "the mixture was not trained");
    let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "fused"]);
    assert_eq!(found["runs"][0]["accuracy"], eval["accuracy"]);
    // The sources may go; the recipe makes it again while they are there.
    program.succeed(&["fit", "fused/recipe.toml", "-o", "again"]);
    let bytes = |folder: &str| std::fs::read(program.path(folder).join("adapter.safetensors")).expect("an adapter");
    assert!(bytes("fused") == bytes("again"));
    std::fs::remove_dir_all(program.path("a")).expect("a folder");
    program.succeed(&["eval", "-b", "pocket", "-d", sample(), "-a", "again"]);

    program.fail(&[&fit[..], &settings, &["-o", "x"]].concat(), 1, &["adapter.json"]);
    program.succeed(&short_fit("linear-probe", "1", "probe"));
    let settings = ["--set", r#"method.sources=["b", "probe"]"#, "-o", "x"];
    program.fail(&[&fit[..], &settings].concat(), 2, &["linear-probe", "row for each class"]);
    let settings = ["--set", r#"method.members=[{ name = "lora" }, { name = "coop" }]"#, "-o", "x"];
    program.fail(&[&fit[..], &settings].concat(), 2, &["coop", "mixed"]);
}
