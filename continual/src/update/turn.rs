//! Taking turns: whoever puts a version in force holds its place from looking what is in force there to being done.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use inarch_core::file;

use crate::error::{Error, Result};

/// How long a turn is waited for: to put a version together takes seconds, most of them for its memory.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a turn that another has is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// The right to put a version in force at one place, until it is dropped. It is a lock of the operating system on an open
/// file, which a process that dies does not keep; the file itself stays.
#[derive(Debug)]
#[must_use = "the turn is over when it is dropped"]
pub struct Turn {
    _file: File,
}

impl Turn {
    /// Waits for the turn at `target`, which whoever locks the file at `path` has. The file and its folder are made.
    ///
    /// # Errors
    /// [`Error::Refused`] where another process has it for a minute; a file that cannot be written or locked.
    pub fn wait(path: &Path, target: &str) -> Result<Self> {
        Self::within(PATIENCE, path, target)
    }

    fn within(patience: Duration, path: &Path, target: &str) -> Result<Self> {
        if let Some(folder) = path.parent() {
            file::create_folder(folder)?;
        }
        let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = options.map_err(inarch_core::Error::io("open", path))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                // A file system without locks, as some network ones are, must not be without updates.
                Err(TryLockError::Error(error)) if is_without_locks(&error) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(inarch_core::Error::io("lock", path)(error).into()),
                Err(TryLockError::WouldBlock) if started.elapsed() >= patience => {
                    return Err(Error::Refused(format!(
                        "another process is putting a version in force at `{target}`; run the command again when it is done"
                    )));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// Whether a file system has no locks, or those of a network one have no service.
fn is_without_locks(error: &std::io::Error) -> bool {
    // ENOLCK has no kind of its own.
    let no_service = if cfg!(target_vendor = "apple") { 77 } else { 37 };
    error.kind() == ErrorKind::Unsupported || (cfg!(unix) && error.raw_os_error() == Some(no_service))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::{PAUSE, Turn, is_without_locks};
    use crate::error::Error;

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_without_locks_are_told_from_failing_ones() {
        let of = std::io::Error::from_raw_os_error;
        // EOPNOTSUPP and ENOLCK, then EIO and EACCES.
        assert_eq!([95, 37, 5, 13].map(|code| is_without_locks(&of(code))), [true, true, false, false]);
    }

    #[test]
    fn a_turn_is_waited_for_and_refused_when_it_does_not_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line/.lock");
        let first = Turn::within(Duration::ZERO, &path, "line").unwrap();
        match Turn::within(2 * PAUSE, &path, "line") {
            Err(Error::Refused(said)) => assert!(said.contains("`line`") && said.contains("again"), "{said}"),
            other => panic!("two have the turn: {other:?}"),
        }
        // Another place has its own.
        drop(Turn::within(Duration::ZERO, &folder.path().join("other/.lock"), "other").unwrap());

        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                let turn = Turn::wait(&path, "line").unwrap();
                (is_over.load(Ordering::SeqCst), turn)
            });
            std::thread::sleep(3 * PAUSE);
            is_over.store(true, Ordering::SeqCst);
            drop(first);
            let (was_over, _turn) = next.join().unwrap();
            assert!(was_over, "the turn was had before the one before was over");
        });
        // What a process leaves that died is a file that nobody has locked.
        assert!(path.is_file());
        drop(Turn::within(Duration::ZERO, &path, "line").unwrap());
    }
}
