//! CODA-Prompt: components of each experience beside those of all before, which stand still (Smith et al., CVPR 2023, arXiv 2211.13218).
//!
//! An image's prompt is the sum of the components of all experiences, each weighted by how near the image is to its key. An experience
//! trains its own components, keys and attention vectors, under the cross entropy of what arrives among its own classes and the penalty
//! that keeps the components of all experiences apart. They start at right angles to those before and to each other, each of length 1
//! (Gram and Schmidt), as long as there is room; components beyond that start as drawn, of length 1. No sample is kept, an answer depends
//! on no other image of a batch, and nothing has to know how many experiences there will be: each brings `components` of its own, where
//! the authors divide one pool among a number of experiences that is known.
//!
//! The recipe's method is `coda-prompt`, or a stack with one in it, whose other members, such as class rows, are trained on from experience
//! to experience.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, CodaPromptConfig, Loss, MethodConfig, Parameters};
use inarch_recipes::{Moment, Recipe};

use super::among::{classes_of, own_loss};
use super::branches::{Part, joined, parts};
use super::needs::CODA_PROMPT;
use super::weights::{append, replaced};
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// What a row must keep of its length when its parts along the others are taken out, to count as a direction of its own.
const LEAST: f64 = 1e-3;

/// The components of all experiences.
#[derive(Default)]
pub(super) struct CodaPrompt {
    /// Their tensors, one experience behind the other, under the names that they have in training: `blocks.<i>.<part>`.
    past: Parameters,
    experiences: usize,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

/// The path of the components before, beside those in training (`blocks.<i>.<part>`).
fn before(name: &str) -> Option<String> {
    let (block, part) = name.rsplit_once('.')?;
    Some(format!("{block}.past.{part}.fixed"))
}

/// Whether a path is one of components in training.
fn is_open(name: &str) -> bool {
    !name.ends_with(".fixed")
}

/// Turns rows of a `width` at right angles to those `before` and to each other, each of length 1; a row that has no direction of its own left
/// stays as it is, of length 1.
fn orthonormal(before: &[f32], rows: &mut [f32], width: usize) {
    let dot = |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(a, b)| a * b).sum::<f64>();
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut unit = |row: &[f32]| -> Vec<f64> {
        let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let length = dot(&row, &row).sqrt().max(f64::MIN_POSITIVE);
        let row: Vec<f64> = row.iter().map(|value| value / length).collect();
        let mut own = row.clone();
        // Twice, since what rounding leaves of the first time is as large as a short remainder.
        for _ in 0..2 {
            for direction in &basis {
                let along = dot(&own, direction);
                own.iter_mut().zip(direction).for_each(|(value, along_it)| *value -= along * along_it);
            }
        }
        let left = dot(&own, &own).sqrt();
        if left < LEAST {
            return row;
        }
        let own: Vec<f64> = own.iter().map(|value| value / left).collect();
        basis.push(own.clone());
        own
    };
    before.chunks(width.max(1)).for_each(|row| drop(unit(row)));
    for row in rows.chunks_mut(width.max(1)) {
        let turned = unit(row);
        row.iter_mut().zip(turned).for_each(|(value, turned)| *value = turned as f32);
    }
}

impl CodaPrompt {
    /// The tensors of a method with the components of the experiences before, and fresh ones at right angles to them.
    fn open(&self, fresh: Parameters) -> Parameters {
        let mut values = fresh;
        let names: Vec<String> = values.keys().filter(|name| is_open(name)).cloned().collect();
        for name in names {
            let past = self.past.get(&name);
            if let (Some(past), Some(place)) = (past, before(&name).and_then(|path| values.get_mut(&path))) {
                place.data.clone_from(&past.data);
            }
            let Some(tensor) = values.get_mut(&name) else { continue };
            let width = tensor.shape[1..].iter().product();
            orthonormal(past.map_or(&[][..], |past| &past.data), &mut tensor.data, width);
        }
        values
    }
}

