//! The vision side of Vita-CLIP: prompts of the image tower that know the frames of a clip (Wasim et al., CVPR 2023, arXiv
//! 2304.03307).
//!
//! In each of the first blocks, with the class token `c_t` `[width]` of frame `t` at the block's input and `z_t = c_t P + p`,
//! every frame sees beside its own tokens
//!
//! - `g_1 .. g_n`, which are learned and the same for all frames (global, video-level prompts);
//! - `l_s + z_s` of all frames `s` of the clip, with a learned `l_s` for each (local, frame-level prompts);
//! - `z_t + attention(norm(z))_t`, an attention over the frames of the clip with as many heads as the tower (summary).
//!
//! From the second block on they take the place of what the block before made of its prompts. `time` adds a learned row for
//! each frame to all of its tokens before the first normalisation. Clips of another length than `frames` read between the rows of
//! `l` and of `time`; the authors repeat the nearest. In a tower without a class token the mean of the patches stands in its
//! place.
//!
//! Everything is drawn as in the authors' code, so a fresh adapter is not zero-shot. `P` and `p` are trained; in their code, which
//! names what is trained, they keep what was drawn. Their keys' offset has no effect and is left out. Count for each block,
//! with `w = width`: `n w` and `w (w + 1)`, `frames w` for local prompts, `3 w (w + 1) + w w + 2 w` for the summary; `frames w`
//! for `time`.
//!
//! Sites: tokens of the image tower, added at the end. The authors add those of the first block behind the normalisation that
//! stands before it: there places are made at the tokens site and filled at the norm site, so that no other adapter meets
//! another number of tokens before that normalisation than behind it. The text side of the paper is CoOp with a context for each
//! class: a stack of `coop` and this.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{
    Backbone, BlockSite, Entry, Frames, ImageSpec, NormBase, NormSite, Pass, Sites, Touched, Tower,
};
use serde::{Deserialize, Serialize};

use super::positions::Positions;
use super::summary::Summary;
use crate::affine::Affine;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start, Words};

/// Standard deviation of the rows of `time`.
const DEVIATION: f32 = 0.02;
/// More prompts than anyone trains; a manifest must not ask for all memory.
const MOST: usize = 1024;

/// Settings of Vita-CLIP's vision side; the defaults are those of its authors for Kinetics-400.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitaClipConfig {
    /// Global prompts of a block.
    pub global_tokens: usize,
    /// Whether there is a local prompt for each frame.
    pub local: bool,
    /// Whether each frame has a summary.
    pub summary: bool,
    /// Whether the tokens of a frame are told its place in time.
    pub time: bool,
    /// Number of learned rows in time; clips of another length read between them.
    pub frames: usize,
    /// Blocks with prompts of their own, from the first; at most those of the tower.
    pub depth: usize,
}

impl Default for VitaClipConfig {
    fn default() -> Self {
        Self { global_tokens: 8, local: true, summary: true, time: true, frames: 8, depth: 12 }
    }
}

/// The prompts of one block.
#[derive(Module, Debug)]
struct Prompts {
    global: Option<Param<Tensor<2>>>,
    local: Option<Positions>,
    projection: Option<Affine>,
    summary: Option<Summary>,
}

/// Prompts that know the frames of a clip.
#[derive(Module, Debug)]
pub struct VitaClip {
    time: Option<Positions>,
    blocks: Vec<Prompts>,
    heads: usize,
    /// The first tokens, whose mean stands for a frame: the class token, or all patches.
    read: usize,
    /// Whether a normalisation stands before the first block.
    pre_norm: bool,
}

impl VitaClipConfig {
    /// Whether prompts are made of class tokens.
    fn conditional(&self) -> bool {
        self.local || self.summary
    }

    fn depth(&self, backbone: &Backbone) -> usize {
        self.depth.min(backbone.depth(Tower::Image))
    }

    fn check(&self) -> Result<()> {
        let fault = |setting, reason: String| Err(Error::Setting { setting, reason });
        if self.global_tokens > MOST {
            return fault("global_tokens", format!("must be at most {MOST}, found {}", self.global_tokens));
        }
        if self.global_tokens == 0 && !self.conditional() {
            return fault("global_tokens", "must be at least 1 where there are no other prompts".into());
        }
        if self.frames == 0 || self.frames > MOST {
            return fault("frames", format!("must be 1 to {MOST}, found {}", self.frames));
        }
        if self.depth == 0 {
            return fault("depth", "must be at least 1 block".into());
        }
        Ok(())
    }
}

/// Heads of the summary's attention: those of the tower, or as many as divide its width.
fn heads(spec: &ImageSpec) -> usize {
    let width = spec.transformer.width;
    (1..=spec.transformer.heads).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1)
}

impl Method for VitaClipConfig {
    type Adapter = VitaClip;

