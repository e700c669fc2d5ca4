//! A folder that appears when all of it is there.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file;

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
