//! The only place that touches the file system: every error names the path, every write is whole or absent.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// Reads a whole UTF-8 file.
///
/// # Errors
/// [`Error::Io`] naming the path, also when the bytes are not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::Io`], or [`Error::Malformed`] with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path, format: &'static str) -> Result<T> {
    serde_json::from_slice(&read(path)?).map_err(|error| Error::malformed(format, path, error))
}

/// Writes a file through a temporary sibling and a rename, so that a killed process or a full disk leaves either the
/// old file or the new one. Missing parent folders are made.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(folder)?;
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".inarch-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(Error::io("write", path))
}

/// Writes a value as indented JSON with a closing newline, whole or not at all.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::malformed("JSON value", path, error))?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Makes a folder and its parents.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create folder", path))
}

/// The entries of a folder in name order.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn list(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(path).map_err(Error::io("list", path))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list", path)))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Gives a file or folder another name, on the same file system.
///
/// # Errors
/// [`Error::Io`] naming the old path.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Removes a file.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Removes a folder and all it holds.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn remove_folder(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(Error::io("remove", path))
}
