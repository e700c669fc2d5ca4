//! O-LoRA: an update of low rank for each experience, held apart from the subspaces of those before (Wang et al., 2023, arXiv
//! 2310.14152).
//!
//! In experience `t` the frozen weight is `W + s sum_{i<t} A_i B_i` and only `A_t`, `B_t` move, under
//! `L + weight sum_{i<t} |A_i^T A_t|^2`, summed over sites, with `A` `[d_input, rank]`. What answers is one `lora` of rank
//! `t rank`, which holds all factors side by side.
//!
//! It trains `lora`, or a stack with one `lora` in it, whose other members, such as class rows, are trained on from experience to
//! experience. The rank grows with the experiences and nothing has to know how many there will be.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, LoraConfig, LoraInit, Loss, MethodConfig, Parameters, SitePattern, stacked};
use inarch_recipes::{Moment, Recipe, Session};

use super::{Episode, Outcome, Strategy};
use crate::error::{Error, Result};

/// Orthogonal updates of low rank.
pub(super) struct OLora {
    weight: f64,
    /// The factors of all experiences before, side by side, under the paths of a `lora`.
    past: Parameters,
    experiences: usize,
}

type Part = (MethodConfig, Adapter);

/// The members of a stack, or the one adapter.
fn parts(method: &MethodConfig, adapter: &Adapter) -> Vec<Part> {
    match (method, adapter) {
        (MethodConfig::Stack(config), Adapter::Stack(stack)) => {
            config.members.iter().cloned().zip(stack.members().iter().cloned()).collect()
        }
        _ => vec![(method.clone(), adapter.clone())],
    }
}

fn joined(mut parts: Vec<Part>) -> Result<Part> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(stacked(parts)?),
    }
}

/// Which part is the `lora`, and its settings.
fn lora_of(parts: &[Part]) -> Result<(usize, LoraConfig)> {
    let mut found = parts.iter().enumerate().filter_map(|(at, (method, _))| match method {
        MethodConfig::Lora(config) => Some((at, config.clone())),
        _ => None,
    });
    let fault = |reason: &str| Error::setting("strategy o-lora", reason);
    match (found.next(), found.next()) {
        (Some((_, config)), None) if !matches!(config.init, LoraInit::Kaiming | LoraInit::Gaussian) => {
            Err(fault("updates start from zero; `init` must be `kaiming` or `gaussian`"))
        }
        (Some(one), None) => Ok(one),
        _ => Err(fault("it trains `lora`, or a stack with one `lora` in it; set `fit.method`")),
    }
}

/// The settings of so many updates side by side, of the same scale.
fn widened(config: &LoraConfig, count: usize) -> LoraConfig {
    let factor = if config.rank_stabilised { (count as f64).sqrt() } else { count as f64 };
    let ranks = config.rank_pattern.iter();
    let alphas = config.alpha_pattern.iter();
    LoraConfig {
        rank: config.rank * count,
        alpha: config.alpha * factor,
        init: LoraInit::Kaiming,
        rank_pattern: ranks.map(|one| SitePattern { value: one.value * count, sites: one.sites.clone() }).collect(),
        alpha_pattern: alphas.map(|one| SitePattern { value: one.value * factor, sites: one.sites.clone() }).collect(),
        ..config.clone()
    }
}

/// Factors side by side: `A` `[d_input, rank]` by columns, `B` `[rank, d_output]` by rows.
fn beside(left: &Parameters, right: &Parameters) -> Parameters {
    let join = |(name, right): (&String, &HostTensor)| {
        let Some(left) = left.get(name) else { return (name.clone(), right.clone()) };
        let by_rows = name.ends_with(".b");
        let (one, other) = (left.shape[1], right.shape[1]);
        let (shape, data) = if by_rows {
            (vec![left.shape[0] + right.shape[0], one], [left.data.as_slice(), &right.data].concat())
        } else {
            let rows = left.data.chunks(one.max(1)).zip(right.data.chunks(other.max(1)));
            (vec![left.shape[0], one + other], rows.flat_map(|(left, right)| [left, right].concat()).collect())
        };
        (name.clone(), HostTensor { shape, data, origin: name.clone() })
    };
    right.iter().map(join).collect()
}

/// `sum |A_i^T A_t|^2` of the trained factors of a stack's member `member`, `[1]`.
fn overlap(adapter: &Adapter, member: usize, past: &Parameters) -> Option<Tensor<1>> {
    let mut sum = Overlap { path: Vec::new(), prefix: format!("members.{member}."), past, total: None };
    adapter.visit_parameters(&mut sum);
    sum.total
}

struct Overlap<'a> {
    path: Vec<String>,
    prefix: String,
    past: &'a Parameters,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Overlap<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        // Behind the member's number stands the variant's name.
        let own = path.strip_prefix(&self.prefix).and_then(|own| own.split_once('.'));
        let Some((_, own)) = own.filter(|(_, own)| own.ends_with(".a")) else { return };
        let Some(past) = self.past.get(own) else { return };
        let value = param.val();
        let device = value.device().without_autodiff();
        let before = Tensor::<2>::from_data(TensorData::new(past.data.clone(), past.shape.clone()), &device);
        let rank = value.dims().iter().product::<usize>() / past.shape[0].max(1);
        let product = before.transpose().matmul(value.reshape([past.shape[0], rank]));
        let term = (product.clone() * product).sum();
        self.total = Some(match self.total.take() {
            Some(total) => total + term,
            None => term,
        });
    }
}

