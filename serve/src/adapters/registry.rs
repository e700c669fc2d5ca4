//! The registry as a source of adapters: names, aliases and versions are looked up in its files with every request, so an
//! alias that another process moves is followed at once, and nothing is locked.

use inarch_registry::{Alias, Error as RegistryError, Expect, Name, Registry, Selector, Version as Published};

use super::source::{Files, Source, Version};
use crate::error::{Error, Result};

/// Names that a message lists at most.
const LISTED: usize = 1000;

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Refused { what, reason } => Self::Refused { what, reason },
            RegistryError::Untrusted { what, reason } => {
                Self::Refused { what: format!("{what} is not trusted"), reason }
            }
            RegistryError::Reference { kind, text, reason } => {
                Self::Core(inarch_core::Error::invalid(format!("{kind} `{text}`"), reason))
            }
            error => Self::Source { reason: error.to_string() },
        }
    }
}

fn version(published: &Published) -> Version {
    Version {
        name: published.name.to_string(),
        version: published.number.to_string(),
        digest: published.digest.to_string(),
    }
}

impl Source for Registry {
    fn list(&self) -> Result<Vec<Version>> {
        // A name without a version, as a publication that was cut short leaves it, and one that is damaged hide no other.
        let newest = |name: &Name| match self.newest(name, 1) {
            Ok(versions) => versions.first().map(version),
            Err(RegistryError::Unknown { .. }) => None,
            Err(error) => {
                tracing::warn!(adapter = %name, %error, "is not listed");
                None
            }
        };
        Ok(self.names()?.iter().take(LISTED).filter_map(newest).collect())
    }

    fn resolve(&self, reference: &str) -> Result<Option<Version>> {
        match Registry::resolve(self, reference) {
            Ok(published) => Ok(Some(version(&published))),
            Err(RegistryError::Unknown { .. } | RegistryError::Reference { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn files(&self, version: &Version) -> Result<Files> {
        let published = Registry::resolve(self, &version.digest)?;
        let checkout = self.checkout(&published)?;
        Ok(Files { folder: checkout.folder().to_path_buf(), lease: Some(Box::new(checkout)) })
    }

    fn promote(&self, name: &str, alias: &str, to: &str, expected: Option<&str>) -> Result<Version> {
        let unknown = || Error::UnknownModel { reference: format!("{name}@{to}"), candidates: Vec::new() };
        let (own, alias) = (name.parse::<Name>()?, alias.parse::<Alias>()?);
        let selector: Selector = to.parse().map_err(|_| unknown())?;
        let expect = match expected {
            None => Expect::Any,
            Some("") => Expect::Absent,
            Some(number) => Expect::Is(number.parse().map_err(|_| Error::Conflict {
                name: name.into(),
                expected: "the number of a version".into(),
                found: number.into(),
            })?),
        };
        let outcome = Registry::promote(self, (&own, &selector), &alias, expect, &[], "moved through the server");
        match outcome {
            Ok((published, _)) => Ok(version(&published)),
            Err(RegistryError::Conflict { expected, found, .. }) => {
                Err(Error::Conflict { name: format!("{name}@{alias}"), expected, found })
            }
            Err(RegistryError::Unknown { .. }) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }
}
