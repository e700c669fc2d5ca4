//! Convolutional image towers: an adapter inside of one is fitted from the block that it enters.

use super::Program;
use super::program::{adapter_bytes, sample};
use crate::support::fixture;

/// LoRA in one block under a classifier.
const MEMBERS: &str = "method.members=[{ name = \"lora\", rank = 2, targets = [\"image.trunk.blocks.3.*\"] }, \
                       { name = \"linear-head\" }]";

fn fit<'a>(backbone: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    // These text towers have room for few tokens.
    let settings = ["--set", MEMBERS, "--set", "train.budget={ iterations = 4 }", "--set", "templates=\"{}\""];
    let start = ["fit", "-b", backbone, "-d", sample(), "-m", "stack", "--shots", "2", "-o", output];
    [&start[..], &settings, more].concat()
}

#[test]
fn an_adapter_inside_a_trunk_is_fitted_from_where_it_enters() {
    // Blocks of the trunk, and values of the map that enters its fourth: 8 x 8 places of so many channels.
    for (family, blocks, values) in [("align", 7, 8 * 8 * 8), ("resnet", 5, 8 * 8 * 32)] {
        let program = Program::new();
        let backbone = fixture(&format!("parity/families/{family}")).display().to_string();
        let plan = program.json(&fit(&backbone, "one", &["--set", "views=1", "--explain"]));
        assert_eq!(plan["image"]["entry"], "block 3 of the trunk", "{family}");
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("a number in {plan}"));
        assert_eq!([number(&plan["image"]["blocks_run"]), number(&plan["image"]["blocks"])], [blocks - 3, blocks]);
        assert_eq!((number(&plan["stored_images"]), number(&plan["stored_bytes"])), (20, 20 * values * 4), "{family}");
        assert!(number(&plan["activation_bytes"]) > 0 && number(&plan["naive_step"]) > number(&plan["step"]), "{plan}");

        let found = program.json(&fit(&backbone, "one", &["--set", "views=1"]));
        program.succeed(&fit(&backbone, "two", &["--set", "views=1"]));
        assert!(adapter_bytes(&program.path("one")) == adapter_bytes(&program.path("two")), "{family}");
        let eval = program.json(&["eval", "-b", &backbone, "-d", sample(), "-a", "one"]);
        assert_eq!(eval["accuracy"], found["runs"][0]["accuracy"], "{family}");
        // Fresh views run the whole trunk in every step.
        program.succeed(&fit(&backbone, "fresh", &["--set", "views=0"]));
    }
}