impl OLora {
    pub(super) fn new(weight: f64) -> Self {
        Self { weight, past: Parameters::new(), experiences: 0 }
    }

    /// The updates before as one adapter.
    fn before(&self, session: &Session<'_>, recipe: &Recipe, classes: &[String], config: &LoraConfig) -> Result<Part> {
        let method = MethodConfig::Lora(widened(config, self.experiences));
        let wide = Recipe { method: method.clone(), ..recipe.clone() };
        let device = session.backbone().device();
        let adapter = session.fresh_adapter(&wide, classes)?.with_parameters(self.past.clone(), device);
        Ok((method, adapter.map_err(|reason| Error::setting("updates before", reason))?))
    }
}

impl Strategy for OLora {
    fn start(
        &self,
        session: &Session<'_>,
        recipe: &Recipe,
        classes: &[String],
        grown: &Adapter,
    ) -> Result<Option<Part>> {
        let mut own = parts(&recipe.method, grown);
        let (at, config) = lora_of(&own)?;
        if self.experiences == 0 {
            return Ok(None);
        }
        let fresh = session.fresh_adapter(recipe, classes)?;
        own[at] = parts(&recipe.method, &fresh).remove(at);
        let before = self.before(session, recipe, classes, &config)?;
        Ok(Some(stacked([before].into_iter().chain(own))?))
    }

    fn rate(&self, _method: &MethodConfig, parameter: &str) -> f64 {
        if self.experiences > 0 && parameter.starts_with("members.0.") { 0.0 } else { 1.0 }
    }

    fn loss(&self, moment: &Moment<'_>, episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if self.experiences > 0
            && let Ok((at, _)) = lora_of(&parts(&episode.recipe.method, moment.adapter)[1..])
            && let Some(overlap) = overlap(moment.adapter, at + 1, &self.past)
        {
            loss.task = loss.task + overlap * self.weight;
        }
        loss
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let mut own = parts(&episode.recipe.method, &adapter.without_autodiff());
        if self.experiences > 0 {
            own.remove(0);
        }
        let (at, config) = lora_of(&own)?;
        let (_, trained) = joined(own.clone())?;
        self.past = beside(&self.past, &own[at].1.parameters());
        self.experiences += 1;
        own[at] = self.before(episode.session, episode.recipe, episode.classes, &config)?;
        let (method, answer) = joined(own)?;
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let count = HostTensor { shape: vec![1], data: vec![self.experiences as f32], origin: "count".into() };
        let count = Parameters::from([("count".to_string(), count)]);
        let parts = [("past", self.past.clone()), ("count", count)].map(|(name, part)| (name.to_string(), part));
        if self.experiences == 0 { BTreeMap::new() } else { parts.into() }
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.past = state.remove("past").unwrap_or_default();
        let count = state.remove("count").and_then(|count| count.get("count")?.data.first().copied());
        self.experiences = count.unwrap_or(0.0) as usize;
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;
    use inarch_peft::{LoraConfig, Parameters};

    use super::{beside, widened};

    fn factors(a: &[f32], b: &[f32], rank: usize) -> Parameters {
        let tensor = |name: &str, shape: Vec<usize>, data: &[f32]| {
            (name.to_string(), HostTensor { shape, data: data.to_vec(), origin: name.into() })
        };
        let shapes = [vec![a.len() / rank, rank], vec![rank, b.len() / rank]];
        let [left, right] = shapes;
        Parameters::from([tensor("sites.x.a", left, a), tensor("sites.x.b", right, b)])
    }

    fn product(factors: &Parameters) -> Vec<f32> {
        let (a, b) = (&factors["sites.x.a"], &factors["sites.x.b"]);
        let (rows, rank, columns) = (a.shape[0], a.shape[1], b.shape[1]);
        let entry = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            (0..rank).map(|k| a.data[row * rank + k] * b.data[k * columns + column]).sum()
        };
        (0..rows * columns).map(entry).collect()
    }

    #[test]
    fn factors_side_by_side_are_the_sum_of_the_updates() {
        let one = factors(&[1.0, 2.0, 3.0], &[4.0, 5.0], 1);
        let other = factors(&[0.5, -1.0, 2.0, 0.0, 1.0, 1.0], &[1.0, 2.0, -3.0, 0.25], 2);
        let both = beside(&beside(&Parameters::new(), &one), &other);
        assert_eq!(
            (both["sites.x.a"].shape.as_slice(), both["sites.x.b"].shape.as_slice()),
            (&[3, 3][..], &[3, 2][..])
        );
        let sum: Vec<f32> = product(&one).iter().zip(product(&other)).map(|(one, other)| one + other).collect();
        assert_eq!(product(&both), sum);
        for rank_stabilised in [true, false] {
            let config = LoraConfig { rank: 3, alpha: 1.7, rank_stabilised, ..LoraConfig::default() };
            let wide = widened(&config, 5);
            assert_eq!(wide.rank, 15);
            assert!((wide.scale() - config.scale()).abs() < 1e-12);
        }
    }
}
