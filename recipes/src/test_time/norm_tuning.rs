//! Gains and offsets of the image tower's normalisations that follow a stream: what TENT and SAR share.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, HostTensor, NormSite, Partial, Pass, Stack, Tower, normalise, values};
use inarch_peft::{Adapter, LnTuningConfig, MethodConfig, Parameters, Start};

use super::episode::{Episode, Stream};
use super::method::MethodState;
use super::tuner::needed;
use super::world::World;
use crate::error::{Error, Result};

/// Momentum of the updates.
const MOMENTUM: f32 = 0.9;

/// Values by the path of their parameter.
pub(super) type Gradient = BTreeMap<String, Vec<f32>>;

/// The tuned normalisations with their optimizer.
pub(super) struct NormTuning {
    adapter: Adapter,
    device: Device,
    fresh: Parameters,
    pub(super) values: Parameters,
    velocity: Gradient,
}

/// The normalisations of the image tower; without those of the last quarter of the blocks and the final one, unless
/// `all`.
pub(super) fn targets(backbone: &Backbone, all: bool) -> Vec<String> {
    let depth = backbone.depth(Tower::Image);
    let last = if all { depth } else { depth - depth.div_ceil(4).min(depth.saturating_sub(1)) };
    let chosen = |site: &NormSite| match site {
        NormSite::Input(tower) => *tower == Tower::Image,
        NormSite::Output(tower) => *tower == Tower::Image && all,
        NormSite::Attention(at) | NormSite::Cross(at) | NormSite::Mlp(at) => {
            at.tower == Tower::Image && at.block < last
        }
    };
    backbone.norms().iter().filter(|(site, _)| chosen(site)).map(|(site, _)| site.to_string()).collect()
}

impl NormTuning {
    /// The frozen normalisations.
    pub(super) fn new(world: &World<'_>, all: bool) -> Result<Self> {
        let backbone = needed(world)?.backbone;
        backbone.need_blocks(Tower::Image, "tuning normalisations at test time")?;
        let device = backbone.device().clone().autodiff();
        let classes = Tensor::zeros([1, backbone.spec().dim], backbone.device());
        let config = MethodConfig::LnTuning(LnTuningConfig { targets: targets(backbone, all) });
        let adapter = config.init(&Start::new(backbone, &classes, Seed::new(0), &device))?;
        let fresh = adapter.parameters();
        Ok(Self { adapter, device, values: fresh.clone(), fresh, velocity: Gradient::new() })
    }

    /// The adapter with its values moved by `offset`, if there is one.
    fn adapter(&self, offset: Option<&Gradient>) -> Result<Adapter> {
        let mut values = self.values.clone();
        for (name, offset) in offset.into_iter().flatten() {
            if let Some(tensor) = values.get_mut(name) {
                tensor.data.iter_mut().zip(offset).for_each(|(value, offset)| *value += offset);
            }
        }
        let fault = |reason| Error::Core(inarch_core::Error::invalid("tuned normalisations", reason));
        self.adapter.clone().with_parameters(values, &self.device).map_err(fault)
    }

    /// Scores `[images, classes]` of the centre views, tracked, with the adapter that they came from.
    pub(super) fn scores(
        &self,
        world: &World<'_>,
        episodes: &[Episode],
        offset: Option<&Gradient>,
    ) -> Result<(Tensor<2>, Adapter)> {
        let model = needed(world)?;
        let adapter = self.adapter(offset)?;
        let sites = Stack(vec![model.sites, adapter.sites()]);
        let (entry, tokens) = centres(episodes)?;
        let partial = Partial::image_stream(entry, tokens);
        let features = normalise(model.backbone.finish(Tower::Image, partial, &sites, &Pass::evaluate()));
        if !model.sites.conditions_text() {
            return Ok((world.score.logits(&features, &episodes[0].text.tensor(world.device)), adapter));
        }
        let own = |(row, episode): (usize, &Episode)| {
            world.score.logits(&features.clone().narrow(0, row, 1), &episode.text.tensor(world.device))
        };
        Ok((Tensor::cat(episodes.iter().enumerate().map(own).collect(), 0), adapter))
    }

    /// One step of stochastic gradient descent with momentum.
    pub(super) fn step(&mut self, lr: f64, gradient: &Gradient) {
        for (name, gradient) in gradient {
            let velocity = self.velocity.entry(name.clone()).or_insert_with(|| vec![0.0; gradient.len()]);
            let Some(tensor) = self.values.get_mut(name) else { continue };
            for ((value, velocity), gradient) in tensor.data.iter_mut().zip(velocity).zip(gradient) {
                *velocity = MOMENTUM * *velocity + gradient;
                *value -= lr as f32 * *velocity;
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.values = self.fresh.clone();
        self.velocity.clear();
    }

    pub(super) fn state(&self) -> MethodState {
        let mut state = MethodState::default();
        let mut keep = |name: String, shape: &[usize], data: &[f32]| {
            let tensor = HostTensor { shape: shape.to_vec(), data: data.to_vec(), origin: name.clone() };
            state.tensors.insert(name, tensor);
        };
        for (name, tensor) in &self.values {
            keep(format!("values.{name}"), &tensor.shape, &tensor.data);
            if let Some(velocity) = self.velocity.get(name) {
                keep(format!("velocity.{name}"), &tensor.shape, velocity);
            }
        }
        state
    }

    pub(super) fn restore(&mut self, state: MethodState) -> std::result::Result<(), String> {
        let (mut found, mut velocity) = (Parameters::new(), Gradient::new());
        for (name, tensor) in state.tensors {
            match name.split_once('.') {
                Some(("values", own)) => {
                    found.insert(own.to_string(), tensor);
                }
                Some(("velocity", own)) if self.fresh.contains_key(own) => {
                    velocity.insert(own.to_string(), tensor.data);
                }
                _ => return Err(format!("`{name}` is unknown")),
            }
        }
        self.adapter.clone().with_parameters(found.clone(), &self.device)?;
        if velocity.iter().any(|(name, values)| values.len() != self.fresh[name].data.len()) {
            return Err("a velocity has another length than its parameter".into());
        }
        (self.values, self.velocity) = (found, velocity);
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.values.values().map(|tensor| tensor.data.len()).sum();
        4 * (2 * values + self.velocity.values().map(Vec::len).sum::<usize>())
    }
}

/// The gradient of a loss for each parameter of an adapter; empty where it depends on none.
pub(super) fn gradient(adapter: &Adapter, loss: &Tensor<1>) -> Gradient {
    if !loss.is_tracked() {
        return Gradient::new();
    }
    let gradients = &loss.backward();
    let mut collect = Collect { path: Vec::new(), gradients, found: Gradient::new() };
    adapter.visit_parameters(&mut collect);
    collect.found
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Gradient,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), values(gradient));
        }
    }
}

/// The streams of the centre views, `[images, tokens, width]`.
fn centres(episodes: &[Episode]) -> Result<(Entry, Tensor<3>)> {
    let mut tokens = Vec::with_capacity(episodes.len());
    let mut entry = Entry::Tokens;
    for episode in episodes {
        let Some(Stream { entry: own, tokens: views }) = &episode.stream else {
            let reason = "this method changes the image tower and needs images";
            return Err(inarch_core::Error::invalid("images", reason).into());
        };
        entry = *own;
        tokens.push(views.clone().narrow(0, 0, 1));
    }
    Ok((entry, Tensor::cat(tokens, 0)))
}
