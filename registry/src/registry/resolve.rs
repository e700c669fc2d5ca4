//! From what people write to a version, its manifest and its card.

use super::Registry;
use super::version::Version;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Name, Reference, Selector};
use crate::oci::{Card, MAX_MANIFEST_BYTES, Manifest, annotation};

impl Registry {
    /// The version that `NAME`, `NAME@ALIAS`, `NAME@VERSION` or a digest means. Takes no lock and no database.
    ///
    /// # Errors
    /// [`Error::Reference`] for what cannot be read, [`Error::Unknown`] for what does not exist.
    pub fn resolve(&self, reference: &str) -> Result<Version> {
        self.resolve_reference(&reference.parse()?)
    }

    /// [`Self::resolve`] for a reference that was read already.
    ///
    /// # Errors
    /// [`Error::Unknown`] for what does not exist.
    pub fn resolve_reference(&self, reference: &Reference) -> Result<Version> {
        match (&reference.name, &reference.selector) {
            (Some(name), selector) => self.version(name, selector),
            (None, Selector::Digest(digest)) => {
                let manifest = self.manifest(digest)?;
                let name = manifest.annotations().get(annotation::NAME).map(|name| name.parse::<Name>()).transpose()?;
                let name = name.ok_or_else(|| self.blobs.missing(digest))?;
                self.version(&name, &Selector::Digest(*digest))
            }
            (None, _) => Err(Error::reference("reference", &reference.to_string(), "it has no name")),
        }
    }

    /// The version of an adapter that a selector means.
    ///
    /// # Errors
    /// [`Error::Unknown`] for what does not exist.
    pub fn version(&self, name: &Name, selector: &Selector) -> Result<Version> {
        let shelf = self.shelf(name);
        let missing = || {
            if shelf.latest().ok().flatten().is_none() {
                return self.no_such_name(name);
            }
            let newest = self.newest(name, 8).unwrap_or_default();
            let candidates = newest.iter().map(|version| version.number.to_string()).collect();
            let place = format!(" of adapter `{name}`");
            Error::Unknown { kind: "version", name: selector.to_string(), place, candidates }
        };
        let number = match selector {
            Selector::Latest => shelf.latest()?,
            Selector::Number(number) => Some(*number),
            Selector::Release(release) => shelf.released(release)?,
            Selector::Alias(alias) => match self.alias(name, alias)? {
                None if shelf.latest()?.is_some() => return Err(self.no_such_alias(name, alias)),
                number => number,
            },
            Selector::Digest(digest) => {
                let annotations = self.manifest(digest)?.annotations().get(annotation::NUMBER).cloned();
                annotations.and_then(|number| number.parse().ok())
            }
        };
        let record = number.map(|number| shelf.record(number)).transpose()?.flatten().ok_or_else(missing)?;
        if let Some(at) = &record.removed {
            let place = format!(" of adapter `{name}`: `gc` removed it at {at}");
            return Err(Error::Unknown { kind: "version", name: selector.to_string(), place, candidates: Vec::new() });
        }
        match selector {
            Selector::Digest(digest) if record.manifest != *digest => Err(missing()),
            _ => Ok(record.version(name)),
        }
    }

    /// The manifest with this digest.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Damaged`] or [`Error::Malformed`].
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        Manifest::parse(&self.blobs.read(digest, MAX_MANIFEST_BYTES)?, &digest.to_string())
    }

    /// What is known about a version.
    ///
    /// # Errors
    /// Those of [`Self::manifest`].
    pub fn card(&self, version: &Version) -> Result<Card> {
        Card::of(&self.manifest(&version.digest)?, &version.to_string())
    }

    /// Refuses a version that was trained beside another backbone.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn check_backbone(&self, version: &Version, backbone: &str) -> Result<()> {
        let card = self.card(version)?;
        if card.backbone == backbone {
            return Ok(());
        }
        let short = |digest: &str| digest.parse().map_or_else(|_| digest.into(), |digest: Digest| digest.short());
        let reason = format!(
            "it belongs to backbone {} ({}), not to {}",
            card.backbone_name,
            short(&card.backbone),
            short(backbone)
        );
        Err(Error::refused(format!("`{version}`"), reason))
    }
}
