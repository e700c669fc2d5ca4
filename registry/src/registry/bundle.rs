//! Bundles: versions as one file, an OCI image layout in a tar archive, for machines without a network. Standard tools
//! read it as `oci-archive`. What is imported is verified byte by byte before anything refers to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;

use serde::Serialize;

use super::adopt::identity;
use super::{Expect, Registry, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Alias, Name};
use crate::oci::{
    ARTIFACT_TYPE, Descriptor, ImageIndex, LAYOUT_FILE, LAYOUT_TEXT, MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, annotation,
    media_type, parse,
};
use crate::registry::publish::MAX_FILE_BYTES;
use crate::store::{beside, read_bounded};

/// The most entries of an archive, and of an index in one.
const MAX_ENTRIES: usize = 1_000_000;

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Versions.
    pub versions: usize,
    /// Blobs.
    pub blobs: usize,
    /// Size of the blobs, in bytes.
    pub bytes: u64,
}

/// What an import brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Versions that are new here.
    pub imported: Vec<Version>,
    /// Versions that were here already.
    pub present: Vec<Version>,
    /// Aliases in the bundle, and where they point.
    pub aliases: Vec<(Name, Alias, u64)>,
    /// Entries that are no adapters and were left out.
    pub skipped: usize,
}

impl Registry {
    /// Writes versions, with their signatures, deltas and aliases, into one file.
    ///
    /// # Errors
    /// What is wrong with a version, or [`Error::Io`]; then no file is left.
    pub fn export(&self, versions: &[Version], path: &Path) -> Result<ExportReport> {
        let mut entries = Vec::new();
        let mut blobs = BTreeSet::new();
        for version in versions {
            let descriptor = version.descriptor().with(annotation::NAME, &version.name);
            let mut tags = vec![version.number.to_string()];
            for (alias, number) in self.aliases(&version.name)? {
                if number == version.number {
                    tags.push(alias.to_string());
                }
            }
            entries.extend(
                tags.iter().map(|tag| descriptor.clone().with(annotation::REF_NAME, format!("{}:{tag}", version.name))),
            );
            self.collect(&version.digest, &mut blobs)?;
            for (attachment, _) in self.attachments(version)? {
                self.collect(&attachment.digest, &mut blobs)?;
                entries.push(attachment.with(annotation::NAME, &version.name));
            }
        }
        let index = serde_json::to_vec(&ImageIndex::new(entries)).expect("descriptors make JSON");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut report = ExportReport { versions: versions.len(), blobs: blobs.len(), bytes: 0 };
        let mut attempt = || -> std::io::Result<()> {
            let file = beside(".inarch-").tempfile_in(folder)?;
            let mut archive = tar::Builder::new(file);
            append(&mut archive, LAYOUT_FILE, LAYOUT_TEXT.len() as u64, LAYOUT_TEXT)?;
            append(&mut archive, "index.json", index.len() as u64, &index[..])?;
            for digest in &blobs {
                let blob = File::open(self.blobs.path(digest))?;
                let bytes = blob.metadata()?.len();
                report.bytes += bytes;
                append(&mut archive, &format!("blobs/sha256/{}", digest.hex()), bytes, blob)?;
            }
            let mut file = archive.into_inner()?;
            file.flush()?;
            file.as_file().sync_all()?;
            // A device, pipe or socket would be gone for a file.
            if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
                let reason = "it exists and is no regular file; name another";
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
            }
            file.persist(path)?;
            Ok(())
        };
        attempt().map_err(Error::io("write", path))?;
        Ok(report)
    }

    /// Verifies a manifest and its content and notes the digests.
    fn collect(&self, digest: &Digest, blobs: &mut BTreeSet<Digest>) -> Result<()> {
        let manifest = self.manifest(digest)?;
        blobs.insert(*digest);
        for content in manifest.content() {
            self.blobs.verify(&content.digest, Some(content.size))?;
            blobs.insert(content.digest);
        }
        Ok(())
    }

    /// Takes in the versions of a bundle, or of a folder that is an OCI image layout. With `set_aliases`, its aliases are
    /// set as well.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Damaged`] or [`Error::TooLarge`] for a bundle that is not what it should be,
    /// [`Error::Refused`] for a version whose number stands for something else here.
    pub fn import(&self, path: &Path, set_aliases: bool) -> Result<ImportReport> {
        let ingest = self.ingest_lock()?;
        let index = if path.is_dir() { self.ingest_folder(path)? } else { self.ingest_archive(path)? };
        let mut report = ImportReport::default();
        let mut subjects: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        let mut attached: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
        for entry in &index.manifests {
            if entry.media_type != media_type::MANIFEST {
                report.skipped += 1;
                continue;
            }
            let manifest = self.manifest(&entry.digest)?;
            match &manifest.subject {
                Some(subject) => {
                    let plain = Descriptor::new(&entry.media_type, entry.digest, entry.size);
                    attached.entry(subject.digest).or_default().push(plain);
                }
                None if manifest.artifact_type.as_deref() == Some(ARTIFACT_TYPE) => {
                    let tags = subjects.entry(entry.digest).or_default();
                    tags.extend(entry.annotations().get(annotation::REF_NAME).cloned());
                }
                None => report.skipped += 1,
            }
        }
        for (digest, tags) in subjects {
            let (name, number) = identity(&self.manifest(&digest)?, &digest.to_string())?;
            let adopted = self.adopt(&digest, attached.get(&digest).map_or(&[][..], Vec::as_slice))?;
            if adopted.is_new {
                report.imported.push(adopted.version)
            } else {
                report.present.push(adopted.version)
            }
            let of_name = format!("{name}:");
            let aliases = tags.iter().filter_map(|tag| tag.strip_prefix(&of_name)?.parse::<Alias>().ok());
            report.aliases.extend(aliases.map(|alias| (name.clone(), alias, number)));
        }
        drop(ingest);
        if set_aliases {
            for (name, alias, number) in &report.aliases {
                self.tag(name, alias, Some(*number), Expect::Any, "import")?;
            }
        }
        report.imported.sort_by(|left, right| (&left.name, left.number).cmp(&(&right.name, right.number)));
        Ok(report)
    }

    fn ingest_archive(&self, path: &Path) -> Result<ImageIndex> {
        let what = path.display().to_string();
        let malformed = |reason: &str| Error::malformed("bundle", &what, reason);
        let io = || Error::io("read", path);
        let mut archive = tar::Archive::new(File::open(path).map_err(io())?);
        let mut index = None;
        let mut is_layout = false;
        for (count, entry) in archive.entries().map_err(io())?.enumerate() {
            let entry = entry.map_err(|error| malformed(&format!("no tar archive: {error}")))?;
            if count == MAX_ENTRIES {
                return Err(Error::TooLarge {
                    what,
                    unit: "entries",
                    limit: MAX_ENTRIES as u64,
                    found: count as u64 + 1,
                });
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_string();
            if entry.header().entry_type().is_dir() && ["", "blobs/", "blobs/sha256/"].contains(&name.as_str()) {
                continue;
            }
            if !entry.header().entry_type().is_file() {
                return Err(malformed(&format!("`{name}` is a link or a special file")));
            }
            let size = entry.size();
            if name == "index.json" {
                if index.is_some() || size > MAX_INDEX_BYTES {
                    return Err(malformed("`index.json` is there twice or too large"));
                }
                let mut bytes = Vec::new();
                entry.take(MAX_INDEX_BYTES).read_to_end(&mut bytes).map_err(io())?;
                index = Some(bytes);
            } else if name == LAYOUT_FILE {
                is_layout = true;
            } else if let Some(digest) = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex) {
                self.blobs.put_reader(entry, MAX_FILE_BYTES, Some(&digest), &format!("`{name}` of `{what}`"))?;
            } else {
                let name: String = name.chars().take(80).collect();
                return Err(malformed(&format!("`{name}` does not belong into an OCI image layout")));
            }
        }
        let index = index.filter(|_| is_layout).ok_or_else(|| malformed("`oci-layout` or `index.json` is missing"))?;
        read_index(&index, &what)
    }

    fn ingest_folder(&self, path: &Path) -> Result<ImageIndex> {
        let what = path.display().to_string();
        read_bounded(&path.join(LAYOUT_FILE), 4096)?;
        let index = read_index(&read_bounded(&path.join("index.json"), MAX_INDEX_BYTES)?, &what)?;
        let blobs = path.join("blobs").join("sha256");
        let take = |digest: &Digest, limit: u64| -> Result<()> {
            let source = blobs.join(digest.hex());
            let metadata = std::fs::symlink_metadata(&source).map_err(Error::io("read", &source))?;
            if !metadata.is_file() {
                return Err(Error::malformed("OCI image layout", &what, format!("blob {} is a link", digest.short())));
            }
            let file = File::open(&source).map_err(Error::io("read", &source))?;
            self.blobs.put_reader(file, limit, Some(digest), &source.display().to_string()).map(drop)
        };
        for entry in index.manifests.iter().filter(|entry| entry.media_type == media_type::MANIFEST) {
            take(&entry.digest, MAX_MANIFEST_BYTES)?;
            let manifest = self.manifest(&entry.digest)?;
            for content in manifest.content() {
                take(&content.digest, MAX_FILE_BYTES)?;
            }
        }
        Ok(index)
    }
}

fn read_index(bytes: &[u8], what: &str) -> Result<ImageIndex> {
    let index: ImageIndex = parse(bytes, "OCI index", what)?;
    let found = index.manifests.len();
    if found > MAX_ENTRIES {
        return Err(Error::TooLarge {
            what: what.into(),
            unit: "entries",
            limit: MAX_ENTRIES as u64,
            found: found as u64,
        });
    }
    Ok(index)
}

/// An entry that is the same on every machine and at every time.
fn append(
    archive: &mut tar::Builder<tempfile::NamedTempFile>,
    name: &str,
    bytes: u64,
    content: impl Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}
