//! A folder that appears when all of it is there, and class folders in it.

use std::path::Path;

use super::dataset::Dataset;
use crate::error::{Error, Result};
use crate::file;

impl Dataset {
    /// Checks that every class can name a folder, for what writes class folders.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the class.
    pub fn need_folder_names(&self) -> Result<()> {
        let Some(class) = self.classes.iter().find(|class| !names_folder(class)) else { return Ok(()) };
        let reason = format!("class `{class}` cannot name a folder; rename it: no `/`, and no dot at its beginning");
        Err(Error::invalid(format!("data set `{}`", self.name), reason))
    }
}

/// Whether a class can name a folder: one folder, within another, that is not passed over as hidden.
pub(super) fn names_folder(class: &str) -> bool {
    !class.is_empty() && !class.starts_with('.') && !class.contains(['/', '\\', '\0'])
}

/// Refuses a target that exists; what takes long is not begun for it.
pub(super) fn check_absent(target: &Path) -> Result<()> {
    if target.exists() {
        let reason = "it exists; name a folder that does not, or remove it";
        return Err(Error::invalid(format!("folder `{}`", target.display()), reason));
    }
    Ok(())
}

/// Lets `fill` write into a hidden folder beside `target`, which then takes its place; nothing is left when it fails.
pub(super) fn fresh_folder<T>(target: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    check_absent(target)?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    file::create_folder(parent)?;
    let partial = tempfile::Builder::new().prefix(".inarch-data-").tempdir_in(parent);
    let partial = partial.map_err(Error::io("create folder in", parent))?;
    let found = fill(partial.path())?;
    let partial = partial.keep();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&partial, permissions).map_err(Error::io("write", target))?;
    }
    let renamed = std::fs::rename(&partial, target).map_err(Error::io("write", target));
    if renamed.is_err() {
        file::remove_folder(&partial)?;
    }
    renamed.map(|()| found)
}
