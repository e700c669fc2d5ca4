//! Several findings an image.

use super::{Program, halves, share};
use crate::support::fixture;

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
    program.fail(
        &["pretrain", "-b", "pocket", "-d", "findings.csv", "-o", "pairs"],
        1,
        &["a caption", "one label each"],
    );
    program.fail(&["memory", "add", "ward", "-b", "pocket", "-d", "findings.csv"], 1, &["a memory", "one label each"]);
}

#[test]
fn a_finding_that_is_seen_beside_another_only_is_learned_without_words_too() {
    let program = Program::new();
    let mut rows = String::from("path,label,split\n");
    for number in 0..12u32 {
        let path = format!("images/{number}.png");
        let right = number % 3 == 0;
        halves(&program, &path, number % 3 < 2, right, number);
        let findings = ["mass;fluid", "mass", ""][number as usize % 3];
        rows.push_str(&format!("{path},{findings},{}\n", if number < 9 { "train" } else { "test" }));
    }
    std::fs::write(program.path("findings.csv"), rows).expect("writes");
    let backbone = fixture("parity/families/vit").display().to_string();
    let fit = ["fit", "-b", &backbone, "-d", "findings.csv", "-m", "linear-probe", "-o", "out"];
    program.succeed(&[&fit[..], &["--set", "train.budget={ iterations = 2 }"]].concat());
}