impl Strategy for CodaPrompt {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Beginning { session, recipe, classes, grown, .. } = *beginning;
        let mut own = parts(&recipe.method, grown);
        let (at, config) = CODA_PROMPT.part::<CodaPromptConfig>(&own)?;
        CODA_PROMPT.counts(config.experiences)?;
        let method = MethodConfig::CodaPrompt(CodaPromptConfig { experiences: self.experiences + 1, ..config });
        let fresh = session.fresh_adapter(&Recipe { method: method.clone(), ..recipe.clone() }, classes)?;
        let values = self.open(fresh.parameters());
        own[at] = (method, replaced(fresh, values)?);
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
        let own = parts(&recipe.method, &adapter.without_autodiff());
        let (at, config) = CODA_PROMPT.part::<CodaPromptConfig>(&own)?;
        append(&mut self.past, &own[at].1.parameters(), is_open);
        self.experiences += 1;
        // What is trained next starts from the state; the recipe's own adapter only holds its place.
        let place = MethodConfig::CodaPrompt(CodaPromptConfig { experiences: 1, ..config });
        let fresh = session.fresh_adapter(&Recipe { method: place.clone(), ..recipe.clone() }, classes)?;
        let mut trained = own.clone();
        trained[at] = (place, fresh.without_autodiff());
        let ((_, trained), (method, answer)) = (joined(trained)?, joined(own)?);
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        if self.experiences == 0 {
            return BTreeMap::new();
        }
        let count = HostTensor { shape: vec![1], data: vec![self.experiences as f32], origin: "count".into() };
        let count = Parameters::from([("count".to_string(), count)]);
        BTreeMap::from([("past", self.past.clone()), ("count", count)].map(|(name, part)| (name.to_string(), part)))
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.past = state.remove("past").unwrap_or_default();
        let count = state.remove("count").and_then(|count| count.get("count")?.data.first().copied());
        self.experiences = count.unwrap_or(0.0) as usize;
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;
    use inarch_core::backbone::HostTensor;
    use inarch_peft::Parameters;

    use super::{CodaPrompt, append, is_open, orthonormal};

    fn dot(left: &[f32], right: &[f32]) -> f32 {
        left.iter().zip(right).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn fresh_rows_stand_at_right_angles_to_all_others() {
        // Those before were trained, and are neither of length 1 nor at right angles.
        let before = Seed::new(1).normals(2 * 6, 2.0);
        let mut rows = Seed::new(2).normals(3 * 6, 1.0);
        orthonormal(&before, &mut rows, 6);
        for (at, row) in rows.chunks(6).enumerate() {
            before.chunks(6).for_each(|past| assert!(dot(row, past).abs() < 1e-5));
            for (other, column) in rows.chunks(6).enumerate() {
                let expected = if at == other { 1.0 } else { 0.0 };
                assert!((dot(row, column) - expected).abs() < 1e-6, "{at} {other}");
            }
        }
    }

    #[test]
    fn beyond_the_room_there_is_they_start_as_drawn() {
        let before = [1.0, 0.0, 0.0, 3.0];
        let mut rows = vec![3.0, 4.0];
        orthonormal(&before, &mut rows, 2);
        assert_eq!(rows, [0.6, 0.8]);
        let mut none: Vec<f32> = vec![0.0, 0.0];
        orthonormal(&[], &mut none, 2);
        assert_eq!(none, [0.0, 0.0]);
    }

    #[test]
    fn those_before_come_back_as_they_were_trained() {
        let tensor = |name: &str, rows: usize, data: Vec<f32>| {
            (name.to_string(), HostTensor { shape: vec![rows, 2], data, origin: name.into() })
        };
        let mut strategy = CodaPrompt::default();
        append(&mut strategy.past, &Parameters::from([tensor("blocks.0.keys", 1, vec![0.5, 0.0])]), is_open);
        strategy.experiences = 1;
        let fresh = Parameters::from([
            tensor("blocks.0.keys", 1, vec![1.0, -2.0]),
            tensor("blocks.0.past.keys.fixed", 1, vec![9.0, 9.0]),
        ]);
        let opened = strategy.open(fresh);
        assert_eq!(opened["blocks.0.past.keys.fixed"].data, [0.5, 0.0]);
        assert_eq!(opened["blocks.0.keys"].data, [0.0, -1.0]);
        let trained = Parameters::from([
            tensor("blocks.0.keys", 1, vec![7.0, 8.0]),
            tensor("blocks.0.past.keys.fixed", 1, vec![0.5, 0.0]),
        ]);
        append(&mut strategy.past, &trained, is_open);
        assert_eq!(
            (strategy.past.len(), strategy.past["blocks.0.keys"].data.as_slice()),
            (1, &[0.5, 0.0, 7.0, 8.0][..])
        );
    }
}
