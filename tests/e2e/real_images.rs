//! On real images of a domain that the backbone has never seen, each method beats zero-shot.

use super::Program;
use crate::support::data_folder;

#[test]
fn every_method_beats_zero_shot_on_clothing() {
    let program = Program::new();
    let data = data_folder().join("clothing").display().to_string();
    for method in ["linear-probe", "coop", "lora"] {
        let mut arguments =
            vec!["fit", "-b", "pocket", "-d", &data, "-m", method, "--shots", "16", "--seed", "1", "-o", method];
        if method == "lora" {
            // A third of the preset's budget, to keep the suite short.
            arguments.extend(["--set", "train.budget={ iterations_per_shot = 15 }"]);
        }
        let fit = program.json(&arguments);
        let (zero_shot, adapted) = (
            fit["zero_shot_accuracy"].as_f64().expect("a number"),
            fit["accuracy"]["mean"].as_f64().expect("a number"),
        );
        assert!(adapted > zero_shot + 0.01, "{method}: {adapted} against zero-shot {zero_shot}");
    }
}
