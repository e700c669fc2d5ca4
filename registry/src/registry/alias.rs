//! Aliases: movable pointers with their history. The last whole line of `aliases/<alias>` is the alias, the lines before
//! it are its past, so the two cannot disagree. A line torn by a crash has a wrong checksum and counts as not written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Registry;
use super::check::Check;
use super::shelf::Shelf;
use super::version::Version;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Alias, Name, Selector};
use crate::oci::GateVerdict;
use crate::store::{Lock, list};

/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 4096;
/// How much of the end is read to find the last line.
const TAIL_BYTES: u64 = 4 * MAX_LINE_BYTES as u64;
/// The longest log that is read whole, in bytes.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// What an alias must be for a change to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// It must not exist.
    Absent,
    /// It must point at this number.
    Is(u64),
}

/// How an alias came to point where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveKind {
    /// It was set.
    Set,
    /// It went back to where it was.
    Rollback,
    /// It was deleted.
    Delete,
}

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasMove {
    /// When, RFC 3339.
    pub at: String,
    /// The number it pointed at before.
    pub from: Option<u64>,
    /// The number it points at now.
    pub to: Option<u64>,
    /// How.
    pub kind: MoveKind,
    /// Why, in the words of whoever moved it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Registry {
    /// Where an alias points.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn alias(&self, name: &Name, alias: &Alias) -> Result<Option<u64>> {
        Ok(self.shelf(name).alias(alias)?.and_then(|last| last.to))
    }

    /// All aliases of an adapter and where they point.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn aliases(&self, name: &Name) -> Result<Vec<(Alias, u64)>> {
        let shelf = self.shelf(name);
        let mut aliases = Vec::new();
        for alias in shelf.alias_names()? {
            if let Some(number) = shelf.alias(&alias)?.and_then(|last| last.to) {
                aliases.push((alias, number));
            }
        }
        Ok(aliases)
    }

    /// All moves of an alias, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn alias_moves(&self, name: &Name, alias: &Alias) -> Result<Vec<AliasMove>> {
        self.shelf(name).moves(alias)
    }

    /// The versions that an alias can go back to, oldest first, ending with where it is. Some may have been removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn alias_past(&self, name: &Name, alias: &Alias) -> Result<Vec<u64>> {
        Ok(self.shelf(name).past(alias)?.into_iter().flatten().collect())
    }

    /// Points an alias at a version, or deletes it, if it is what is expected (compare and set).
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is something else, [`Error::Unknown`] for a version that does not exist.
    pub fn tag(&self, name: &Name, alias: &Alias, to: Option<u64>, expect: Expect, why: &str) -> Result<AliasMove> {
        let kind = if to.is_some() { MoveKind::Set } else { MoveKind::Delete };
        self.move_alias(name, alias, expect, why, |_| Ok((to, kind)))
    }

    /// [`Self::tag`] with a gate: the verdict in the manifest and all checks must agree. Returns the version and the move.
    ///
    /// # Errors
    /// [`Error::Refused`] when one says no.
    pub fn promote(
        &self,
        from: (&Name, &Selector),
        alias: &Alias,
        expect: Expect,
        checks: &[&dyn Check],
        why: &str,
    ) -> Result<(Version, AliasMove)> {
        let (name, selector) = from;
        let version = self.version(name, selector)?;
        let card = self.card(&version)?;
        if let Some(GateVerdict::Fail(reason)) = &card.verdict {
            return Err(Error::refused(format!("promotion of `{version}`"), format!("its gate said no: {reason}")));
        }
        self.check(&version, checks)?;
        let moved = self.tag(name, alias, Some(version.number), expect, why)?;
        Ok((version, moved))
    }

    /// Points an alias to where it was before its last move that was not a roll back, or to a chosen earlier version.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an alias that never was, [`Error::Refused`] when there is nothing to go back to.
    pub fn rollback(
        &self,
        name: &Name,
        alias: &Alias,
        to: Option<u64>,
        expect: Expect,
        why: &str,
    ) -> Result<AliasMove> {
        self.move_alias(name, alias, expect, why, |shelf| {
            let mut stack = shelf.past(alias)?;
            if stack.is_empty() && shelf.alias(alias)?.is_none() {
                return Err(self.no_such_alias(name, alias));
            }
            stack.pop();
            let target = match to {
                Some(to) => stack.iter().rev().flatten().copied().find(|past| *past == to),
                None => stack.iter().rev().flatten().copied().find(|past| shelf.is_published(*past)),
            };
            let refused = || {
                let past: Vec<String> = stack.iter().flatten().map(ToString::to_string).collect();
                let past =
                    if past.is_empty() { "it has no past".into() } else { format!("it was at {}", past.join(", ")) };
                Error::refused(format!("roll back of `{name}@{alias}`"), past)
            };
            Ok((Some(target.ok_or_else(refused)?), MoveKind::Rollback))
        })
    }

    fn move_alias(
        &self,
        name: &Name,
        alias: &Alias,
        expect: Expect,
        why: &str,
        target: impl FnOnce(&Shelf<'_>) -> Result<(Option<u64>, MoveKind)>,
    ) -> Result<AliasMove> {
        let shelf = self.shelf(name);
        if shelf.latest()?.is_none() {
            return Err(self.no_such_name(name));
        }
        let lock = self.write_lock()?;
        let from = shelf.alias(alias)?.and_then(|last| last.to);
        let meets = match expect {
            Expect::Any => true,
            Expect::Absent => from.is_none(),
            Expect::Is(number) => from == Some(number),
        };
        if !meets {
            let expected = match expect {
                Expect::Is(number) => format!("version {number}"),
                _ => "no such alias".into(),
            };
            let found = from.map_or("no such alias".into(), |number| format!("version {number}"));
            return Err(Error::Conflict { what: format!("`{name}@{alias}`"), expected, found });
        }
        let (to, kind) = target(&shelf)?;
        if let Some(number) = to {
            self.version(name, &Selector::Number(number))?;
        } else if from.is_none() {
            return Err(self.no_such_alias(name, alias));
        }
        let why = why.chars().filter(|letter| !letter.is_control()).take(500).collect();
        let entry = AliasMove { at: Timestamp::now().to_string(), from, to, kind, why };
        if from != to {
            shelf.append(&lock, alias, &entry)?;
        }
        self.refresh_view(&lock, name)?;
        Ok(entry)
    }

    pub(super) fn no_such_alias(&self, name: &Name, alias: &Alias) -> Error {
        let candidates = self.aliases(name).unwrap_or_default();
        let candidates = candidates.iter().map(|(alias, _)| alias.to_string()).collect();
        Error::Unknown { kind: "alias", name: alias.to_string(), place: format!(" of adapter `{name}`"), candidates }
    }
}

