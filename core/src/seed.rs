//! Randomness that depends on names, not on the order of calls.

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

/// A seed that is split per purpose, so that no draw disturbs another.
///
/// `seed.split("init")` and `seed.split("shuffle").split(3)` give independent streams; the same path gives the same
/// stream on every machine and in every order of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The root seed of a run.
    pub fn new(value: u64) -> Self {
        Self(value)
    }

    /// A child seed for one purpose; `purpose` is a word or a number.
    pub fn split(self, purpose: impl std::fmt::Display) -> Self {
        Self(self.hash(&purpose.to_string()))
    }

    /// A 64-bit hash of this seed and a key, e.g. to rank examples.
    pub fn hash(self, key: &str) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(self.0.to_le_bytes());
        hasher.update(key.as_bytes());
        let bytes = hasher.finalize();
        u64::from_le_bytes(bytes[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
    }

    /// A generator for this seed (ChaCha8: the same numbers on every platform).
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }

    /// Draws from a normal distribution with mean 0 (Box and Muller).
    pub fn normals(self, count: usize, deviation: f32) -> Vec<f32> {
        let mut rng = self.rng();
        (0..count)
            .map(|_| {
                let radius: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
                let angle: f64 = rng.random_range(0.0..std::f64::consts::TAU);
                deviation * ((-2.0 * radius.ln()).sqrt() * angle.cos()) as f32
            })
            .collect()
    }

    /// Draws from a uniform distribution over `-bound..bound`.
    pub fn uniforms(self, count: usize, bound: f32) -> Vec<f32> {
        let mut rng = self.rng();
        (0..count).map(|_| rng.random_range(-bound..bound)).collect()
    }

    /// The numbers `0..count` in a random order.
    pub fn order(self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut self.rng());
        order
    }

    /// The value, to be recorded in a report.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn a_path_gives_one_stream_and_others_differ() {
        let seed = Seed::new(1);
        assert_eq!(seed.split("init").split(3), seed.split("init").split(3));
        assert_ne!(seed.split("init"), seed.split("shuffle"));
        assert_ne!(seed.split("init"), Seed::new(2).split("init"));
    }
}
