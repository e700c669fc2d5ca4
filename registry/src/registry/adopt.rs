//! Versions that were published elsewhere: taken with their number, or not at all.

use jiff::Timestamp;

use super::Registry;
use super::publish::{MAX_CARD_BYTES, check_safetensors};
use super::version::{Record, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Name, Release};
use crate::oci::{CARD_FILE, Card, Descriptor, Manifest, TENSORS_FILE, annotation, parse};

/// What came of taking a version in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The version.
    pub version: Version,
    /// False when it was here already.
    pub is_new: bool,
}

impl Registry {
    /// Takes in a version whose blobs are all here, with its signatures and deltas. It keeps the name and number that its
    /// manifest says.
    ///
    /// # Errors
    /// [`Error::Refused`] when the number stands for something else here, or a blob is not what the manifest says.
    pub(crate) fn adopt(&self, digest: &Digest, attachments: &[Descriptor]) -> Result<Adopted> {
        let manifest = self.manifest(digest)?;
        let what = digest.to_string();
        let (name, number) = identity(&manifest, &what)?;
        let card = Card::of(&manifest, &what)?;
        for layer in manifest.content() {
            self.blobs.verify(&layer.digest, Some(layer.size))?;
        }
        self.check_inside(&manifest, &card, &what)?;
        self.check_signatures(&format!("{name}@{number}"), digest, attachments)?;
        self.blobs.sync()?;

        let annotations = manifest.annotations();
        // What others wrote there may be anything, and a record must stay one that can be read: only a time is taken.
        let created = annotations.get(annotation::CREATED).and_then(|text| text.parse::<Timestamp>().ok());
        let release = annotations.get(annotation::RELEASE).map(|text| text.parse::<Release>()).transpose()?;
        let record = Record {
            number,
            release: release.clone(),
            manifest: *digest,
            manifest_bytes: manifest_bytes(&self.blobs.path(digest))?,
            content: content_of(&manifest),
            published: created.unwrap_or_else(Timestamp::now).to_string(),
            removed: None,
        };
        let lock = self.write_lock()?;
        let shelf = self.shelf(&name);
        shelf.create()?;
        let refused = |found: &str| {
            let reason = format!("{found}: two different versions must not share a number");
            Err(Error::refused(format!("version {number} of `{name}` from elsewhere"), reason))
        };
        if let Some(here) = shelf.record(number)? {
            if here.manifest != *digest {
                return refused(&format!("here it is {}, there {}", here.manifest.short(), digest.short()));
            }
            if here.removed.is_none() {
                for attachment in attachments {
                    shelf.attach(&lock, digest, attachment)?;
                }
                self.refresh_view(&lock, &name)?;
                return Ok(Adopted { version: here.version(&name), is_new: false });
            }
        }
        if let Some(release) = &release
            && let Some(other) = shelf.released(release)?
            && other != number
        {
            return refused(&format!("release {release} is version {other} here"));
        }
        // First the signatures, so that the version is never seen without them.
        for attachment in attachments {
            shelf.attach(&lock, digest, attachment)?;
        }
        shelf.commit(&lock, &record)?;
        self.refresh_view(&lock, &name)?;
        Ok(Adopted { version: record.version(&name), is_new: true })
    }

    /// Attaches a manifest about a version to it, such as a signature; its blobs must all be here.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn attach(&self, version: &Version, attachment: &Descriptor) -> Result<()> {
        self.blobs.sync()?;
        let lock = self.write_lock()?;
        self.shelf(&version.name).attach(&lock, &version.digest, attachment)
    }

    /// Signatures and deltas of a version.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn attachments(&self, version: &Version) -> Result<Vec<(Descriptor, Manifest)>> {
        let mut found = Vec::new();
        for descriptor in self.shelf(&version.name).attachments(&version.digest)? {
            let manifest = self.manifest(&descriptor.digest)?;
            if manifest.subject.as_ref().is_some_and(|subject| subject.digest == version.digest) {
                found.push((descriptor, manifest));
            }
        }
        Ok(found)
    }

    /// The annotations are what people and searches trust, so they must say what the files say.
    fn check_inside(&self, manifest: &Manifest, card: &Card, what: &str) -> Result<()> {
        let file = |title| manifest.file(title).expect("checked with the card");
        let tensors = file(TENSORS_FILE);
        check_safetensors(&self.blobs.path(&tensors.digest), tensors.size)?;
        let described = self.blobs.read(&file(CARD_FILE).digest, MAX_CARD_BYTES)?;
        let (inside, config) = Card::read(&described, &tensors.digest, &manifest.layers)?;
        let stored: serde_json::Value =
            parse(&self.blobs.read(&manifest.config.digest, MAX_CARD_BYTES)?, "model config", what)?;
        let facts = |card: &Card| {
            (card.method.clone(), card.backbone.clone(), card.parameters, card.classes, card.data.clone())
        };
        let lies = facts(&inside) != facts(card) || config.get("modelfs") != stored.get("modelfs");
        if lies {
            return Err(Error::refused(what, format!("its annotations do not say what its `{CARD_FILE}` says")));
        }
        Ok(())
    }
}

/// Name and number in a manifest.
pub(crate) fn identity(manifest: &Manifest, what: &str) -> Result<(Name, u64)> {
    let text = |key: &str| {
        let text = manifest.annotations().get(key);
        text.ok_or_else(|| Error::malformed("adapter", what, format!("annotation `{key}` is missing")))
    };
    let number = text(annotation::NUMBER)?.parse().ok().filter(|number| (1..=u64::from(u32::MAX)).contains(number));
    let number = number.ok_or_else(|| Error::malformed("adapter", what, "its number is none"))?;
    Ok((text(annotation::NAME)?.parse()?, number))
}

/// The digest of a manifest without what was given at publication.
fn content_of(manifest: &Manifest) -> Digest {
    let mut manifest = manifest.clone();
    let given = [annotation::NAME, annotation::NUMBER, annotation::CREATED, annotation::VERSION, annotation::RELEASE];
    manifest.annotations_mut().retain(|key, _| !given.contains(&key.as_str()));
    Digest::of(&manifest.encode())
}

fn manifest_bytes(path: &std::path::Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(Error::io("read", path))?.len())
}