impl Shelf<'_> {
    fn alias_path(&self, alias: &Alias) -> PathBuf {
        self.folder.join("aliases").join(alias.as_str())
    }

    pub(super) fn alias_names(&self) -> Result<Vec<Alias>> {
        Ok(list(&self.folder.join("aliases"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn is_published(&self, number: u64) -> bool {
        self.record(number).is_ok_and(|record| record.is_some_and(|record| record.removed.is_none()))
    }

    /// The last move of an alias, without reading its whole past.
    pub(super) fn alias(&self, alias: &Alias) -> Result<Option<AliasMove>> {
        let tail = self.tail(alias, TAIL_BYTES)?;
        Ok(whole_lines(&tail).last().map(|(_, entry)| entry))
    }

    pub(super) fn moves(&self, alias: &Alias) -> Result<Vec<AliasMove>> {
        let log = self.tail(alias, MAX_LOG_BYTES)?;
        Ok(whole_lines(&log).map(|(_, entry)| entry).collect())
    }

    /// Where an alias was before, as far as it can go back, ending with where it is.
    pub(super) fn past(&self, alias: &Alias) -> Result<Vec<Option<u64>>> {
        let mut stack: Vec<Option<u64>> = Vec::new();
        for past in self.moves(alias)? {
            match past.kind {
                // Going back forgets what was left behind.
                MoveKind::Rollback => while stack.pop().is_some_and(|_| stack.last() != Some(&past.to)) {},
                MoveKind::Set | MoveKind::Delete => stack.push(past.to),
            }
        }
        Ok(stack)
    }

    fn tail(&self, alias: &Alias, limit: u64) -> Result<Vec<u8>> {
        let path = self.alias_path(alias);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.map_err(Error::io("read", &path))?,
        };
        let attempt = || {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        attempt().map_err(Error::io("read", &path))
    }

    fn append(&self, _lock: &Lock, alias: &Alias, entry: &AliasMove) -> Result<()> {
        let disk = &self.registry.disk;
        let path = self.alias_path(alias);
        let log = self.tail(alias, TAIL_BYTES)?;
        let whole = whole_lines(&log).last().map_or(0, |(end, _)| end);
        if whole < log.len() {
            // What a crash left half written.
            let length = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
            disk.truncate(&path, length - (log.len() - whole) as u64)?;
        }
        self.registry.mark_pending(self.name)?;
        disk.append(&path, line(entry).as_bytes())
    }
}

fn line(entry: &AliasMove) -> String {
    let json = serde_json::to_string(entry).expect("strings and numbers make JSON");
    format!("{} {json}\n", checksum(&json))
}

fn checksum(json: &str) -> String {
    Digest::of(json.as_bytes()).hex()[..16].to_string()
}

/// The lines that are whole, each with the position after it.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, AliasMove)> + '_ {
    let mut at = 0;
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        at += line.len();
        let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (sum, json) = text.split_once(' ')?;
        (sum == checksum(json)).then(|| serde_json::from_str(json).ok()).flatten().map(|entry| (at, entry))
    })
}
