//! A recipe's paths lead from its folder, from wherever it is given.

use std::path::Path;

use super::Program;
use super::program::adapter_bytes;
use super::update::part;

/// Runs from a folder inside the program's.
#[track_caller]
fn succeed_in(program: &Program, folder: &str, arguments: &[&str]) {
    std::fs::create_dir_all(program.path(folder)).expect("a writable folder");
    let output = program.command(arguments).current_dir(program.path(folder)).output().expect("the binary starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn recipe(program: &Program, run: &str) -> String {
    std::fs::read_to_string(program.path(run).join("recipe.toml")).expect("a recipe")
}

#[test]
fn a_written_recipe_works_from_anywhere_and_moves_with_its_data() {
    let program = Program::new();
    part(&program, "work/photos", &["hat", "shoes"], 0, 6);
    let shown = program.json(&["backbone", "show", "pocket"]);
    let pocket = Path::new(shown["path"].as_str().expect("a path"));
    std::fs::create_dir_all(program.path("work/mine")).expect("a writable folder");
    for file in inarch_core::file::list(pocket).expect("a folder") {
        std::fs::copy(&file, program.path("work/mine").join(file.file_name().expect("a name"))).expect("copied");
    }
    let fit = ["fit", "-b", "mine", "-d", "photos", "-m", "linear-probe", "--set", "train.budget={ iterations = 2 }"];
    succeed_in(&program, "work", &[&fit[..], &["-o", "runs/one"]].concat());
    let written = recipe(&program, "work/runs/one");
    assert!(written.contains("data = \"../../photos\"") && written.contains("backbone = \"../../mine\""), "{written}");
    assert!(!written.contains(&program.folder().display().to_string()), "{written}");

    let bytes = |run: &str| adapter_bytes(&program.path(run))[0].clone();
    succeed_in(&program, "else/where", &["fit", "../../work/runs/one/recipe.toml", "-o", "two"]);
    assert!(bytes("else/where/two") == bytes("work/runs/one"));
    assert!(recipe(&program, "else/where/two").contains("data = \"../../../work/photos\""));
    // The folder that it lies in is as good as any other place.
    succeed_in(&program, "work/runs/one", &["fit", "recipe.toml", "-o", "../three"]);
    assert!(bytes("work/runs/three") == bytes("work/runs/one") && recipe(&program, "work/runs/three") == written);
    std::fs::rename(program.path("work"), program.path("moved")).expect("a writable folder");
    program.succeed(&["fit", "moved/runs/one/recipe.toml", "-o", "four"]);
    assert!(bytes("four") == bytes("moved/runs/one"));
    // What the command line says leads from where it is given.
    program.succeed(&["fit", "moved/runs/one/recipe.toml", "-d", "moved/photos", "-o", "five"]);
    assert!(bytes("five") == bytes("four"));
}

#[test]
fn a_path_of_a_recipe_that_leads_nowhere_is_named_as_it_was_looked_for() {
    let program = Program::new();
    part(&program, "photos", &["hat", "shoes"], 0, 6);
    let write = |data: &str| {
        let text = format!("backbone = \"pocket\"\ndata = {data:?}\n[method]\nname = \"linear-probe\"\n");
        inarch_core::file::write(&program.path("kept/recipe.toml"), text.as_bytes()).expect("a writable folder");
    };
    write("../nowhere");
    program.fail(&["fit", "kept/recipe.toml", "-o", "run"], 1, &["kept/../nowhere"]);
    // As recipes of before have it: from where the command is given.
    write("photos");
    program.succeed(&["fit", "kept/recipe.toml", "--set", "train.budget={ iterations = 2 }", "-o", "run"]);
    assert!(recipe(&program, "run").contains("data = \"../photos\""), "{}", recipe(&program, "run"));
}

#[test]
fn the_recipe_of_a_stream_works_from_anywhere() {
    let program = Program::new();
    part(&program, "photos", &["hat", "shoes"], 0, 6);
    let stream = ["stream", "-b", "pocket", "-d", "photos", "-s", "simple-cil", "--seeds", "1"];
    program.succeed(&[&stream[..], &["--set", "stream.experiences=2", "-o", "runs/one"]].concat());
    let written = recipe(&program, "runs/one");
    assert!(written.contains("\"../../photos\"") && written.contains("backbone = \"pocket\""), "{written}");
    succeed_in(&program, "elsewhere", &["stream", "../runs/one/recipe.toml", "-o", "two"]);
    let adapter = "simple-cil/seed-1/after-2/adapter";
    let [one, two] =
        ["runs/one", "elsewhere/two"].map(|run| adapter_bytes(&program.path(run).join(adapter))[0].clone());
    assert!(one == two);
}
