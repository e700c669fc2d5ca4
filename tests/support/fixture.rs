//! Files that the tests read, and copies of them to be damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inarch_core::backbone::StateDict;
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use serde_json::Value;
use tempfile::TempDir;

/// A file or folder below `tests/`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "the fixture `{}` is part of the repository and is not there", path.display());
    path
}

/// The folder with real data: `INARCH_TEST_DATA`, or `../shared/data` beside the workspace.
pub(crate) fn data_folder() -> PathBuf {
    let named = std::env::var_os("INARCH_TEST_DATA").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    assert!(
        folder.is_dir(),
        "the test data is not at `{}`: set INARCH_TEST_DATA to the folder that holds `text/tokenizer.json`",
        folder.display()
    );
    folder
}

/// A copy of all files of a folder.
pub(crate) fn copied(source: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for path in inarch_core::file::list(&fixture(source)).expect("a folder of files") {
        let name = path.file_name().expect("a listed file has a name");
        std::fs::copy(&path, folder.path().join(name)).expect("a file that can be copied");
    }
    folder
}

/// Changes the tensors of a safetensors file.
pub(crate) fn edit_tensors(path: &Path, edit: impl FnOnce(&mut StateDict)) {
    let (mut tensors, metadata) = read_safetensors(path).expect("a valid file");
    edit(&mut tensors);
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    let bytes = encode_safetensors(&tensors, metadata, Precision::F32).expect("valid tensors");
    std::fs::write(path, bytes).expect("a writable file");
}

/// Changes a JSON file.
pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let mut value = serde_json::from_str(&text).expect("JSON");
    edit(&mut value);
    std::fs::write(path, value.to_string()).expect("a writable file");
}
