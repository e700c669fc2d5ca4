//! Strategies that merge values: WiSE-FT, a fading mean, MagMax and TIES over experiences.
//!
//! With the values `a` before and `b` after an experience: WiSE-FT goes on with `(1 - share) a + share b`; the fading mean with
//! `m <- decay m + (1 - decay) theta` of every step. MagMax and TIES go on with `b` and answer with `i + scale * merged`, where
//! `i` are the values of a fresh adapter and `merged` joins the changes `b - i` of all experiences: MagMax takes of each value
//! the greatest change; TIES keeps the greatest share `density` of each change, elects the sign of each value by the sum, and
//! takes the mean of those that agree. Both train one after the other, as MagMax does. TIES stores a change for each
//! experience, MagMax one in all. An experience that comes in chunks is one: what is merged is merged over all of it.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, Parameters};
use inarch_recipes::Change;

use super::{Episode, Outcome, Strategy};
use crate::error::{Error, Result};

/// How values are merged.
#[derive(Clone, Copy)]
pub(super) enum WeightRule {
    /// A share of the new ones.
    Share(f64),
    /// A fading mean.
    Fading(f64),
    /// The greatest change.
    Greatest {
        /// Factor on the merged change.
        scale: f64,
    },
    /// The mean of the changes that agree with an elected sign.
    Elected {
        /// Share of each change that is kept.
        density: f64,
        /// Factor on the merged change.
        scale: f64,
    },
}

/// Merging of values.
pub(super) struct Merging {
    rule: WeightRule,
    mean: Parameters,
    changes: Vec<Parameters>,
    /// Values and changes as the experience began with them.
    start: Parameters,
    before: Vec<Parameters>,
}

impl Merging {
    pub(super) fn new(rule: WeightRule) -> Self {
        let [mean, start] = [(); 2].map(|()| Parameters::new());
        Self { rule, mean, changes: Vec::new(), start, before: Vec::new() }
    }
}

/// The adapter with other values of the same shapes.
pub(super) fn replaced(adapter: Adapter, values: Parameters) -> Result<Adapter> {
    let device = adapter_device(&adapter);
    let put = adapter.with_parameters(values, &device);
    put.map_err(|reason| Error::setting("merged values", reason))
}

/// Puts rows behind those of the experiences before, along the first axis, for the tensors whose names are `kept`.
pub(super) fn append(past: &mut Parameters, trained: &Parameters, kept: impl Fn(&str) -> bool) {
    for (name, tensor) in trained.iter().filter(|(name, _)| kept(name)) {
        let empty = || HostTensor { shape: [&[0], &tensor.shape[1..]].concat(), data: Vec::new(), ..tensor.clone() };
        let all = past.entry(name.clone()).or_insert_with(empty);
        all.shape[0] += tensor.shape[0];
        all.data.extend(&tensor.data);
    }
}

fn adapter_device(adapter: &Adapter) -> burn::tensor::Device {
    use burn::module::Module as _;
    adapter.devices().into_iter().next().unwrap_or_default().without_autodiff()
}

/// Value by value.
fn combined(left: &Parameters, right: &Parameters, of: impl Fn(f32, f32) -> f32) -> Parameters {
    let mut result = left.clone();
    for (name, tensor) in &mut result {
        // A row that one side does not have yet has not changed there.
        let other = right.get(name).map_or(&[][..], |tensor| &tensor.data);
        for (at, value) in tensor.data.iter_mut().enumerate() {
            *value = of(*value, other.get(at).copied().unwrap_or(0.0));
        }
    }
    result
}

/// The greatest share of the values by size, the others zero.
fn trimmed(change: &Parameters, density: f64) -> Parameters {
    let mut sizes: Vec<f32> = change.values().flat_map(|tensor| tensor.data.iter().map(|value| value.abs())).collect();
    let kept = ((density * sizes.len() as f64).round() as usize).clamp(1, sizes.len().max(1));
    sizes.sort_by(|a, b| b.total_cmp(a));
    let least = sizes.get(kept - 1).copied().unwrap_or(0.0);
    let mut trimmed = change.clone();
    for value in trimmed.values_mut().flat_map(|tensor| &mut tensor.data) {
        if value.abs() < least {
            *value = 0.0;
        }
    }
    trimmed
}

