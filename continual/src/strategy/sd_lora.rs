//! SD-LoRA: an update of low rank for each experience, whose direction stands still when the experience is over while its
//! magnitude is trained on (Wu et al., ICLR 2025, arXiv 2501.13198).
//!
//! In experience `t` the method `sd-lora` takes the place of the recipe's `lora`: `W + sum_{i<t} m_i A_i B_i + m_t A_t B_t`
//! with `|A_i| = |B_i| = 1`, of which `A_t`, `B_t` and all magnitudes move. When it is over, `A_t` and `B_t` are brought to
//! length 1 and `m_t` takes up their lengths, so that nothing else changes. What answers is one `lora` of the rank of all.
//! The loss is the cross entropy of what arrives among its own classes, as in the authors' code. No sample is kept, no image
//! has to be assigned to an experience, and nothing has to know how many experiences there will be.
//!
//! The recipe's method is `lora`, or a stack with one `lora` in it, whose other members, such as class rows, are trained on
//! from experience to experience.
//!
//! Departures: a magnitude goes on from where it was, where the authors' code starts all of them anew in every experience,
//! at the price of what was learned; and it belongs to one layer, without which the step above could not keep the function.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{
    Adapter, LoraConfig, LoraInit, Loss, MethodConfig, Parameters, SdLoraConfig, SitePattern, all_sites,
};
use inarch_recipes::{Moment, Recipe, Session};

use super::among::{classes_of, own_loss};
use super::branches::{Part, beside, joined, lora_of, members, only, parts};
use super::needs::SD_LORA;
use super::weights::replaced;
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// The states: factors `a`, `b` of length 1, side by side, and `magnitudes` `[experiences]`, by the path of the site.
const DIRECTIONS: &str = "directions";
const MAGNITUDES: &str = "magnitudes";

/// Directions that stand still under magnitudes that move.
pub(super) struct SdLora {
    magnitude: f64,
    directions: Parameters,
    magnitudes: Parameters,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

/// `sd-lora` of so many experiences in place of a `lora`.
fn decoupled(config: &LoraConfig, experiences: usize) -> MethodConfig {
    MethodConfig::SdLora(SdLoraConfig {
        experiences,
        magnitude: 1.0,
        rank: config.rank,
        dropout: config.dropout,
        targets: config.targets.clone(),
        b_rate: config.b_rate,
        rank_pattern: config.rank_pattern.clone(),
    })
}

/// `lora` of the rank of so many updates, with a scale of 1.
fn coupled(config: &SdLoraConfig, count: usize) -> MethodConfig {
    let ranks = || config.rank_pattern.iter().map(|one| (one.value * count, one.sites.clone()));
    MethodConfig::Lora(LoraConfig {
        rank: config.rank * count,
        alpha: (config.rank * count) as f64,
        rank_stabilised: false,
        dropout: config.dropout,
        targets: config.targets.clone(),
        init: LoraInit::Kaiming,
        b_rate: config.b_rate,
        rank_pattern: ranks().map(|(value, sites)| SitePattern { value, sites }).collect(),
        alpha_pattern: ranks().map(|(value, sites)| SitePattern { value: value as f64, sites }).collect(),
    })
}

/// Values of length 1, and their length before; zeros stay zeros.
fn unit(tensor: &HostTensor) -> (HostTensor, f64) {
    let length = tensor.data.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let by = if length > 0.0 { length } else { 1.0 };
    let data = tensor.data.iter().map(|value| (f64::from(*value) / by) as f32).collect();
    (HostTensor { data, ..tensor.clone() }, length)
}

/// An adapter of a method with given values.
fn filled(
    session: &Session<'_>,
    (recipe, classes): (&Recipe, &[String]),
    method: &MethodConfig,
    values: Parameters,
) -> Result<Adapter> {
    let recipe = Recipe { method: method.clone(), ..recipe.clone() };
    replaced(session.fresh_adapter(&recipe, classes)?, values)
}

impl SdLora {
    pub(super) fn new(magnitude: f64) -> Self {
        let [directions, magnitudes] = [(); 2].map(|()| Parameters::new());
        Self { magnitude, directions, magnitudes, current: Vec::new() }
    }

    fn experiences(&self) -> usize {
        self.magnitudes.values().next().map_or(0, |magnitudes| magnitudes.data.len())
    }

    /// Takes up what a training left: the values of `sd-lora`.
    fn take_up(&mut self, values: &Parameters) {
        let mut fresh = Parameters::new();
        for (name, magnitudes) in values {
            let Some(site) = name.strip_suffix(".magnitudes") else { continue };
            let mut magnitudes = magnitudes.clone();
            let mut length = 1.0;
            for factor in ["a", "b"] {
                let path = format!("{site}.{factor}");
                let Some(tensor) = values.get(&path) else { continue };
                let (direction, own) = unit(tensor);
                length *= own;
                fresh.insert(path, direction);
            }
            if let Some(last) = magnitudes.data.last_mut() {
                *last = (f64::from(*last) * length) as f32;
            }
            self.magnitudes.insert(name.clone(), magnitudes);
        }
        self.directions = beside(&self.directions, &fresh);
    }

