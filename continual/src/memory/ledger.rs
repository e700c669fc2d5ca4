//! Which samples a model has learned, without their names: a hash of each id and of the latent it was learned by. It tells
//! whether a sample must be taken out, and whether what is presented is the sample that went in.

use std::collections::BTreeMap;

use inarch_core::{Digest, Seed};
use serde::{Deserialize, Serialize};

/// Hashes of the samples that went in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger(BTreeMap<String, String>);

impl Ledger {
    /// The hash that stands for an id.
    pub fn name(id: &str) -> String {
        format!("{:016x}{:016x}", Seed::new(0).split("ledger").hash(id), Seed::new(1).split("ledger").hash(id))
    }

    fn latent(values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Digest::of(&bytes).short().to_string()
    }

    /// Enters a sample.
    pub fn enter(&mut self, id: &str, latent: &[f32]) {
        self.0.insert(Self::name(id), Self::latent(latent));
    }

    /// Strikes a sample out.
    pub fn strike(&mut self, id: &str) {
        self.0.remove(&Self::name(id));
    }

    /// Whether a sample went in.
    pub fn knows(&self, id: &str) -> bool {
        self.0.contains_key(&Self::name(id))
    }

    /// Whether this latent is the one that went in.
    pub fn is_latent_of(&self, id: &str, latent: &[f32]) -> bool {
        self.0.get(&Self::name(id)).is_some_and(|known| *known == Self::latent(latent))
    }

    /// Joins another ledger; returns how many samples are in both.
    pub fn merge(&mut self, other: &Self) -> usize {
        let both = other.0.keys().filter(|name| self.0.contains_key(*name)).count();
        self.0.extend(other.0.clone());
        both
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing went in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
