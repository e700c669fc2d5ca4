//! Which samples a model has learned, without their names: a hash of each id, and of the latent and the class it was learned by. It
//! tells whether a sample must be taken out, and whether what is presented is the sample that went in.

use std::collections::{BTreeMap, HashSet};

use inarch_core::{Digest, Seed};
use serde::{Deserialize, Serialize};

use super::sample::Sample;

/// Hashes of the samples that went in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger(BTreeMap<String, String>);

impl Ledger {
    /// The hash that stands for an id.
    pub fn name(id: &str) -> String {
        format!("{:016x}{:016x}", Seed::new(0).split("ledger").hash(id), Seed::new(1).split("ledger").hash(id))
    }

    /// The hash that stands for what was learned. Ledgers of older programs have that of the latent alone.
    fn content(latent: &[f32], class: Option<&str>) -> String {
        let latent = latent.iter().flat_map(|value| value.to_le_bytes());
        let bytes: Vec<u8> = latent.chain(class.unwrap_or_default().bytes()).collect();
        Digest::of(&bytes).short().to_string()
    }

    /// Enters a sample.
    pub fn enter(&mut self, sample: &Sample) {
        self.0.insert(Self::name(&sample.id), Self::content(&sample.latent, Some(&sample.class)));
    }

    /// Strikes a sample out.
    pub fn strike(&mut self, id: &str) {
        self.0.remove(&Self::name(id));
    }

    /// Whether a sample went in.
    pub fn knows(&self, id: &str) -> bool {
        self.0.contains_key(&Self::name(id))
    }

    /// Whether it is this sample that went in under its id: by its latent and its class.
    pub fn has(&self, sample: &Sample) -> bool {
        let Sample { id, class, latent, .. } = sample;
        self.0.get(&Self::name(id)).is_some_and(|known| Self::contents_of(latent, class).contains(known))
    }

    /// The hashes that stand for what was learned, whatever it was called.
    pub(crate) fn contents(&self) -> HashSet<String> {
        self.0.values().cloned().collect()
    }

    /// The hashes that stand for a latent that was learned as some class.
    pub(crate) fn contents_of(latent: &[f32], class: &str) -> [String; 2] {
        [Some(class), None].map(|class| Self::content(latent, class))
    }

    /// The samples that are in both.
    pub fn common(&self, other: &Self) -> Self {
        let both = self.0.iter().filter(|(name, _)| other.0.contains_key(*name));
        Self(both.map(|(name, content)| (name.clone(), content.clone())).collect())
    }

    /// Whether both are of the same samples.
    pub fn is_of_same_samples(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
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

#[cfg(test)]
mod tests {
    use super::{Ledger, Sample};

    fn sample(id: &str, class: &str, latent: [f32; 2]) -> Sample {
        Sample {
            id: id.into(),
            class: class.into(),
            source: String::new(),
            time: 0,
            weight: 1.0,
            latent: latent.into(),
            views: Vec::new(),
            image: None,
            scores: Vec::new(),
        }
    }

    #[test]
    fn a_sample_is_told_by_its_latent_and_its_class() {
        let mut ledger = Ledger::default();
        let own = sample("a", "cat", [0.5, -1.0]);
        ledger.enter(&own);
        assert!(ledger.has(&own) && ledger.knows("a"));
        for other in [sample("a", "dog", [0.5, -1.0]), sample("a", "cat", [0.5, 1.0]), sample("b", "cat", [0.5, -1.0])]
        {
            assert!(!ledger.has(&other), "{other:?}");
        }
        let written = serde_json::to_string(&ledger).unwrap();
        assert!(!written.contains("cat"), "{written}");
        // As it was written before there were classes.
        let older = written.replace(&Ledger::content(&own.latent, Some("cat")), &Ledger::content(&own.latent, None));
        let older: Ledger = serde_json::from_str(&older).unwrap();
        assert!(older != ledger && older.has(&own) && !older.has(&sample("a", "cat", [0.5, 1.0])));
    }

    #[test]
    fn what_two_have_in_common_is_told_by_names() {
        let of = |names: &[&str]| {
            let mut ledger = Ledger::default();
            names.iter().for_each(|name| ledger.enter(&sample(name, "cat", [1.0, 2.0])));
            ledger
        };
        let (left, right) = (of(&["a", "b", "c"]), of(&["b", "c", "d"]));
        assert!(left.common(&right).is_of_same_samples(&of(&["b", "c"])));
        // As many, and not the same.
        assert!(!left.common(&right).is_of_same_samples(&of(&["a", "b"])));
        assert!(of(&[]).is_of_same_samples(&left.common(&of(&["d"]))));
    }
}
