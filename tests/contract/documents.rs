//! What the documents say of methods and figures is what the program has.

use std::path::Path;

use inarch_peft::METHODS;
use inarch_recipes::test_time::TEST_TIME_METHODS;

fn document(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path)
}

/// The part of a document below a heading, up to the next one of its kind.
fn section(path: &str, heading: &str) -> String {
    let text = document(path);
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{path}: {heading}"));
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_guide_lists_every_method() {
    let listed = section("docs/guide.md", "Methods");
    let missing: Vec<_> = METHODS.iter().filter(|name| !listed.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/guide.md does not list {missing:?}");
}

/// A row need not count what it speaks of; one that does counts right.
#[test]
fn the_readme_counts_right() {
    let text = section("README.md", "What is here");
    for (name, count) in [("methods", METHODS.len()), ("at test time", TEST_TIME_METHODS.len())] {
        let row = text.lines().map(cells).find(|row| row[0] == name).unwrap_or_else(|| panic!("a row `{name}`"));
        let first = row[1].split([' ', ',']).next().unwrap_or_default();
        if let Ok(said) = first.parse::<usize>() {
            assert_eq!(said, count, "README.md, `{name}`");
        }
    }
}

#[test]
fn the_readme_has_the_figures_of_the_benchmarks() {
    let runs = section("docs/benchmarks.md", "Three methods on clothing");
    let all = section("docs/benchmarks.md", "Every method on clothing");
    let figures = section("README.md", "Figures");
    let rows: Vec<_> = figures.lines().filter(|line| line.contains(" % |")).map(cells).collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let (name, accuracy, trained) = (row[0], row[1], row[2].replace(',', ""));
        let run = runs.lines().map(cells).find(|run| run[0] == name).unwrap_or_else(|| panic!("no row `{name}`"));
        assert!(run.contains(&accuracy), "{name}: {accuracy} in README.md, {run:?} in docs/benchmarks.md");
        let plain = name.trim_matches('`');
        let run = all.lines().map(cells).find(|run| run[0] == plain).unwrap_or_else(|| panic!("no row `{plain}`"));
        assert!(run.contains(&trained.as_str()), "{name}: {trained} in README.md, {run:?} in docs/benchmarks.md");
    }
}
