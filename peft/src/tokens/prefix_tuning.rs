//! Prefix tuning: learned keys and values that every token may attend to (Li and Liang, ACL 2021, arXiv 2101.00190).
//!
//! In every block of a tower the keys become `[K_i; k]` and the values `[V_i; v]` with `K_i`, `V_i` `[n, width]` drawn from
//! N(0, 0.02), so a fresh adapter is not zero-shot: the drawn keys take a share of the attention. No reparametrisation network.
//! Count: `2 * n * width` for each block. Site: the key and value projections, which return more rows than they were given.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, LinearBase, LinearSite, Pass, Projection, Sites, Tower};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start, Words};

/// Standard deviation of random keys and values.
const DEVIATION: f32 = 0.02;
/// More keys than anyone trains; a manifest must not ask for all memory.
const MOST_TOKENS: usize = 1024;

/// Settings of prefix tuning; no paper has any for CLIP, the default is eight in every block of both towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixTuningConfig {
    /// Keys and values in each block.
    pub tokens: usize,
    /// Adapt the image tower.
    pub image: bool,
    /// Adapt the text tower.
    pub text: bool,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self { tokens: 8, image: true, text: true }
    }
}

#[derive(Module, Debug)]
struct KeyValue {
    key: Param<Tensor<2>>,
    value: Param<Tensor<2>>,
}

/// Learned keys and values; a tower that is left alone has none.
#[derive(Module, Debug)]
pub struct PrefixTuning {
    image: Vec<KeyValue>,
    text: Vec<KeyValue>,
}

impl PrefixTuningConfig {
    fn blocks(&self, backbone: &Backbone, tower: Tower) -> usize {
        let wanted = match tower {
            Tower::Image => self.image,
            Tower::Text => self.text,
        };
        if wanted { backbone.depth(tower) } else { 0 }
    }
}

impl Method for PrefixTuningConfig {
    type Adapter = PrefixTuning;

    /// [`Error::Setting`] for no tokens, too many, or no tower.
    fn init(&self, start: &Start<'_>) -> Result<PrefixTuning> {
        if self.tokens == 0 || self.tokens > MOST_TOKENS {
            let reason = format!("must be 1 to {MOST_TOKENS}, found {}", self.tokens);
            return Err(Error::Setting { setting: "tokens", reason });
        }
        if !(self.image || self.text) {
            return Err(Error::Setting {
                setting: "image",
                reason: "adapt the image tower, the text tower or both".into(),
            });
        }
        let tower = |tower: Tower| {
            let shape = [self.tokens, start.backbone.attention_width(tower)];
            let draw = |block: usize, part: &str| {
                let seed = start.seed.split(tower).split(block).split(part);
                let values = TensorData::new(seed.normals(shape[0] * shape[1], DEVIATION), shape);
                Param::from_tensor(Tensor::from_data(values, start.device))
            };
            let one = |block| KeyValue { key: draw(block, "key"), value: draw(block, "value") };
            (0..self.blocks(start.backbone, tower)).map(one).collect()
        };
        Ok(PrefixTuning { image: tower(Tower::Image), text: tower(Tower::Text) })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        !self.text
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let values = |tower| self.blocks(backbone, tower) * 2 * self.tokens * backbone.attention_width(tower);
        values(Tower::Image) + values(Tower::Text)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsKeys
    }
}

impl PrefixTuning {
    fn tower(&self, tower: Tower) -> &[KeyValue] {
        match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        }
    }
}

impl Learner for PrefixTuning {}

impl Sites for PrefixTuning {
    fn entry(&self, tower: Tower) -> Entry {
        if self.tower(tower).is_empty() { Entry::Never } else { Entry::Block(0) }
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        let LinearSite::Block(BlockSite { tower, block }, projection) = base.at else { return output };
        let Some(KeyValue { key, value }) = self.tower(tower).get(block) else { return output };
        let prefix = match projection {
            Projection::Key => key.val(),
            Projection::Value => value.val(),
            _ => return output,
        };
        let ([batch, _, width], [count, _]) = (output.dims(), prefix.dims());
        Tensor::cat(vec![prefix.unsqueeze::<3>().expand([batch, count, width]), output], 1)
    }
}
