//! `index.json`: what standard tools see. It lists the newest version and all aliases of each name, so its size follows
//! the names and not the versions. It is made from the names and can be made again at any time; entries of other tools
//! are kept.

use std::path::PathBuf;

use super::Registry;
use crate::error::Result;
use crate::name::{LATEST, Name};
use crate::oci::{Descriptor, ImageIndex, MAX_INDEX_BYTES, annotation, parse};
use crate::store::{Lock, list, read_if_present};

impl Registry {
    fn view_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// Notes that the entries of a name are about to change, so that the next writer finishes what a crash left.
    pub(super) fn mark_pending(&self, name: &Name) -> Result<()> {
        self.disk.replace(&self.pending_folder().join(name.folder()), b"")
    }

    /// Brings the entries of a name up to date, and those that others left behind.
    pub(super) fn refresh_view(&self, lock: &Lock, name: &Name) -> Result<()> {
        let pending = list(&self.pending_folder())?;
        let left: Vec<Name> = pending.iter().filter_map(|folder| Name::from_folder(folder).ok()).collect();
        match self.read_view()? {
            None => self.rebuild_view(lock)?,
            Some(view) => {
                let is_stale = |entry: &Descriptor| {
                    entry
                        .annotations()
                        .get(annotation::NAME)
                        .is_some_and(|of| of == name.as_str() || left.iter().any(|left| left.as_str() == of))
                };
                let mut entries: Vec<Descriptor> =
                    view.manifests.into_iter().filter(|entry| !is_stale(entry)).collect();
                for name in left.iter().filter(|left| *left != name).chain([name]) {
                    entries.extend(self.entries(name)?);
                }
                self.write_view(entries)?;
            }
        }
        for folder in pending {
            self.disk.remove(&self.pending_folder().join(folder))?;
        }
        Ok(())
    }

    /// Makes `index.json` from the names.
    pub(super) fn rebuild_view(&self, _lock: &Lock) -> Result<()> {
        let mut entries = self.foreign_entries()?;
        for name in self.names()? {
            entries.extend(self.entries(&name)?);
        }
        self.write_view(entries)
    }

    /// What other tools have put into the layout.
    pub(super) fn foreign_entries(&self) -> Result<Vec<Descriptor>> {
        let entries = self.read_view()?.map(|view| view.manifests).unwrap_or_default();
        Ok(entries.into_iter().filter(|entry| !entry.annotations().contains_key(annotation::NAME)).collect())
    }

    /// None when there is no valid one: it holds nothing that is not elsewhere.
    fn read_view(&self) -> Result<Option<ImageIndex>> {
        let path = self.view_path();
        let bytes = read_if_present(&path, MAX_INDEX_BYTES)?;
        Ok(bytes.and_then(|bytes| parse(&bytes, "OCI index", path.display()).ok()))
    }

    fn write_view(&self, mut entries: Vec<Descriptor>) -> Result<()> {
        entries.sort_by_cached_key(|entry| {
            entry.annotations().get(annotation::REF_NAME).cloned().unwrap_or_else(|| entry.digest.to_string())
        });
        let mut bytes = serde_json::to_vec(&ImageIndex::new(entries)).expect("descriptors make JSON");
        bytes.push(b'\n');
        self.disk.replace(&self.view_path(), &bytes)
    }

    /// The entries of a name: its newest version by number and as `latest`, and its aliases.
    pub(crate) fn entries(&self, name: &Name) -> Result<Vec<Descriptor>> {
        let shelf = self.shelf(name);
        let mut entries = Vec::new();
        let mut add = |number: u64, tags: &[String]| -> Result<()> {
            if let Some(record) = shelf.record(number)?.filter(|record| record.removed.is_none()) {
                let descriptor = record.version(name).descriptor().with(annotation::NAME, name);
                entries.extend(
                    tags.iter().map(|tag| descriptor.clone().with(annotation::REF_NAME, format!("{name}:{tag}"))),
                );
            }
            Ok(())
        };
        if let Some(latest) = shelf.latest()? {
            add(latest, &[latest.to_string(), LATEST.into()])?;
        }
        for (alias, number) in self.aliases(name)? {
            add(number, &[alias.to_string()])?;
        }
        Ok(entries)
    }
}
