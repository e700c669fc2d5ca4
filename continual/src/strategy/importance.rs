//! Strategies that hold values in place in proportion to their importance: EWC, online EWC, SI and MAS.
//!
//! The penalty is `weight * sum_j F_j (theta_j - c_j)^2` (without a factor 1/2, as in Avalanche and mammoth).
//! EWC: `F` sums over experiences the mean squared gradient of single samples' cross entropy, each around its own values; a sum
//! of parabolas is one parabola, so one `F` and one centre suffice. Online EWC: `F` fades, the centre is the latest. SI:
//! `sum over steps of -g dtheta / (|change|^2 + damping)`. MAS: `mean |d |z|^2 / d theta|` with scores `z`.
//! Both are brought to a greatest value of 1 and averaged over the experiences: their sizes go with the square of the logit scale
//! and with the number of experiences, and a penalty that outgrows the learning rate makes a training diverge. Rows of classes that
//! come later start with no importance.
//!
//! An experience that comes in chunks is one: in all of them values are held to what the experiences before left, and the importances
//! of its trainings are averaged; the path of SI goes through all of it.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_peft::{Adapter, Loss, Parameters, cross_entropy};
use inarch_recipes::{Change, Moment};

use super::{Episode, Outcome, Strategy};
use crate::error::Result;

/// How importance is found.
#[derive(Clone, Copy)]
pub(super) enum Importance {
    /// Squared gradients of single samples; with `decay` one fading sum.
    Fisher {
        /// How many samples.
        samples: usize,
        /// What is left of the old sum.
        decay: Option<f64>,
    },
    /// What each value contributed to the fall of the loss.
    Path {
        /// Added to the squared change.
        damping: f64,
    },
    /// Gradients of the squared length of the scores.
    Sensitivity {
        /// How many samples.
        samples: usize,
    },
}

/// A quadratic penalty.
pub(super) struct Quadratic {
    weight: f64,
    kind: Importance,
    importance: Parameters,
    centre: Parameters,
    /// SI's sum over the steps of the experience.
    path: Parameters,
    experience: Gathered,
}

/// What an experience began with, and what its trainings have found so far.
#[derive(Default)]
struct Gathered {
    /// Values when it began.
    start: Parameters,
    /// What the experiences before left.
    importance: Parameters,
    centre: Parameters,
    /// Importances that were found, a sum over trainings; those of SI are found over all of them.
    found: Parameters,
}

impl Quadratic {
    pub(super) fn new(weight: f64, kind: Importance) -> Self {
        let [importance, centre, path] = [(); 3].map(|()| Parameters::new());
        Self { weight, kind, importance, centre, path, experience: Gathered::default() }
    }

    /// The mean over samples of what `of` makes of their gradients.
    fn measured(&self, episode: &Episode<'_>, adapter: &Adapter, samples: usize) -> Result<Parameters> {
        let order = Seed::new(episode.recipe.seed).split("importance").order(episode.train.len());
        let chosen: Vec<_> = order.iter().take(samples).map(|at| episode.train[*at].clone()).collect();
        let count = chosen.len().max(1) as f32;
        let fisher = matches!(self.kind, Importance::Fisher { .. });
        let mut sum = Parameters::new();
        let loss = |position: usize, step: &inarch_peft::Step<'_>| match fisher {
            true => cross_entropy(step.logits.clone(), &[chosen[position].label]),
            false => (step.logits.clone() * step.logits.clone()).sum(),
        };
        let mut take = |gradients: &Parameters| {
            for (name, gradient) in gradients {
                let own = sum.entry(name.clone()).or_insert_with(|| zeros(gradient));
                for (sum, value) in own.data.iter_mut().zip(&gradient.data) {
                    *sum += if fisher { value * value } else { value.abs() } / count;
                }
            }
        };
        episode.session.sample_gradients((episode.recipe, episode.classes, adapter), &chosen, &loss, &mut take)?;
        Ok(sum)
    }
}

fn zeros(like: &inarch_core::backbone::HostTensor) -> inarch_core::backbone::HostTensor {
    inarch_core::backbone::HostTensor { data: vec![0.0; like.data.len()], ..like.clone() }
}

/// The values with zeros for rows that have come since.
fn padded(values: &Parameters, like: &Parameters) -> Parameters {
    let pad = |(name, like): (&String, &inarch_core::backbone::HostTensor)| {
        let mut all = zeros(like);
        if let Some(known) = values.get(name) {
            all.data.iter_mut().zip(&known.data).for_each(|(all, known)| *all = *known);
        }
        (name.clone(), all)
    };
    like.iter().map(pad).collect()
}

/// `sum_j F_j (theta_j - c_j)^2` over an adapter's parameters, `[1]`.
pub(super) fn quadratic(adapter: &Adapter, importance: &Parameters, centre: &Parameters) -> Option<Tensor<1>> {
    let mut sum = Sum { path: Vec::new(), importance, centre, total: None };
    adapter.visit_parameters(&mut sum);
    sum.total
}

