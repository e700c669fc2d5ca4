//! Patients are in one split each.

use serde_json::Value;

use super::{Program, halves};

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
fn an_adapter_is_tested_on_patients_that_it_was_not_fitted_on() {
    let program = Program::new();
    for number in 0..60u32 {
        let (class, patient) = (["clear", "nodule"][number as usize % 2], number / 6);
        let path = format!("scans/{class}/p{patient}_{number}.png");
        halves(&program, &path, class == "nodule", false, number);
    }
    let groups = ["--group-by", "(p[0-9]+)_"];
    let budget = "train.budget={ iterations = 3 }";
    let fit = ["fit", "-b", "pocket", "-d", "scans", "-m", "linear-probe", "--set", budget, "-o"];
    program.succeed(&[&fit[..], &["run"], &groups].concat());
    let eval = |more: &[&str]| {
        let found = program.json(&[&["eval", "-b", "pocket", "-d", "scans"][..], more].concat());
        ["n", "resampled_groups", "accuracy", "auroc"].map(|key| found[key].clone())
    };
    let told = eval(&[&["-a", "run"][..], &groups].concat());
    assert!(told[1].is_u64(), "{told:?}");
    assert_eq!(eval(&["-a", "run"]), told);
    // Nobody can know for an adapter without a pattern; in a file of features the patients are the same.
    program.succeed(&[&fit[..], &["probe"]].concat());
    assert_eq!(eval(&["-a", "probe"])[1], Value::Null);
    program.succeed(&["encode", "-b", "pocket", "-a", "run", "--images", "scans", "-o", "f.safetensors"]);
    let file = inarch_core::data::FeatureFile::read(&program.path("f.safetensors")).expect("features");
    let splits = file.splits.expect("splits");
    let tested = splits.iter().filter(|split| **split == inarch_core::data::Split::Test).count();
    assert_eq!(Some(tested as u64), told[0].as_u64());
    let corrupt = ["corrupt", "-d", "scans", "-o", "damaged", "--kind", "clean"];
    assert_eq!(program.json(&[&corrupt[..], &groups].concat())["copies"][0]["images"], told[0]);
}

#[test]
fn an_update_and_a_stream_hold_out_whole_patients() {
    const CLASSES: [&str; 4] = ["clear", "left", "right", "both"];
    let program = Program::new();
    for number in 0..60u32 {
        let path = format!("scans/{}/p{}_{number}.png", CLASSES[number as usize % 4], number / 6);
        halves(&program, &path, number % 2 == 1, number / 2 % 2 == 1, number);
    }
    let groups = ["--group-by", "(p[0-9]+)_"];
    let parts = program.json(&[&["data", "split", "-d", "scans", "-o", "splits.csv"][..], &groups].concat());
    let counts = CLASSES.iter().filter_map(|class| parts["examples"]["test"][*class].as_u64());
    let held_out: u64 = counts.sum();
    assert!(held_out >= 6 && held_out.is_multiple_of(6), "{parts}");
    let update = ["update", "ward", "--init", "simple-cil", "-b", "pocket", "-d", "scans"];
    let made = program.json(&[&update[..], &groups].concat());
    assert_eq!((made["held_out"].as_u64(), made["learned"].as_u64()), (Some(held_out), Some(60 - held_out)));
    let shown = program.json(&["memory", "show", "ward", "--samples"]);
    let patients: std::collections::BTreeSet<&str> = shown["ids"]
        .as_array()
        .expect("samples")
        .iter()
        .filter_map(|sample| sample["id"].as_str()?.rsplit_once('/')?.1.split('_').next())
        .collect();
    assert_eq!(6 * patients.len() as u64, 60 - held_out, "{patients:?}: each is learned from as a whole");
    let stream = ["stream", "-b", "pocket", "-d", "scans", "-s", "simple-cil", "--seeds", "1", "-o", "stream"];
    program.succeed(&[&stream[..], &["--set", "stream.experiences=2"], &groups].concat());
    let written = std::fs::read_to_string(program.path("stream/recipe.toml")).expect("a recipe");
    assert!(written.contains("group_by = \"(p[0-9]+)_\""), "{written}");
    program.fail(
        &[&stream[..9], &["--set", "stream.experiences=2", "--group-by", "(q)_", "-o", "x"]].concat(),
        1,
        &["(q)_"],
    );
}
