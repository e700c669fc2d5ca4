//! RLCF-style prompt tuning: a second backbone rewards the classes that fit the image (Zhao et al., ICLR 2024, arXiv
//! 2305.18010).
//!
//! For each of the surest tenth of the views the `samples` best classes are rewarded with `2.5 max(0, cos)` of the judge's
//! image and text features, less the mean over them, and the loss is the mean of reward times cross entropy; three AdamW
//! steps over the context `[tokens, width]`, reset for each image. The authors' variant that tunes the image tower is not
//! here.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::{Backbone, values};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::confidence::confident;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::objective::vector;
use super::prompt::Prompt;
use super::rows::{Rows, dot};
use super::tpt::{PROMPT_NEEDS, check};
use super::tuner::Tuner;
use super::world::World;
use crate::error::Result;

/// The factor of CLIPScore.
const WEIGHT: f32 = 2.5;

/// Settings of RLCF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlcfConfig {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Steps.
    pub steps: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
    /// Classes that are tried for each view.
    pub samples: usize,
}

impl Default for RlcfConfig {
    fn default() -> Self {
        Self { lr: 7e-3, weight_decay: 5e-4, steps: 3, keep: 0.1, samples: 3 }
    }
}

impl MethodSettings for RlcfConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { judge: Some(self.keep), ..PROMPT_NEEDS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        check(self.lr, self.steps, self.keep)?;
        within("weight_decay", self.weight_decay, 0.0..=10.0)?;
        within("samples", self.samples as f64, 1.0..=1000.0)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Rlcf { config: self.clone(), prompt: None }))
    }
}

struct Rlcf {
    config: RlcfConfig,
    prompt: Option<Prompt>,
}

impl Adapt for Rlcf {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        let RlcfConfig { lr, weight_decay, steps, keep, samples } = self.config;
        let Some(texts) = world.judge else {
            return Err(inarch_core::Error::invalid("judge", "`rlcf` needs a second backbone that judges").into());
        };
        let tuner = Tuner {
            optimizer: AdamW { weight_decay, ..AdamW::new(lr) },
            steps,
            select: &|episode| confident(&episode.logits, keep),
            loss: &|episode, _, logits, _| match &episode.judged {
                Some(judged) => reward_loss(judged, texts, logits, samples),
                None => logits.sum() * 0.0,
            },
        };
        tuner.answers(world, &mut self.prompt, episodes)
    }
}

/// The loss `[1]` of scores `[views, classes]`; `judged` and `texts` are the judge's features of these views and of the classes.
pub(super) fn reward_loss(judged: &Rows, texts: &Rows, logits: Tensor<2>, samples: usize) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let device = logits.device().without_autodiff();
    let samples = samples.min(classes);
    let (mut tried, mut rewards) = (Vec::new(), Vec::new());
    for (scores, view) in values(logits.clone()).chunks(classes).zip(judged.iter()) {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
        order.truncate(samples);
        let own: Vec<f32> = order.iter().map(|class| (WEIGHT * dot(view, texts.row(*class))).max(0.0)).collect();
        let mean = own.iter().sum::<f32>() / samples as f32;
        // A single sample has nothing to be compared with.
        rewards.extend(own.iter().map(|reward| if samples > 1 { reward - mean } else { *reward }));
        tried.extend(order.iter().map(|class| *class as i32));
    }
    let tried = Tensor::<2, Int>::from_data(TensorData::new(tried, [rows, samples]), &device);
    let likelihood = log_softmax(logits, 1).gather(1, tried).reshape([rows * samples]);
    (likelihood * vector(rewards, &device)).mean() * -1.0
}
