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
    part(&program, "ward/photos", &["hat", "shoes"], 0, 6);
    let shown = program.json(&["backbone", "show", "pocket"]);
    let pocket = Path::new(shown["path"].as_str().expect("a path"));
    std::fs::create_dir_all(program.path("ward/mine")).expect("a writable folder");
    for file in inarch_core::file::list(pocket).expect("a folder") {
        std::fs::copy(&file, program.path("ward/mine").join(file.file_name().expect("a name"))).expect("copied");
    }
    let fit = ["fit", "-b", "mine", "-d", "photos", "-m", "linear-probe", "--set", "train.budget={ iterations = 2 }"];
    succeed_in(&program, "ward", &[&fit[..], &["-o", "runs/one"]].concat());
    let written = recipe(&program, "ward/runs/one");
    assert!(written.contains("data = \"../../photos\"") && written.contains("backbone = \"../../mine\""), "{written}");
    assert!(!written.contains(&program.folder().display().to_string()), "{written}");

    let bytes = |run: &str| adapter_bytes(&program.path(run))[0].clone();
    succeed_in(&program, "else/where", &["fit", "../../ward/runs/one/recipe.toml", "-o", "two"]);
    assert!(bytes("else/where/two") == bytes("ward/runs/one"));
    assert!(recipe(&program, "else/where/two").contains("data = \"../../../ward/photos\""));
    // The folder that it lies in is as good as any other place.
    succeed_in(&program, "ward/runs/one", &["fit", "recipe.toml", "-o", "../three"]);
    assert!(bytes("ward/runs/three") == bytes("ward/runs/one") && recipe(&program, "ward/runs/three") == written);
    std::fs::rename(program.path("ward"), program.path("moved")).expect("a writable folder");
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

#[test]
fn what_is_published_does_not_say_where_its_data_lay() {
    let program = Program::new();
    let photos = part(&program, "photos", &["hat", "shoes"], 0, 6);
    let image = inarch_core::file::list(&Path::new(&photos).join("train/hat")).expect("a folder")[0].clone();
    std::fs::write(image.with_file_name("broken.jpg"), "no image").expect("a writable folder");
    let fit = ["fit", "-b", "pocket", "-d", &photos, "-m", "linear-probe", "--on-bad-image", "skip", "-o", "run"];
    let short = ["--set", "train.budget={ iterations = 2 }", "--publish", "shop"];
    program.succeed(&[&fit[..], &short].concat());
    assert!(recipe(&program, "run").contains(&photos), "what was given in full stays so: {}", recipe(&program, "run"));

    let shown = program.json(&["registry", "checkout", "shop"]);
    let folder = Path::new(shown["folder"].as_str().expect("a path"));
    let place = program.folder().display().to_string();
    let files = inarch_core::file::list(folder).expect("a folder");
    assert!(files.len() >= 5, "{files:?}");
    for path in &files {
        let text = String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned();
        assert!(!text.contains(&place), "{}", path.display());
    }
    let report = std::fs::read_to_string(folder.join("report.json")).expect("a report");
    assert!(report.contains("train/hat/broken.jpg"), "{report}");
    // With data it makes its adapter again.
    let published = folder.join("recipe.toml").display().to_string();
    program.fail(&["fit", &published, "-o", "again"], 2, &["no data set is given", "-d"]);
    program.succeed(&["fit", &published, "-d", "photos", "-o", "again"]);
    assert!(adapter_bytes(&program.path("again"))[0] == adapter_bytes(&program.path("run"))[0]);
}