    /// [`Error::Setting`] for no prompts, too many, or no block.
    fn init(&self, start: &Start<'_>) -> Result<VitaClip> {
        let Start { backbone, seed, device, .. } = *start;
        let spec = &backbone.spec().image;
        self.check()?;
        let width = spec.transformer.width;
        let bound = (6.0 / (3 * spec.patch * spec.patch + width) as f32).sqrt();
        let prompts = |block: usize| Prompts::new(self, width, bound, seed.split("block").split(block), device);
        let time = || {
            let values = seed.split("time").normals(self.frames * width, DEVIATION);
            Positions::given(values, self.frames, device)
        };
        Ok(VitaClip {
            time: self.time.then(time),
            blocks: (0..self.depth(backbone)).map(prompts).collect(),
            heads: heads(spec),
            read: if spec.style.class_tokens > 0 { 1 } else { spec.tokens() },
            pre_norm: spec.style.pre_norm,
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
        let when = |wanted: bool, count: usize| if wanted { count } else { 0 };
        let block = self.global_tokens * width
            + when(self.conditional(), Affine::count([width; 2]))
            + when(self.local, self.frames * width)
            + when(self.summary, Summary::count(width));
        self.depth(backbone) * block + when(self.time, self.frames * width)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Learner for VitaClip {}

impl Prompts {
    fn new(config: &VitaClipConfig, width: usize, bound: f32, seed: Seed, device: &Device) -> Self {
        let draw = |name: &str, rows: usize| seed.split(name).uniforms(rows * width, bound);
        let global = config.global_tokens;
        let global = (global > 0).then(|| TensorData::new(draw("global", global), [global, width]));
        Self {
            global: global.map(|values| Param::from_tensor(Tensor::from_data(values, device))),
            local: config.local.then(|| Positions::given(draw("local", config.frames), config.frames, device)),
            projection: config.conditional().then(|| Affine::new([width; 2], seed.split("projection"), device)),
            summary: config.summary.then(|| Summary::new(width, seed.split("summary"), device)),
        }
    }

    /// How many each frame of a clip sees.
    fn count(&self, frames: Frames) -> usize {
        let global = self.global.as_ref().map_or(0, |global| global.dims()[0]);
        global + self.local.as_ref().map_or(0, |_| frames.count()) + usize::from(self.summary.is_some())
    }

    /// The prompts of each frame, `[clips * frames, count, width]`, from what stands for it, `[clips * frames, width]`.
    fn of(&self, read: Tensor<2>, frames: Frames, heads: usize) -> Tensor<3> {
        let ([rows, width], count) = (read.dims(), frames.count());
        let clips = rows / count;
        let mut parts = Vec::with_capacity(3);
        if let Some(global) = &self.global {
            let [tokens, _] = global.dims();
            parts.push(global.val().unsqueeze::<3>().expand([rows, tokens, width]));
        }
        if let Some(projection) = &self.projection {
            let projected = projection.forward(read).reshape([clips, count, width]);
            if let Some(local) = &self.local {
                let prompts = projected.clone() + local.of(count).unsqueeze::<3>();
                let prompts = prompts.unsqueeze_dim::<4>(1).expand([clips, count, count, width]);
                parts.push(prompts.reshape([rows, count, width]));
            }
            if let Some(summary) = &self.summary {
                parts.push(summary.forward(projected, heads).reshape([rows, 1, width]));
            }
        }
        Tensor::cat(parts, 1)
    }
}

impl VitaClip {
    /// The stream with a block's prompts in the place of its last tokens.
    fn prompted(&self, prompts: &Prompts, stream: Tensor<3>, frames: Frames) -> Tensor<3> {
        let [rows, tokens, width] = stream.dims();
        let read = stream.clone().narrow(1, 0, self.read).mean_dim(1).reshape([rows, width]);
        let kept = stream.narrow(1, 0, tokens - prompts.count(frames));
        Tensor::cat(vec![kept, prompts.of(read, frames, self.heads)], 1)
    }

    /// The tokens of each frame, with what tells its place in time, and places for the prompts of the first block behind them.
    fn opened(&self, stream: Tensor<3>, frames: Frames) -> Tensor<3> {
        let [rows, _, width] = stream.dims();
        let stream = match &self.time {
            Some(time) => stream + time.of_rows(rows, frames.count()),
            None => stream,
        };
        let places = self.blocks.first().map_or(0, |prompts| prompts.count(frames));
        let places = Tensor::<3>::zeros([rows, places, width], &stream.device().without_autodiff());
        Tensor::cat(vec![stream, places], 1)
    }
}

impl Sites for VitaClip {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched { tokens: true, norm: self.pre_norm, ..Touched::NONE }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(prompts) = self.blocks.get(at.block).filter(|_| at.tower == Tower::Image) else { return tokens };
        let tokens = if at.block == 0 { self.opened(tokens, pass.frames) } else { tokens };
        match at.block == 0 && self.pre_norm {
            true => tokens,
            false => self.prompted(prompts, tokens, pass.frames),
        }
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let stream = base.forward(input);
        match (base.at, self.blocks.first()) {
            (NormSite::Input(Tower::Image), Some(prompts)) => self.prompted(prompts, stream, pass.frames),
            _ => stream,
        }
    }
}
