//! What must hold before a version is put to use. The self-test of an adapter needs its backbone, so whoever has one
//! passes it in.

use std::path::Path;

use super::{Checkout, Registry, Version};
use crate::error::{Error, Result};
use crate::oci::Card;

/// A version that is to be put to use.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The version.
    pub version: &'a Version,
    /// What is known about it.
    pub card: &'a Card,
    /// A folder with its files, all verified.
    pub folder: &'a Path,
}

/// A test that a version must pass before it is put to use, such as the golden self-test beside the backbone.
pub trait Check {
    /// Says why the candidate must not be used.
    ///
    /// # Errors
    /// The reason, for people.
    fn check(&self, candidate: &Candidate<'_>) -> std::result::Result<(), String>;
}

impl<F: Fn(&Candidate<'_>) -> std::result::Result<(), String>> Check for F {
    fn check(&self, candidate: &Candidate<'_>) -> std::result::Result<(), String> {
        self(candidate)
    }
}

impl Registry {
    /// Checks out a version and runs all checks on it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason of the first check that says no.
    pub fn check(&self, version: &Version, checks: &[&dyn Check]) -> Result<Checkout> {
        let checkout = self.checkout(version)?;
        let card = self.card(version)?;
        let candidate = Candidate { version, card: &card, folder: checkout.folder() };
        for check in checks {
            check.check(&candidate).map_err(|reason| Error::refused(format!("`{version}`"), reason))?;
        }
        Ok(checkout)
    }
}
