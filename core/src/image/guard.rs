//! What is around every decoder: whatever it does, the outcome is a value or an error, and nothing is told that a file may not tell.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::dicom;
use crate::error::{Error, Result};

thread_local! {
    /// Whether this thread decodes a file of which nothing may be told.
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is decoding a file that may name a patient. A panic is told to the panic hook before it is caught, and its
/// words could quote the file: a hook that prints or logs must say nothing then. The decoders here turn it into an error.
pub fn panics_are_private() -> bool {
    PRIVATE.get()
}

/// Runs a decoder; whatever it does, the outcome is a value or an error that names `origin`.
pub(super) fn guarded<T>(bytes: &[u8], origin: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T> {
    if bytes.is_empty() {
        return Err(bad(origin, "the file is empty"));
    }
    caught(origin, dicom::is_dicom(bytes), work)
}

/// As [`guarded`], without the bytes at hand; of a `silent` file nothing that its decoder says in a panic is told.
pub(super) fn caught<T>(origin: &Path, silent: bool, work: impl FnOnce() -> Result<T, String>) -> Result<T> {
    let outer = PRIVATE.replace(silent || panics_are_private());
    // What a decoder has half-changed is not asked again after a panic.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    PRIVATE.set(outer);
    match outcome {
        Ok(outcome) => outcome.map_err(|reason| bad(origin, reason)),
        // Its words could quote the file.
        Err(_) if silent => Err(bad(origin, "its decoder failed")),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(bad(origin, format!("its decoder failed: {words}")))
        }
    }
}

pub(super) fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadImage { path: path.to_path_buf(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::{caught, panics_are_private};

    #[test]
    fn panic_hooks_are_told_whose_words_they_may_not_print() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (others, told) = (std::panic::take_hook(), Arc::clone(&heard));
        std::panic::set_hook(Box::new(move |panic| match panic.payload().downcast_ref::<&str>() {
            Some(&"Mustermann") => told.lock().unwrap().push(panics_are_private()),
            _ => others(panic),
        }));
        let error = |silent| {
            let outcome = caught::<()>(Path::new("here"), silent, || panic!("Mustermann"));
            outcome.unwrap_err().to_string()
        };
        let [private, open] = [true, false].map(error);
        assert!(!private.contains("Mustermann") && open.contains("Mustermann"), "{private}, {open}");
        assert_eq!((*heard.lock().unwrap()).as_slice(), [true, false]);
        assert!(!panics_are_private());
    }
}
