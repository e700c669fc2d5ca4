//! SwapPrompt-style adaptation: a prompt that follows the stream and learns from its own running average (Ma et al.,
//! NeurIPS 2023).
//!
//! Two contexts `[tokens, width]`: one that is trained and its running average. For each batch, of two views of each image,
//! the trained prompt predicts from one what the average predicts from the other, and the other way round; to that comes
//! the cross entropy with the average's best class, where its probability is above `sure`. One AdamW step for a batch; the
//! answers are the trained prompt's after it. The paper's class-balanced choice of labels over the whole unlabelled set is
//! not made, since a stream does not know its end.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, HostTensor, values};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::confidence::greatest;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::objective::{gradient_of, views_of};
use super::prompt::Prompt;
use super::tuner::needed;
use super::world::World;
use crate::error::Result;

/// Settings of SwapPrompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwapPromptConfig {
    /// Learning rate.
    pub lr: f64,
    /// Share of the old average that stays at each step.
    pub momentum: f64,
    /// Weight of the cross entropy with the average's best class.
    pub label_weight: f64,
    /// Probability from which that class counts.
    pub sure: f64,
}

impl Default for SwapPromptConfig {
    fn default() -> Self {
        Self { lr: 2e-3, momentum: 0.99, label_weight: 1.0, sure: 0.5 }
    }
}

impl MethodSettings for SwapPromptConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { views: 2, text_tower: true, online: true, fixed_text: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lr", self.lr, 0.0..=10.0)?;
        within("momentum", self.momentum, 0.0..=1.0)?;
        within("label_weight", self.label_weight, 0.0..=1e3)?;
        within("sure", self.sure, 0.0..=1.0)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(SwapPrompt { config: self.clone(), prompt: None, contexts: None }))
    }
}

/// A prompt, its average and its moments, each `[tokens * width]`.
#[derive(Clone)]
struct Contexts {
    own: Vec<f32>,
    average: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: u64,
}

struct SwapPrompt {
    config: SwapPromptConfig,
    prompt: Option<Prompt>,
    contexts: Option<Contexts>,
}

impl Adapt for SwapPrompt {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        let Some(first) = episodes.first() else { return Ok(Vec::new()) };
        let model = needed(world)?;
        if first.features.count() < 2 {
            return Err(
                inarch_core::Error::invalid("views", "`swap-prompt` compares two views; give at least 2").into()
            );
        }
        let prompt = match self.prompt.take() {
            Some(prompt) => prompt,
            None => Prompt::new(&model, None)?,
        };
        let [tokens, width] = prompt.context.dims();
        let contexts = self.contexts.get_or_insert_with(|| {
            let own = values(prompt.context.clone());
            let zeros = vec![0.0; own.len()];
            Contexts { average: own.clone(), own, first: zeros.clone(), second: zeros, steps: 0 }
        });
        if contexts.own.len() != tokens * width {
            let (expected, found) = (tokens * width, contexts.own.len());
            return Err(inarch_core::Error::mismatch("context of the test-time state", expected, found).into());
        }
        let tensor = |context: &[f32]| {
            Tensor::<3>::from_data(TensorData::new(context.to_vec(), [1, tokens, width]), world.device)
        };
        let view =
            |at: usize| Tensor::cat(episodes.iter().map(|episode| views_of(episode, &[at], world.device)).collect(), 0);
        let views = [view(0), view(1)];
        let scores = |text: &Tensor<2>, at: usize| world.score.logits(&views[at], text);

        let average = prompt.text(&model, tensor(&contexts.average), None);
        let targets = [softmax(scores(&average, 0), 1), softmax(scores(&average, 1), 1)];
        let labels = self.config.labels(&targets[0], world);
        let leaf = tensor(&contexts.own).autodiff().require_grad();
        let text = prompt.text(&model, leaf.clone(), None);
        let own = [log_softmax(scores(&text, 0), 1), log_softmax(scores(&text, 1), 1)];
        let swapped = |at: usize| (own[at].clone() * targets[1 - at].clone()).sum() * -0.5;
        let loss = (swapped(0) + swapped(1) - (own[0].clone() * labels).sum()) / episodes.len() as f64;
        if let Some(gradient) = gradient_of(&leaf, &loss) {
            contexts.step(&AdamW::new(self.config.lr), &values(gradient));
            let momentum = self.config.momentum as f32;
            for (average, own) in contexts.average.iter_mut().zip(&contexts.own) {
                *average = momentum * *average + (1.0 - momentum) * own;
            }
        }
        let text = prompt.text(&model, tensor(&contexts.own), None);
        let rows = values(scores(&text, 0));
        self.prompt = Some(prompt);
        Ok(rows.chunks(world.classes).map(|row| Answer::scores(row.to_vec())).collect())
    }

    fn reset(&mut self) {
        self.contexts = None;
    }

    fn state(&self) -> MethodState {
        let mut state = MethodState::default();
        if let Some(Contexts { own, average, first, second, steps }) = &self.contexts {
            for (name, data) in [("own", own), ("average", average), ("first", first), ("second", second)] {
                let tensor = HostTensor { shape: vec![data.len()], data: data.clone(), origin: name.into() };
                state.tensors.insert(name.into(), tensor);
            }
            state.values.insert("steps".into(), (*steps).into());
        }
        state
    }

    fn restore(&mut self, mut state: MethodState) -> std::result::Result<(), String> {
        if state.tensors.is_empty() {
            self.contexts = None;
            return Ok(());
        }
        let steps = state.values.get("steps").and_then(serde_json::Value::as_u64).ok_or("`steps` is missing")?;
        let mut tensor = |name: &str| {
            state.tensors.remove(name).map(|tensor| tensor.data).ok_or_else(|| format!("`{name}` is missing"))
        };
        let (own, average, first, second) = (tensor("own")?, tensor("average")?, tensor("first")?, tensor("second")?);
        if [&average, &first, &second].iter().any(|values| values.len() != own.len()) {
            return Err("contexts of different lengths".into());
        }
        self.contexts = Some(Contexts { own, average, first, second, steps });
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.contexts.as_ref().map_or(0, |contexts| 16 * contexts.own.len())
    }
}

impl SwapPromptConfig {
    /// The average's best classes, `[images, classes]`, weighted; zeros where it is not sure.
    fn labels(&self, targets: &Tensor<2>, world: &World<'_>) -> Tensor<2> {
        let mut labels = values(targets.clone());
        for row in labels.chunks_mut(world.classes) {
            let best = greatest(row);
            let counts = f64::from(row[best]) >= self.sure;
            row.fill(0.0);
            row[best] = if counts { self.label_weight as f32 } else { 0.0 };
        }
        Tensor::from_data(TensorData::new(labels, targets.dims()), world.device)
    }
}

impl Contexts {
    /// AdamW on the host, so that its moments can be written down.
    fn step(&mut self, optimizer: &AdamW, gradient: &[f32]) {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (bias_1, bias_2) = (1.0 - 0.9f64.powi(steps), 1.0 - 0.999f64.powi(steps));
        let (rate, decay) = ((optimizer.lr / bias_1) as f32, (1.0 - optimizer.lr * optimizer.weight_decay) as f32);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, (first, second)), gradient) in self.own.iter_mut().zip(moments).zip(gradient) {
            *first = 0.9 * *first + 0.1 * gradient;
            *second = 0.999 * *second + 0.001 * gradient * gradient;
            let denominator = second.sqrt() / bias_2.sqrt() as f32 + optimizer.epsilon as f32;
            *value = *value * decay - rate * *first / denominator;
        }
    }
}
