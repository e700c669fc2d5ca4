//! Patients are in one split each.

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
