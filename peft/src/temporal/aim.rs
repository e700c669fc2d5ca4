//! AIM: the frozen attention of each block runs over the frames of a clip too, with small adapters around it (Yang et
//! al., ICLR 2023, arXiv 2302.03024).
//!
//! With `adapt(z) = gelu(z D + d) U + u`, `D` `[width, hidden]`, `U` `[hidden, width]`, and the stream `x`
//! `[clips, frames, tokens, width]`, a block does
//!
//! - `x <- x + time(attention(norm1(x)))` over the frames of each token (temporal adaptation);
//! - `x <- x + y + space(y)` with `y = attention(norm1(x))` over the tokens of each frame (spatial adaptation);
//! - `x <- x + mlp(n) + scale joint(n)` with `n = norm2(x)` (joint adaptation),
//!
//! where `time`, `space` and `joint` are such adapters and all else is frozen. With two temporal adapters the first
//! attention sees `n + input(n)` in place of `n = norm1(x)`. Before the first normalisation each token of a frame gets
//! a learned row for the frame's place in time; clips of another length than `frames` read between the rows.
//!
//! As in the authors' code `D` is normal with deviation 0.02, and all else starts at zero, so that the start is the
//! identity. They train the final normalisation too (a stack with `ln-tuning` does), drop whole changes at random
//! (stochastic depth), and put a linear head on the class token, where here texts or a head stand behind the
//! projection. Count, with `w = width` and `h = hidden`: `2 w h + h + w` for each of 3 or 4 adapters of each block, and
//! `frames w`.
//!
//! Sites: tokens, sublayer and branch, image tower.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{
    Backbone, BlockSite, BranchSite, Entry, Frames, Pass, Sites, SublayerBase, Touched, Tower,
};
use serde::{Deserialize, Serialize};

use super::check_size;
use super::positions::Positions;
use crate::branch::Bottleneck;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::linear::check_finite;
use crate::method::{Method, Start, Words};

/// Standard deviation of the maps into the bottlenecks.
const DEVIATION: f32 = 0.02;

/// Settings of AIM; the defaults are those of its authors for Kinetics-400 with 8 frames. For Something-Something v2
/// they take two temporal adapters and a scale of 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AimConfig {
    /// Width of the tower over the width of the bottlenecks.
    pub reduction: usize,
    /// Factor of the adapter beside the MLP.
    pub scale: f64,
    /// Adapters around the attention over frames: 1, behind it, or 2, before it too.
    pub temporal_adapters: usize,
    /// Number of learned rows in time; clips of another length read between them.
    pub frames: usize,
}

impl Default for AimConfig {
    fn default() -> Self {
        Self { reduction: 4, scale: 0.5, temporal_adapters: 1, frames: 8 }
    }
}

/// The adapters of one block.
#[derive(Module, Debug)]
struct Adapters {
    input: Option<Bottleneck>,
    time: Bottleneck,
    space: Bottleneck,
    joint: Bottleneck,
}

/// Attention over frames, and adapters around it.
#[derive(Module, Debug)]
pub struct Aim {
    time: Positions,
    blocks: Vec<Adapters>,
    scale: f64,
}

impl AimConfig {
    fn hidden(&self, backbone: &Backbone) -> usize {
        (backbone.width(Tower::Image) / self.reduction.max(1)).max(1)
    }
}

impl Method for AimConfig {
    type Adapter = Aim;

    /// [`Error::Setting`] for a reduction of 0, a scale that is no number, another number of temporal adapters than 1
    /// or 2, or no row in time.
    fn init(&self, start: &Start<'_>) -> Result<Aim> {
        check_size("reduction", self.reduction)?;
        check_size("frames", self.frames)?;
        check_finite("scale", self.scale)?;
        if !(1..=2).contains(&self.temporal_adapters) {
            let reason = format!("must be 1 or 2, found {}", self.temporal_adapters);
            return Err(Error::Setting { setting: "temporal_adapters", reason });
        }
        let Start { backbone, seed, device, .. } = *start;
        let (width, hidden) = (backbone.width(Tower::Image), self.hidden(backbone));
        let block = |block: usize| Adapters::new(self, [width, hidden], seed.split("block").split(block), device);
        Ok(Aim {
            time: Positions::given(vec![0.0; self.frames * width], self.frames, device),
            blocks: (0..backbone.depth(Tower::Image)).map(block).collect(),
            scale: self.scale,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let width = backbone.width(Tower::Image);
        let block = (2 + self.temporal_adapters) * Bottleneck::count(width, self.hidden(backbone));
        backbone.depth(Tower::Image) * block + self.frames * width
    }
}

impl Learner for Aim {}

impl Adapters {
    fn new(config: &AimConfig, [width, hidden]: [usize; 2], seed: Seed, device: &Device) -> Self {
        let adapter =
            |name: &str| Bottleneck::given(seed.split(name).normals(width * hidden, DEVIATION), width, device);
        Self {
            input: (config.temporal_adapters == 2).then(|| adapter("input")),
            time: adapter("time"),
            space: adapter("space"),
            joint: adapter("joint"),
        }
    }

    /// What the attention over frames adds to the stream.
    fn over_time(&self, base: &SublayerBase<'_>, stream: Tensor<3>, frames: Frames) -> Tensor<3> {
        let read = base.read(stream);
        let read = match &self.input {
            Some(input) => read.clone() + input.forward(read, true),
            None => read,
        };
        let ([rows, tokens, width], frames) = (read.dims(), frames.count());
        let clips = rows / frames;
        // The frames of a token as a row, and back.
        let by_token = read.reshape([clips, frames, tokens, width]).swap_dims(1, 2);
        let seen = base.run(by_token.reshape([clips * tokens, frames, width]));
        let by_frame = seen.reshape([clips, tokens, frames, width]).swap_dims(1, 2);
        self.time.forward(by_frame.reshape([rows, tokens, width]), true)
    }
}

impl Aim {
    fn at(&self, at: BlockSite) -> Option<&Adapters> {
        self.blocks.get(at.block).filter(|_| at.tower == Tower::Image)
    }
}

impl Sites for Aim {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched { tokens: true, branch: true, ..Touched::NONE }
    }

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        tower == Tower::Image
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        if at != BlockSite::new(Tower::Image, 0) {
            return tokens;
        }
        let [rows, _, _] = tokens.dims();
        tokens + self.time.of_rows(rows, pass.frames.count())
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(adapters) = self.at(base.at().block()) else { return base.forward(stream) };
        match base.at() {
            BranchSite::Attention(_) => {
                let change = adapters.over_time(&base, stream.clone(), pass.frames);
                base.forward(stream + change)
            }
            // The image tower looks at no image.
            BranchSite::Cross(_) => base.forward(stream),
            BranchSite::Mlp(_) => {
                let change = adapters.joint.forward(base.read(stream.clone()), true) * self.scale;
                base.forward(stream) + change
            }
        }
    }

    fn branch(&self, at: BranchSite, _input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        match (at, self.at(at.block())) {
            (BranchSite::Attention(_), Some(adapters)) => output.clone() + adapters.space.forward(output, true),
            _ => output,
        }
    }
}