    /// The factors of all updates, side by side, as those of a `lora` with a scale of 1.
    fn sum(&self) -> Parameters {
        let factor = |(name, tensor): (&String, &HostTensor)| {
            let mut tensor = tensor.clone();
            let magnitudes =
                name.strip_suffix(".b").and_then(|site| self.magnitudes.get(&format!("{site}.magnitudes")));
            if let Some(magnitudes) = magnitudes {
                let each = tensor.data.len() / magnitudes.data.len().max(1);
                let rows = tensor.data.chunks_mut(each.max(1)).zip(&magnitudes.data);
                rows.for_each(|(rows, magnitude)| rows.iter_mut().for_each(|value| *value *= magnitude));
            }
            (name.clone(), tensor)
        };
        self.directions.iter().map(factor).collect()
    }
}

impl Strategy for SdLora {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Beginning { session, recipe, classes, grown, .. } = *beginning;
        let (at, config) = lora_of(SD_LORA, members(&recipe.method))?;
        if !self.magnitude.is_finite() {
            return Err(SD_LORA.fault(format!("`magnitude` must be a number, found {}", self.magnitude)));
        }
        let mut own = parts(&recipe.method, grown);
        let mut values = parts(&recipe.method, &session.fresh_adapter(recipe, classes)?).remove(at).1.parameters();
        let method = decoupled(&config, self.experiences() + 1);
        for site in all_sites(session.backbone()) {
            let path = format!("sites.{site}");
            if !values.contains_key(&format!("{path}.a")) {
                continue;
            }
            let name = format!("{path}.magnitudes");
            let mut magnitudes = self.magnitudes.get(&name).map_or_else(Vec::new, |known| known.data.clone());
            magnitudes.push((self.magnitude * config.scale_at(site)) as f32);
            for factor in ["a", "b"] {
                if let Some(before) = self.directions.get(&format!("{path}.{factor}")) {
                    values.insert(format!("{path}.past.{factor}.fixed"), before.clone());
                }
            }
            let tensor = HostTensor { shape: vec![magnitudes.len()], data: magnitudes, origin: name.clone() };
            values.insert(name, tensor);
        }
        let adapter = filled(session, (recipe, classes), &method, values)?;
        own[at] = (method, adapter);
        joined(own).map(Some)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.current = classes_of(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let Episode { session, recipe, classes, .. } = *episode;
        let mut own = parts(&recipe.method, &adapter.without_autodiff());
        let (at, config) =
            only(own.iter().map(|(method, _)| method), |method| method.settings::<SdLoraConfig>().cloned())
                .ok_or_else(|| SD_LORA.fault("it trains `sd-lora`"))?;
        let values = own[at].1.parameters();
        self.take_up(&values);
        let factors: Parameters = values.into_iter().filter(|(name, _)| self.directions.contains_key(name)).collect();
        let last = coupled(&config, 1);
        let mut trained = own.clone();
        trained[at] = (last.clone(), filled(session, (recipe, classes), &last, factors)?.without_autodiff());
        let all = coupled(&config, self.experiences());
        let sum = filled(session, (recipe, classes), &all, self.sum())?.without_autodiff();
        own[at] = (all, sum);
        let ((_, trained), (method, answer)) = (joined(trained)?, joined(own)?);
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let parts = [(DIRECTIONS, &self.directions), (MAGNITUDES, &self.magnitudes)].into_iter();
        parts.filter(|(_, part)| !part.is_empty()).map(|(name, part)| (name.to_string(), part.clone())).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        let mut take = |name: &str| state.remove(name).unwrap_or_default();
        (self.directions, self.magnitudes) = (take(DIRECTIONS), take(MAGNITUDES));
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;
    use inarch_peft::Parameters;

    use super::SdLora;

    /// Values of `sd-lora` at one site: `A` `[3, 1]`, `B` `[1, 2]`.
    fn values(a: [f32; 3], b: [f32; 2], magnitudes: &[f32]) -> Parameters {
        let tensor = |name: &str, shape: Vec<usize>, data: &[f32]| {
            let name = format!("sites.x.{name}");
            (name.clone(), HostTensor { shape, data: data.to_vec(), origin: name })
        };
        let magnitudes = tensor("magnitudes", vec![magnitudes.len()], magnitudes);
        Parameters::from([tensor("a", vec![3, 1], &a), tensor("b", vec![1, 2], &b), magnitudes])
    }

    /// `sum_k A_k B_k`, `[3, 2]`.
    fn product(factors: &Parameters) -> Vec<f32> {
        let (a, b) = (&factors["sites.x.a"], &factors["sites.x.b"]);
        let rank = a.shape[1];
        let entry = |at: usize| (0..rank).map(|k| a.data[at / 2 * rank + k] * b.data[k * 2 + at % 2]).sum();
        (0..6).map(entry).collect()
    }

    #[test]
    fn a_direction_is_kept_at_length_one_and_its_magnitude_takes_up_the_rest() {
        let mut strategy = SdLora::new(0.8);
        strategy.take_up(&values([2.0, 0.0, 0.0], [0.0, 3.0], &[0.5]));
        assert_eq!(strategy.magnitudes["sites.x.magnitudes"].data, [3.0]);
        assert_eq!(product(&strategy.sum()), [0.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
        // The next training moved the first magnitude to -1 and left an update of `0.25 A B`.
        strategy.take_up(&values([0.0, 3.0, 4.0], [8.0, 0.0], &[-1.0, 0.25]));
        let directions = &strategy.directions;
        assert_eq!(directions["sites.x.a"].data, [1.0, 0.0, 0.0, 0.6, 0.0, 0.8]);
        assert_eq!(directions["sites.x.b"].data, [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(strategy.magnitudes["sites.x.magnitudes"].data, [-1.0, 10.0]);
        for (found, expected) in product(&strategy.sum()).iter().zip([0.0, -1.0, 6.0, 0.0, 8.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        // An update that never moved has no direction.
        strategy.take_up(&values([1.0, 1.0, 1.0], [0.0, 0.0], &[-1.0, 10.0, 0.8]));
        assert_eq!(strategy.magnitudes["sites.x.magnitudes"].data, [-1.0, 10.0, 0.0]);
        assert!(strategy.sum()["sites.x.b"].data.iter().all(|value| value.is_finite()));
    }
}