impl Strategy for Merging {
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        if episode.is_first() {
            self.mean.clear();
            self.start = episode.start.parameters();
            self.before.clone_from(&self.changes);
        }
        Ok(())
    }

    fn watches(&self) -> bool {
        matches!(self.rule, WeightRule::Fading(_))
    }

    fn stepped(&mut self, change: &Change<'_>) {
        let WeightRule::Fading(decay) = self.rule else { return };
        if self.mean.is_empty() {
            self.mean = change.before.clone();
        }
        self.mean = combined(&self.mean, change.after, |mean, value| mean + (1.0 - decay as f32) * (value - mean));
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let now = adapter.parameters();
        let change = || combined(&now, &episode.initial.parameters(), |now, initial| now - initial);
        let merged = |change: &Parameters, scale: f64| {
            combined(&episode.initial.parameters(), change, |initial, change| initial + scale as f32 * change)
        };
        // The change of the experience takes the place of what its chunks before had.
        self.changes.clone_from(&self.before);
        let answer = match self.rule {
            WeightRule::Share(share) => combined(&now, &self.start, |now, start| start + share as f32 * (now - start)),
            WeightRule::Fading(_) if self.mean.is_empty() => now.clone(),
            WeightRule::Fading(_) => self.mean.clone(),
            WeightRule::Greatest { scale } => {
                let before = self.changes.pop().unwrap_or_default();
                let greatest = combined(&change(), &before, |new, old| if new.abs() >= old.abs() { new } else { old });
                self.changes.push(greatest.clone());
                merged(&greatest, scale)
            }
            WeightRule::Elected { density, scale } => {
                self.changes.push(trimmed(&change(), density));
                let zero = combined(&now, &now, |_, _| 0.0);
                let sum = self.changes.iter().fold(zero.clone(), |sum, one| combined(&sum, one, |sum, one| sum + one));
                let agree = |one: &Parameters| combined(&sum, one, |sum, one| if sum * one > 0.0 { one } else { 0.0 });
                let (mut total, mut count) = (zero.clone(), zero);
                for one in &self.changes {
                    let agreed = agree(one);
                    count = combined(&count, &agreed, |count, one| if one == 0.0 { count } else { count + 1.0 });
                    total = combined(&total, &agreed, |total, one| total + one);
                }
                merged(&combined(&total, &count, |total, count| total / count.max(1.0)), scale)
            }
        };
        let answer = replaced(adapter.clone(), answer)?;
        let goes_on = matches!(self.rule, WeightRule::Share(_) | WeightRule::Fading(_)) && episode.is_last();
        if goes_on {
            self.mean.clear();
            return Ok(Outcome::of(answer));
        }
        Ok(Outcome { trained: adapter, answer, method: None })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let changes = self.changes.iter().enumerate().map(|(at, change)| (format!("change-{at:04}"), change.clone()));
        let mean = Some(("mean".to_string(), self.mean.clone())).filter(|(_, mean)| !mean.is_empty());
        changes.chain(mean).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.mean = state.remove("mean").unwrap_or_default();
        self.changes = state.into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;

    use super::{Parameters, combined, trimmed};

    fn values(data: &[f32]) -> Parameters {
        let tensor = HostTensor { shape: vec![data.len()], data: data.to_vec(), origin: "x".into() };
        Parameters::from([("x".to_string(), tensor)])
    }

    #[test]
    fn trimming_and_merging_by_hand() {
        assert_eq!(trimmed(&values(&[0.1, -3.0, 2.0, 0.5]), 0.5)["x"].data, [0.0, -3.0, 2.0, 0.0]);
        let greatest = |new: f32, old: f32| if new.abs() >= old.abs() { new } else { old };
        // The second change is older and knows nothing of the last row.
        let merged = combined(&values(&[1.0, -2.0, 0.5]), &values(&[-3.0, 1.0]), greatest);
        assert_eq!(merged["x"].data, [-3.0, -2.0, 0.5]);
    }
}
