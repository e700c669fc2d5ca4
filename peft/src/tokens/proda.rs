//! ProDA: a distribution of prompts for each class, learned as several contexts (Lu et al., CVPR 2022, arXiv 2205.03340).
//!
//! `K` contexts `[n, width]` with the class name in different places give each class `K` features `t_cp` `[dim]`; their mean
//! scores it. In training the scores of image `f` with label `y` gain the upper bound
//! `s^2 / 2 * sum_d f_d^2 v_cyd`, `v_cyd = sum_p (x_cpd - x_ypd)^2 / (K + 1)`, `x_cp = t_cp - mean_p t_cp` (logit scale `s`,
//! covariance taken as diagonal, as in the authors' code), and the loss gains `weight` times the mean absolute cosine between
//! different prompts. Count: `K * n * width`. Random contexts, so a fresh adapter is not zero-shot. Site: the input tokens of
//! the text tower.
//!
//! One departure: the cosine is that of each prompt's mean over the classes; the authors encode the prompts once more without
//! a class name. They also draw four of the prompts in each step, and this takes all.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower, normalise};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::{ClassPosition, Context};
use super::coop::around_names;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::linear::check_finite;
use crate::method::{Method, Start};

/// Settings of ProDA; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProDaConfig {
    /// Number of contexts. Half have the class name at the end, a quarter in the middle, a quarter in front.
    pub prompts: usize,
    /// Tokens of each context.
    pub context: usize,
    /// Weight of the cosine between prompts.
    pub weight: f64,
}

impl Default for ProDaConfig {
    fn default() -> Self {
        Self { prompts: 32, context: 16, weight: 0.1 }
    }
}

impl ProDaConfig {
    /// Where the class name stands in prompt `index`.
    fn position(&self, index: usize) -> ClassPosition {
        match index * 4 / self.prompts.max(1) {
            0 | 1 => ClassPosition::End,
            2 => ClassPosition::Middle,
            _ => ClassPosition::Front,
        }
    }

    fn start(&self, index: usize) -> Context<'_> {
        Context::new("", self.context).at(self.position(index))
    }
}

/// More prompts than anyone trains; a manifest must not ask for all memory.
const MOST_PROMPTS: usize = 256;

/// Several learned contexts.
#[derive(Module, Debug)]
pub struct ProDa {
    /// `[K * n, width]`.
    contexts: Param<Tensor<2>>,
    /// Of each prompt, the tokens before the class name.
    before: Vec<usize>,
    tokens: usize,
    weight: f64,
}

impl Method for ProDaConfig {
    type Adapter = ProDa;

    /// [`Error::Setting`] for no prompt or too many, a context without room, or a weight that is no number.
    fn init(&self, start: &Start<'_>) -> Result<ProDa> {
        check_finite("weight", self.weight)?;
        if !(2..=MOST_PROMPTS).contains(&self.prompts) {
            let reason = format!("must be 2 to {MOST_PROMPTS}, found {}", self.prompts);
            return Err(Error::Setting { setting: "prompts", reason });
        }
        let before = |index: usize| match self.position(index) {
            ClassPosition::End => self.context,
            ClassPosition::Middle => self.context / 2,
            ClassPosition::Front => 0,
        };
        Ok(ProDa {
            contexts: Param::from_tensor(self.start(0).values(start, self.prompts)?),
            before: (0..self.prompts).map(before).collect(),
            tokens: self.context,
            weight: self.weight,
        })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        self.prompts * self.context * backbone.width(Tower::Text)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    /// The texts whose tokens the contexts replace.
    fn templates(&self) -> Result<Vec<Template>> {
        (0..self.prompts.min(MOST_PROMPTS)).map(|index| self.start(index).template()).collect()
    }
}

impl Learner for ProDa {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let Some(prompts) = step.prompts.clone() else { return Loss::plain(step.cross_entropy()) };
        let spread = spread(prompts.clone(), normalise(step.image.clone()), step.labels);
        let logits = step.logits.clone() + spread * (0.5 * step.scale * step.scale);
        Loss::plain(step.cross_entropy_of(logits) + overlap(prompts) * self.weight)
    }
}

/// `sum_d f_d^2 v_cyd` of each image and class, `[images, classes]`, of features `[classes, K, dim]` and images
/// `[images, dim]`.
fn spread(prompts: Tensor<3>, image: Tensor<2>, labels: &[usize]) -> Tensor<2> {
    let [classes, count, dim] = prompts.dims();
    let centred = prompts.clone() - prompts.mean_dim(1);
    // One row for each class that occurs, not for each image.
    let mut rows: Vec<usize> = labels.to_vec();
    rows.sort_unstable();
    rows.dedup();
    let device = centred.device().without_autodiff();
    let ints = |values: Vec<i32>| {
        let count = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
    };
    let own = centred.clone().select(0, ints(rows.iter().map(|row| *row as i32).collect()));
    // Of [own, classes, dim]: sum over prompts of (x_c - x_y)^2, without a tensor over prompts and both classes.
    let squares = |x: Tensor<3>| (x.clone() * x).sum_dim(1);
    let (of_own, of_all) = (squares(own.clone()), squares(centred.clone()).swap_dims(0, 1));
    let cross = own.permute([2, 0, 1]).matmul(centred.permute([2, 1, 0])).permute([1, 2, 0]);
    let variance = (of_own + of_all - cross * 2.0) / (count as f32 + 1.0);
    let of_label = |label: &usize| rows.binary_search(label).unwrap_or_default() as i32;
    let variance = variance.select(0, ints(labels.iter().map(of_label).collect()));
    let weights = (image.clone() * image).reshape([labels.len(), dim, 1]);
    variance.matmul(weights).reshape([labels.len(), classes])
}

/// Mean absolute cosine between different prompts, `[1]`, of features `[classes, K, dim]`.
fn overlap(prompts: Tensor<3>) -> Tensor<1> {
    let [_, count, dim] = prompts.dims();
    let mean = normalise(prompts.mean_dim(0).reshape([count, dim]));
    let cosines = mean.clone().matmul(mean.transpose()).abs();
    let same = Tensor::<2>::eye(count, &cosines.device().without_autodiff());
    (cosines * (same * -1.0 + 1.0)).sum() / ((count * (count - 1)) as f32)
}

impl Sites for ProDa {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Tokens,
        }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(ends) = pass.ends.filter(|_| at == BlockSite::new(Tower::Text, 0)) else { return tokens };
        let contexts = self.contexts.val();
        let ([rows, _, _], [_, width]) = (tokens.dims(), contexts.dims());
        let count = self.before.len();
        // Rows are class-major: each class's prompts in their order.
        let contexts = contexts.reshape([count, self.tokens, width]).repeat_dim(0, rows / count);
        around_names(tokens, contexts, &self.before, ends, pass.first)
    }
}
