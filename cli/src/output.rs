//! Results on stdout: text for people, or one JSON object.

use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use inarch_core::image::BadImage;
use serde::Serialize;

use crate::error::CommandError;

/// Where results go.
pub(crate) struct Output {
    json: bool,
    /// Why a result did not get there; [`finish`](Self::finish) tells.
    fault: OnceLock<io::Error>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, fault: OnceLock::new() }
    }

    /// Prints the result of a command, as JSON or as the text that `text` makes.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let print = || -> io::Result<()> {
            let line = if self.json { serde_json::to_string(value)? } else { text() };
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{}", line.trim_end())?;
            stdout.flush()
        };
        if let Err(error) = print() {
            // The first cause is the one to tell.
            let _ = self.fault.set(error);
        }
    }

    /// Ends the output: a result that could not be printed is a fault, though the work behind it is done.
    ///
    /// # Errors
    /// A failed command, with the cause.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        self.fault.into_inner().map_or(Ok(()), |cause| printed(Err(cause)))
    }
}

/// What became of a write to stdout. A closed pipe (`inarch .. | head`) is no fault of ours.
///
/// # Errors
/// A failed command, with the cause.
pub(crate) fn printed(written: io::Result<()>) -> Result<(), CommandError> {
    match written {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(CommandError::failed(
            format!("cannot write to stdout: {cause}"),
            "only the result could not be printed; files that the command writes are whole",
        )),
        _ => Ok(()),
    }
}

/// Columns that line up; the first is left-aligned, the others right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            if column == 0 {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A word of a command that is printed to be copied, in quotes where a shell would split or change it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./@:+,%=".contains(character);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Names of images that could not be read.
pub(crate) fn names_of(bad: &[BadImage]) -> Vec<String> {
    bad.iter().map(|bad| bad.path.display().to_string()).collect()
}

/// A line for each file that could not be read.
pub(crate) fn unread(skipped: &[String]) -> String {
    skipped.iter().map(|skipped| format!("{skipped}: could not be read\n")).collect()
}

/// An accuracy as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_what_a_shell_would_change_is_quoted() {
        for (word, expected) in [
            ("runs/pocket-größe@1", "runs/pocket-größe@1"),
            ("my photos", "'my photos'"),
            ("scan.dcm#3", "'scan.dcm#3'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
