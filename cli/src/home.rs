//! Where state lives: `INARCH_HOME`, or the platform's data directory.

use std::path::PathBuf;

use crate::error::CommandError;

/// The folder of all state of this program.
///
/// # Errors
/// Neither the variable nor a home directory exists.
pub(crate) fn home() -> Result<PathBuf, CommandError> {
    if let Some(home) = std::env::var_os("INARCH_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    directories::ProjectDirs::from("", "", "inarch").map(|dirs| dirs.data_dir().to_path_buf()).ok_or_else(|| {
        CommandError::usage("no home directory was found", "set INARCH_HOME to a folder this program may write to")
    })
}

/// The folder of frozen image features.
///
/// # Errors
/// As [`home`].
pub(crate) fn features() -> Result<PathBuf, CommandError> {
    Ok(home()?.join("features"))
}
