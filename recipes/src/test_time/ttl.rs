//! TTL: low-rank updates of the last blocks of the image tower, adapted to each image (Imam et al., 2024, arXiv 2407.15913).
//!
//! Rank 16, alpha 32, `q` and `v` of the last three blocks; `A` normal (Xavier), `B` zero. One AdamW step lowers the mean
//! over all views of `exp(0.4 - H) H`, the entropy `H` weighted by its own detached value; the centre view is scored with
//! the updated tower. Reset for each image. The blocks below are computed once for each view. Trained: `2 * 2 * 16 * width`
//! for each block.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Partial, Pass, Stack, Tower, normalise, values};
use inarch_core::parallel;
use inarch_peft::{Adapter, LoraConfig, MethodConfig, Start};
use serde::{Deserialize, Serialize};

use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::objective::row_entropies;
use super::tuner::needed;
use super::world::World;
use crate::error::{Error, Result};
use crate::optimizer::OptimizerConfig;
use crate::shards::apart;

/// The entropy at which a view counts with weight 1.
const PIVOT: f64 = 0.4;

/// Settings of TTL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtlConfig {
    /// Learning rate.
    pub lr: f64,
    /// Steps.
    pub steps: usize,
    /// Rank of the updates.
    pub rank: usize,
    /// Numerator of their scale; the rank is the denominator.
    pub alpha: f64,
    /// How many blocks, counted from the last one.
    pub blocks: usize,
    /// Decides the first values.
    pub init_seed: u64,
}

impl Default for TtlConfig {
    fn default() -> Self {
        Self { lr: 5e-3, steps: 1, rank: 16, alpha: 32.0, blocks: 3, init_seed: 1 }
    }
}

impl TtlConfig {
    fn first_block(&self, backbone: &Backbone) -> usize {
        backbone.depth(Tower::Image).saturating_sub(self.blocks)
    }
}

impl MethodSettings for TtlConfig {
    fn needs(&self, backbone: Option<&Backbone>) -> Needs {
        let entry = backbone.map_or(Entry::Tokens, |backbone| Entry::Block(self.first_block(backbone)));
        Needs { entry, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lr", self.lr, 0.0..=10.0)?;
        within("steps", self.steps as f64, 1.0..=100.0)?;
        within("rank", self.rank as f64, 1.0..=4096.0)?;
        within("alpha", self.alpha, -1e4..=1e4)?;
        within("blocks", self.blocks as f64, 1.0..=1000.0)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let backbone = needed(world)?.backbone;
        backbone.need_blocks(Tower::Image, "test-time method `ttl`")?;
        let blocks = self.first_block(backbone)..backbone.depth(Tower::Image);
        let width = backbone.width(Tower::Image);
        let lora = LoraConfig {
            rank: self.rank.min(width),
            alpha: self.alpha,
            rank_stabilised: false,
            dropout: 0.0,
            targets: blocks
                .flat_map(|block| ["q_proj", "v_proj"].map(|name| format!("image.blocks.{block}.{name}")))
                .collect(),
            ..LoraConfig::default()
        };
        let device = backbone.device().clone().autodiff();
        let classes = Tensor::zeros([1, backbone.spec().dim], backbone.device());
        let seed = Seed::new(self.init_seed).split("ttl");
        let adapter = MethodConfig::Lora(lora).init(&Start::new(backbone, &classes, seed, &device))?;
        Ok(Box::new(Ttl { config: self.clone(), adapter: xavier(adapter, seed, &device)? }))
    }
}

/// The factors `a` drawn as the authors do: normal, variance 2 over the sum of inputs and rank.
fn xavier(adapter: Adapter, seed: Seed, device: &burn::tensor::Device) -> Result<Adapter> {
    let mut parameters = adapter.parameters();
    for (name, tensor) in &mut parameters {
        if name.ends_with(".a") {
            let deviation = (2.0 / (tensor.shape[0] + tensor.shape[1]) as f32).sqrt();
            tensor.data = seed.split(name).normals(tensor.data.len(), deviation);
        }
    }
    let fault = |reason| Error::Core(inarch_core::Error::invalid("low-rank updates", reason));
    adapter.with_parameters(parameters, device).map_err(fault)
}

struct Ttl {
    config: TtlConfig,
    adapter: Adapter,
}

impl Ttl {
    fn answer(&self, world: &World<'_>, episode: &Episode) -> Result<Answer> {
        let model = needed(world)?;
        let Some(stream) = &episode.stream else {
            return Err(inarch_core::Error::invalid("images", "`ttl` changes the image tower and needs images").into());
        };
        let text = episode.text.tensor(world.device);
        let scores = |adapter: &Adapter, tokens: Tensor<3>| {
            let sites = Stack(vec![model.sites, adapter.sites()]);
            let partial = Partial::image_stream(stream.entry, tokens);
            let features = model.backbone.finish(Tower::Image, partial, &sites, &Pass::evaluate());
            world.score.logits(&normalise(features), &text)
        };
        let config = OptimizerConfig::Adamw { lr: self.config.lr, weight_decay: 0.01, epsilon: 1e-8 };
        // Episodes run side by side.
        let (mut adapter, mut optimizer) = (apart(&self.adapter), config.build());
        for _ in 0..self.config.steps {
            let entropies = row_entropies(scores(&adapter, stream.tokens.clone()));
            let weights = (entropies.clone().without_autodiff() * -1.0 + PIVOT).exp();
            let gradients = (entropies * weights).mean().backward();
            let gradients = GradientsParams::from_grads(gradients, &adapter);
            adapter = optimizer.step(self.config.lr, adapter, gradients);
        }
        let centre = stream.tokens.clone().narrow(0, 0, 1);
        Ok(Answer::scores(values(scores(&adapter.without_autodiff(), centre))))
    }
}

impl Adapt for Ttl {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        parallel::map(episodes, |episode| self.answer(world, episode)).into_iter().collect()
    }
}
