//! DualPrompt: keys and values that all experiences share, and an expert of each experience, which an image finds by its own frozen
//! feature (Wang et al., ECCV 2022, arXiv 2204.04799).
//!
//! An experience trains the general part and one expert with a key of its own, under the cross entropy of what arrives among its own
//! classes less `pull` times the cosine of key and feature. The expert starts as the one before, its key afresh. What answers is
//! `dual-prompt` with the experts of all experiences; an image takes the one whose key is nearest. No sample is kept, an answer depends on
//! no other image of a batch, and nothing has to know how many experiences there will be.
//!
//! The recipe's method is `dual-prompt` with `pool = 1`, or a stack with one in it, whose other members, such as class rows, are trained on
//! from experience to experience.

use std::collections::BTreeMap;

use inarch_peft::{Adapter, DualPromptConfig, Loss, MethodConfig, Parameters};
use inarch_recipes::{Moment, Recipe};

use super::among::{classes_of, own_loss};
use super::branches::{Part, joined, parts};
use super::needs::DUAL_PROMPT;
use super::weights::{append, replaced};
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// The keys of the experts, `[experts, dim]`.
const KEYS: &str = "keys";
/// Before the paths of the experts' own keys and values, `[experts, length, width]`.
const EXPERT: &str = "expert.";

/// The experts of all experiences.
#[derive(Default)]
pub(super) struct DualPrompt {
    /// Their tensors, one expert behind the other, under the names of the method.
    past: Parameters,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

/// Whether the method leaves it to the strategy to add experts.
pub(super) fn one_expert(config: &DualPromptConfig) -> Result<()> {
    match config.pool {
        1 => Ok(()),
        _ => Err(DUAL_PROMPT.fault("it adds an expert in each experience; set the method's `pool` to 1")),
    }
}

/// Whether a tensor has one row for each expert.
fn is_expert(name: &str) -> bool {
    name == KEYS || name.starts_with(EXPERT)
}

impl Strategy for DualPrompt {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Beginning { session, recipe, classes, grown, .. } = *beginning;
        let mut own = parts(&recipe.method, grown);
        let (at, config) = DUAL_PROMPT.part::<DualPromptConfig>(&own)?;
        one_expert(&config)?;
        if self.past.is_empty() {
            return Ok(None);
        }
        let mut fresh = parts(&recipe.method, &session.fresh_adapter(recipe, classes)?).remove(at).1.parameters();
        let mut values = own[at].1.parameters();
        values.extend(fresh.remove_entry(KEYS));
        own[at].1 = replaced(own[at].1.clone(), values)?;
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
        let trained = adapter.without_autodiff();
        let mut own = parts(&recipe.method, &trained);
        let (at, config) = DUAL_PROMPT.part::<DualPromptConfig>(&own)?;
        let mut values = own[at].1.parameters();
        append(&mut self.past, &values, is_expert);
        values.extend(self.past.clone());
        let pool = self.past.get(KEYS).map_or(1, |keys| keys.shape[0]);
        let method = MethodConfig::DualPrompt(DualPromptConfig { pool, ..config });
        let wide = session.fresh_adapter(&Recipe { method: method.clone(), ..recipe.clone() }, classes)?;
        own[at] = (method, replaced(wide.without_autodiff(), values)?);
        let (method, answer) = joined(own)?;
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let all = (!self.past.is_empty()).then(|| ("past".to_string(), self.past.clone()));
        all.into_iter().collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.past = state.remove("past").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;
    use inarch_peft::Parameters;

    use super::{append, is_expert};

    #[test]
    fn experts_stand_behind_each_other_and_the_general_part_is_not_kept() {
        let one = |value: f32| {
            let tensor = |name: &str, shape: Vec<usize>| {
                let data = vec![value; shape.iter().product()];
                (name.to_string(), HostTensor { shape, data, origin: name.into() })
            };
            let shapes = [("keys", vec![1, 2]), ("expert.0.key", vec![1, 2, 1]), ("general.0.key", vec![1, 1, 1])];
            Parameters::from(shapes.map(|(name, shape)| tensor(name, shape)))
        };
        let mut past = Parameters::new();
        [1.0, 2.0, 3.0].into_iter().for_each(|value| append(&mut past, &one(value), is_expert));
        assert_eq!(past.keys().map(String::as_str).collect::<Vec<_>>(), ["expert.0.key", "keys"]);
        assert_eq!(
            (past["keys"].shape.as_slice(), past["expert.0.key"].shape.as_slice()),
            (&[3, 2][..], &[3, 2, 1][..])
        );
        assert_eq!(past["keys"].data, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    }
}