struct Sum<'a> {
    path: Vec<String>,
    importance: &'a Parameters,
    centre: &'a Parameters,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Sum<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let (Some(importance), Some(centre)) = (self.importance.get(&name), self.centre.get(&name)) else { return };
        let value = param.val();
        let (device, count) = (value.device().without_autodiff(), importance.data.len());
        let flat = value.reshape([-1]);
        // Rows that have come since are free.
        if count == 0 || count > flat.dims()[0] {
            return;
        }
        let tensor = |data: &[f32]| Tensor::<1>::from_data(TensorData::new(data.to_vec(), [count]), &device);
        let apart = flat.narrow(0, 0, count) - tensor(&centre.data);
        let term = (apart.clone() * apart * tensor(&importance.data)).sum();
        self.total = Some(match self.total.take() {
            Some(total) => total + term,
            None => term,
        });
    }
}

impl Strategy for Quadratic {
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        if episode.is_first() {
            self.path.clear();
            self.experience = Gathered {
                start: episode.start.parameters(),
                importance: self.importance.clone(),
                centre: self.centre.clone(),
                found: Parameters::new(),
            };
        }
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        let Gathered { importance, centre, .. } = &self.experience;
        if let Some(penalty) = quadratic(moment.adapter, importance, centre) {
            loss.task = loss.task + penalty * self.weight;
        }
        loss
    }

    fn watches(&self) -> bool {
        matches!(self.kind, Importance::Path { .. })
    }

    fn stepped(&mut self, change: &Change<'_>) {
        for (name, gradient) in change.gradients {
            let (Some(before), Some(after)) = (change.before.get(name), change.after.get(name)) else { continue };
            let path = self.path.entry(name.clone()).or_insert_with(|| zeros(gradient));
            for (at, sum) in path.data.iter_mut().enumerate() {
                *sum -= gradient.data[at] * (after.data[at] - before.data[at]);
            }
        }
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let now = adapter.parameters();
        let found = match self.kind {
            Importance::Fisher { samples, .. } | Importance::Sensitivity { samples } => {
                self.measured(episode, &adapter, samples)?
            }
            Importance::Path { damping } => {
                let mut found = padded(&self.path, &now);
                for (name, importance) in &mut found {
                    let (start, now) = (&self.experience.start[name].data, &now[name].data);
                    for (at, value) in importance.data.iter_mut().enumerate() {
                        let change = now[at] - start[at];
                        *value = (*value / (change * change + damping as f32)).max(0.0);
                    }
                }
                found
            }
        };
        let old = padded(&self.experience.importance, &now);
        let old_centre = padded(&self.experience.centre, &now);
        let greatest =
            found.values().flat_map(|tensor| &tensor.data).fold(1e-20f32, |greatest, value| greatest.max(*value));
        let count = (episode.index + 1) as f32;
        // What is left of the old sum, the factor on the new values, and whether each keeps its own centre.
        let (decay, factor, one_parabola) = match self.kind {
            Importance::Fisher { decay: Some(decay), .. } => (decay as f32, 1.0, false),
            Importance::Fisher { decay: None, .. } => (1.0, 1.0, true),
            Importance::Path { .. } | Importance::Sensitivity { .. } => {
                (1.0 - 1.0 / count, 1.0 / (count * greatest), false)
            }
        };
        let along = matches!(self.kind, Importance::Path { .. });
        let share = if along { 1.0 } else { 1.0 / (episode.training + 1) as f32 };
        let (mut importance, mut centre) = (old.clone(), now.clone());
        for (name, sum) in &mut importance {
            let Some(found) = found.get(name) else { continue };
            let centre = centre.get_mut(name).map(|tensor| &mut tensor.data);
            let Some(centre) = centre else { continue };
            let gathered = &mut self.experience.found.entry(name.clone()).or_insert_with(|| zeros(found)).data;
            for (at, sum) in sum.data.iter_mut().enumerate() {
                let here = factor * found.data[at];
                gathered[at] = if along { here } else { gathered[at] + here };
                let (before, new) = (decay * *sum, share * gathered[at]);
                *sum = before + new;
                if one_parabola && *sum > 0.0 {
                    centre[at] = (before * old_centre[name].data[at] + new * now[name].data[at]) / *sum;
                }
            }
        }
        (self.importance, self.centre) = (importance, centre);
        Ok(Outcome::of(adapter))
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let parts = [("importance", &self.importance), ("centre", &self.centre), ("path", &self.path)];
        parts.into_iter().map(|(name, part)| (name.to_string(), part.clone())).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        let mut take = |name: &str| state.remove(name).unwrap_or_default();
        (self.importance, self.centre, self.path) = (take("importance"), take("centre"), take("path"));
    }
}
