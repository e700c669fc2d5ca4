//! The only place that touches the file system: every error names the path, every write is whole or absent.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

/// A file that is read in pieces, so that it need not fit into memory beside what is made of it. It stays the same file when
/// another takes its name.
pub struct Pieces {
    file: fs::File,
    path: PathBuf,
    length: u64,
}

impl Pieces {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = fs::File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(Error::io("read", path))?;
        Ok(Self { file, path: path.to_path_buf(), length })
    }

    /// Bytes of the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `bytes` from byte `from` on.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path, also when the file ends before.
    pub fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.read_exact(bytes));
        read.map_err(Error::io("read", &self.path))
    }
}

/// Refuses a path where something stands that is no file: a folder, a device, a pipe, a socket. [`write()`] would put a file
/// in its place; who works long before writing asks first.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn check_target(path: &Path) -> Result<()> {
    // What is not there, or cannot be looked at, is for the writing itself to find.
    let Ok(about) = fs::metadata(path) else { return Ok(()) };
    if about.is_file() {
        return Ok(());
    }
    let reason = match about.is_dir() {
        true => "it is a folder; name a file",
        false => "it exists and is no regular file; name another",
    };
    Err(Error::io("write", path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason)))
}

/// Writes a file through a temporary sibling and a rename, so that a killed process or a full disk leaves either the
/// old file or the new one. Missing parent folders are made.
///
/// # Errors
/// [`Error::Io`] naming the path, also for what [`check_target`] refuses.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    check_target(path)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(folder)?;
    let attempt = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".inarch-");
        // Whoever may read other files of this user may read this one; the system takes off what its mask forbids.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // So that the name outlives a loss of power too; file systems that cannot do this for folders lose no contents.
        #[cfg(unix)]
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
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
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).map_err(Error::io("list", path))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list", path)))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// When a file was last changed or [touched](touch), and its bytes.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn age_and_bytes(path: &Path) -> Result<(SystemTime, u64)> {
    let about = fs::metadata(path).map_err(Error::io("read", path))?;
    Ok((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len()))
}

/// Says that a file is of use now.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn touch(path: &Path) -> Result<()> {
    let touch = || fs::File::open(path)?.set_modified(SystemTime::now());
    touch().map_err(Error::io("touch", path))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{check_target, read, write};

    #[track_caller]
    fn refused(path: &Path, words: &str) {
        let name = path.file_name().unwrap().to_string_lossy();
        for outcome in [check_target(path), write(path, b"new")] {
            let message = outcome.unwrap_err().to_string();
            assert!(message.contains(&*name) && message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_file_is_replaced_and_parents_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        for bytes in [&b"one"[..], b"two"] {
            write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_folder_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        refused(&path, "is a folder");
        assert!(path.is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_not_replaced_nor_what_a_link_to_it_names() {
        use std::os::unix::fs::{FileTypeExt as _, symlink};
        use std::os::unix::net::UnixListener;

        let folder = tempfile::tempdir().unwrap();
        let (socket, link) = (folder.path().join("socket"), folder.path().join("link"));
        let listener = UnixListener::bind(&socket).unwrap();
        symlink(&socket, &link).unwrap();
        refused(&socket, "no regular file");
        refused(&link, "no regular file");
        assert!(socket.symlink_metadata().unwrap().file_type().is_socket());
        assert!(link.symlink_metadata().unwrap().is_symlink());
        drop(listener);
    }
}
