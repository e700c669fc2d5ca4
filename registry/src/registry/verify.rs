//! Verification: every byte that a version stands on.

use std::collections::HashSet;

use serde::Serialize;

use super::adopt::identity;
use super::{Registry, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::oci::{Card, Manifest};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The version, alias or blob.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Versions that were looked at.
    pub versions: usize,
    /// Blobs that were read.
    pub blobs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that nothing refers to; `gc` removes them.
    pub garbage: usize,
    /// What is wrong; empty when all is well.
    pub problems: Vec<Problem>,
}

impl Registry {
    /// Verifies one version: its record, its manifest, every blob, its signatures and deltas.
    ///
    /// # Errors
    /// Only when nothing can be read at all; what is wrong is in the report.
    pub fn verify_version(&self, version: &Version) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        self.inspect(version, &mut HashSet::new(), &mut report);
        Ok(report)
    }

    /// Verifies everything: all versions, all aliases, every blob.
    ///
    /// # Errors
    /// Only when nothing can be read at all; what is wrong is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut seen = HashSet::new();
        for name in self.names()? {
            self.inspect_name(&name, &mut seen, &mut report)?;
        }
        for digest in self.blobs.list()? {
            if !seen.contains(&digest) {
                report.garbage += 1;
            }
        }
        Ok(report)
    }

    fn inspect_name(&self, name: &Name, seen: &mut HashSet<Digest>, report: &mut VerifyReport) -> Result<()> {
        let shelf = self.shelf(name);
        for number in shelf.numbers()? {
            match shelf.record(number) {
                Ok(Some(record)) if record.removed.is_none() => self.inspect(&record.version(name), seen, report),
                Ok(_) => {}
                Err(error) => report.note(format!("{name}@{number}"), &error),
            }
        }
        for alias in shelf.alias_names()? {
            let Some(number) = shelf.alias(&alias)?.and_then(|last| last.to) else { continue };
            let is_here =
                shelf.record(number).is_ok_and(|record| record.is_some_and(|record| record.removed.is_none()));
            if !is_here {
                report.note(format!("{name}@{alias}"), &Error::unknown("version", number, format!(" of `{name}`")));
            }
        }
        Ok(())
    }

    fn inspect(&self, version: &Version, seen: &mut HashSet<Digest>, report: &mut VerifyReport) {
        report.versions += 1;
        let what = version.to_string();
        let Some(manifest) = self.inspect_manifest(&version.digest, &what, seen, report) else { return };
        match identity(&manifest, &what) {
            Ok((name, number)) if name == version.name && number == version.number => {}
            Ok((name, number)) => {
                let reason = format!("its manifest is of `{name}@{number}`");
                report.note(what.clone(), &Error::refused(&what, reason));
            }
            Err(error) => report.note(what.clone(), &error),
        }
        if let Err(error) = Card::of(&manifest, &what) {
            report.note(what.clone(), &error);
        }
        match self.shelf(&version.name).attachments(&version.digest) {
            Ok(attachments) => {
                for attachment in attachments {
                    self.inspect_manifest(&attachment.digest, &what, seen, report);
                }
            }
            Err(error) => report.note(what, &error),
        }
    }

    /// Verifies a manifest and its content.
    fn inspect_manifest(
        &self,
        digest: &Digest,
        what: &str,
        seen: &mut HashSet<Digest>,
        report: &mut VerifyReport,
    ) -> Option<Manifest> {
        seen.insert(*digest);
        report.blobs += 1;
        let manifest = match self.manifest(digest) {
            Ok(manifest) => manifest,
            Err(error) => {
                report.note(what.into(), &error);
                return None;
            }
        };
        for content in manifest.content() {
            if seen.insert(content.digest) {
                report.blobs += 1;
                match self.blobs.verify(&content.digest, Some(content.size)) {
                    Ok(bytes) => report.bytes += bytes,
                    Err(error) => report.note(what.into(), &error),
                }
            }
        }
        Some(manifest)
    }
}

impl VerifyReport {
    fn note(&mut self, what: String, error: &Error) {
        self.problems.push(Problem { what, reason: error.to_string() });
    }
}
