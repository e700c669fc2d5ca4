//! The one test binary: every folder and file of tests is a module of it.

mod continual;
mod contract;
mod docs;
mod e2e;
mod parity;
mod serve;
mod sites;
mod support;

use std::path::Path;

/// Fails for a folder or file of tests that is not part of this binary and would silently never run.
#[test]
fn no_test_file_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut forgotten = Vec::new();
    check(root, &root.join("runner.rs"), &mut forgotten);
    assert!(forgotten.is_empty(), "these files are in no module list: {forgotten:#?}");
}

/// Compares the entries of `folder` with the modules that `list` declares, and goes on into them.
fn check(folder: &Path, list: &Path, forgotten: &mut Vec<String>) {
    let text = std::fs::read_to_string(list).expect("a module list");
    for path in inarch_core::file::list(folder).expect("a folder of the repository") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let module = path.join("mod.rs");
        // The binary under test is a crate of its own.
        if path == *list || path == folder.join("src") || !(is_rust || module.is_file()) {
            continue;
        }
        if !text.lines().any(|line| line.trim_start_matches("pub(crate) ") == format!("mod {name};")) {
            forgotten.push(path.display().to_string());
        }
        if module.is_file() {
            check(&path, &module, forgotten);
        }
    }
}
