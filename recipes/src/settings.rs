//! Settings as tables of TOML: read strictly, set one by one, merged.

use serde::Serialize;
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Reads a table strictly; through text, so that messages show the setting or section that is at fault.
pub(crate) fn read_table<T: serde::de::DeserializeOwned>(table: &Table, origin: &str) -> Result<T> {
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
fn setting_at_fault<T: serde::de::DeserializeOwned>(table: &Table, line: &str, message: &str) -> Option<String> {
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

/// Reads a table strictly over `defaults`: a section that says some of its settings keeps the others of the defaults, which may
/// differ from those of its type.
///
/// # Errors
/// An unknown or missing key, or a value of the wrong type, with its place.
pub fn read_over<T: serde::de::DeserializeOwned>(defaults: &impl Serialize, table: Table, origin: &str) -> Result<T> {
    let mut merged = Table::try_from(defaults).map_err(|error| fault(origin, error.to_string()))?;
    merge(&mut merged, table);
    read_table(&merged, origin)
}

/// Applies `path.to.key=value` to a table, as `--set` does.
///
/// # Errors
/// No `=`, or a path through something that is not a table.
pub fn set_in(table: &mut Table, assignment: &str) -> Result<()> {
    set(table, assignment)
}

/// Applies `path.to.key=value`.
pub(crate) fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let origin = format!("--set {assignment}");
    let (path, value) = assignment.split_once('=').ok_or_else(|| fault(&origin, "expected `key=value`".into()))?;
    let value = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut table = table;
    for key in keys {
        let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| fault(&origin, format!("`{key}` is a value, not a section")))?;
    }
    table.insert(last.to_string(), value);
    Ok(())
}

/// Reads TOML; `origin` is what an error names.
pub(crate) fn parse(text: &str, origin: &str) -> Result<Table> {
    toml::from_str(text).map_err(|error| fault(origin, error.to_string()))
}

/// What is wrong with the settings of `origin`.
pub(crate) fn fault(origin: &str, reason: String) -> Error {
    Error::Recipe { origin: origin.into(), reason: reason.trim_end().into() }
}

/// Tables merge key by key; everything else is replaced. A section whose `name` changes is replaced as a whole, since
/// the settings of another method or optimizer mean nothing to it, and so is a section of one key, such as a budget,
/// by another one.
pub(crate) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                let renamed = new.get("name").is_some_and(|name| old.get("name") != Some(name));
                let other_choice = old.len() == 1 && new.len() == 1 && old.keys().ne(new.keys());
                if renamed || other_choice {
                    *old = new;
                } else {
                    merge(old, new);
                }
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
