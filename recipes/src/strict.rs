//! Tables of settings, read strictly: what is wrong is shown at its place.

use serde::de::DeserializeOwned;
use toml::Table;

use crate::error::Result;
use crate::recipe::fault;

/// Reads a table strictly; through text, so that messages show the setting or section that is at fault.
pub(crate) fn read_table<T: DeserializeOwned>(table: &Table, origin: &str) -> Result<T> {
    let text = toml::to_string(table).map_err(|error| fault(origin, error.to_string()))?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        // The line's number would mislead: it counts in the merged layers, not in the file that the user wrote.
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).and_then(|before| text.lines().nth(before.matches('\n').count()));
        let message = in_words(error.message());
        let Some(line) = line.map(str::trim).filter(|_| error.span().is_some()) else { return fault(origin, message) };
        match setting_at_fault::<T>(table, line, error.message()) {
            Some(setting) => fault(origin, format!("{message}, at `{setting}` of `{line}`")),
            None => fault(origin, format!("{message}, at `{line}`")),
        }
    })
}

/// Types of numbers as their readers call them.
fn in_words(message: &str) -> String {
    let types = [
        ("usize", "a whole number from 0 on"),
        ("u64", "a whole number from 0 on"),
        ("f64", "a number"),
        ("f32", "a number"),
    ];
    types.iter().fold(message.to_string(), |text, (own, word)| {
        text.replace(&format!("expected {own}"), &format!("expected {word}"))
    })
}

/// The setting that is at fault where the parser names its section alone: the one without which the fault is gone.
fn setting_at_fault<T: DeserializeOwned>(table: &Table, line: &str, message: &str) -> Option<String> {
    let section = line.strip_prefix('[')?.strip_suffix(']')?;
    let found = section.split('.').try_fold(table, |table, key| table.get(key)?.as_table())?;
    // Without its name a section is none.
    found.keys().filter(|key| *key != "name").find_map(|key| {
        let mut without = table.clone();
        let mut inner = &mut without;
        for part in section.split('.') {
            inner = inner.get_mut(part)?.as_table_mut()?;
        }
        let value = inner.remove(key)?;
        let text = toml::to_string(&without).ok()?;
        let remains = toml::from_str::<T>(&text).is_err_and(|error| error.message() == message);
        (!remains).then(|| format!("{key} = {value}"))
    })
}
