//! A gated temporal shift: some channels of what the branches of the image tower read come from the frames before and
//! after (after TSM: Lin et al., ICCV 2019, arXiv 1811.08383).
//!
//! With the normalised stream `n` `[clips, frames, tokens, width]`, `w = width` and `m = w / parts`, a branch reads
//!
//! - `(1 - g) n_t + g n_(t+1)` in the first `m` channels,
//! - `(1 - g) n_t + g n_(t-1)` in the `m` after them,
//! - `n_t` in all others, with zeros beyond the ends of a clip.
//!
//! The stream itself is not shifted (TSM's residual shift). With gates `g` of 1 it is TSM's shift, which has no
//! parameters and wants the backbone to be trained around it; here the backbone stands still, so each shifted channel
//! has a trained gate, which starts at 0: the start is the identity. One frame has zeros for neighbours, as at the ends
//! of any clip.
//!
//! `attention` and `mlp` say which branches read shifted channels. Count for each: `2 m`. Site: norm, image tower.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Entry, NormBase, NormSite, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::check_size;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of a temporal shift; an eighth of the channels from either side is TSM's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemporalShiftConfig {
    /// Of so many equal parts of the channels one is read from the frame after, one from the frame before.
    pub parts: usize,
    /// Shift what attentions read.
    pub attention: bool,
    /// Shift what MLPs read.
    pub mlp: bool,
    /// The first block, counted from 0.
    pub first_block: usize,
}

impl Default for TemporalShiftConfig {
    fn default() -> Self {
        Self { parts: 8, attention: true, mlp: true, first_block: 0 }
    }
}

/// The gates of one block, `[2 m]`: those of channels from the frame after, then those of channels from the frame
/// before.
#[derive(Module, Debug)]
struct Gates {
    attention: Option<Param<Tensor<1>>>,
    mlp: Option<Param<Tensor<1>>>,
}

/// Gated shifts between frames.
#[derive(Module, Debug)]
pub struct TemporalShift {
    blocks: Vec<Gates>,
}

impl TemporalShiftConfig {
    /// The blocks that shift.
    fn blocks(&self, backbone: &Backbone) -> std::ops::Range<usize> {
        let depth = backbone.depth(Tower::Image);
        self.first_block.min(depth)..depth
    }

    /// Gates of one branch.
    fn gates(&self, backbone: &Backbone) -> usize {
        2 * (backbone.width(Tower::Image) / self.parts.max(1))
    }
}

impl Method for TemporalShiftConfig {
    type Adapter = TemporalShift;

    /// [`Error::Setting`] for fewer parts than 2 or more than there are channels, or no place.
    fn init(&self, start: &Start<'_>) -> Result<TemporalShift> {
        let Start { backbone, device, .. } = *start;
        check_size("parts", self.parts)?;
        let width = backbone.width(Tower::Image);
        if self.parts < 2 || self.parts > width {
            let reason = format!("must be 2 to {width}, the width of the tower, found {}", self.parts);
            return Err(Error::Setting { setting: "parts", reason });
        }
        if !(self.attention || self.mlp) {
            let reason = "shift what attentions read, what MLPs read, or both".into();
            return Err(Error::Setting { setting: "attention", reason });
        }
        let chosen = self.blocks(backbone);
        if chosen.is_empty() {
            let reason = format!("must be at most {}, the last", chosen.end.saturating_sub(1));
            return Err(Error::Setting { setting: "first_block", reason });
        }
        let gates = |wanted: bool| wanted.then(|| closed(self.gates(backbone), device));
        let block = |block: usize| {
            let here = chosen.contains(&block);
            Gates { attention: gates(here && self.attention), mlp: gates(here && self.mlp) }
        };
        Ok(TemporalShift { blocks: (0..chosen.end).map(block).collect() })
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
        let places = usize::from(self.attention) + usize::from(self.mlp);
        self.blocks(backbone).len() * places * self.gates(backbone)
    }
}

impl Learner for TemporalShift {}

/// Gates of 0.
fn closed(count: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::zeros([count], device))
}

/// Frames of clips, `[clips * frames, tokens, width]`, with a share of some channels of their neighbours.
fn shifted(input: Tensor<3>, gates: Tensor<1>, frames: usize) -> Tensor<3> {
    let ([rows, tokens, width], [count]) = (input.dims(), gates.dims());
    let (clips, each) = (rows / frames, count / 2);
    let input = input.reshape([clips, frames, tokens, width]);
    let zeros = Tensor::<4>::zeros([clips, 1, tokens, each], &input.device().without_autodiff());
    let side = |first: usize, later: bool| {
        let own = input.clone().narrow(3, first, each);
        let kept = |from: usize| own.clone().narrow(1, from, frames - 1);
        let moved = match (frames, later) {
            (1, _) => zeros.clone(),
            (_, true) => Tensor::cat(vec![kept(1), zeros.clone()], 1),
            (_, false) => Tensor::cat(vec![zeros.clone(), kept(0)], 1),
        };
        let gates = gates.clone().narrow(0, first, each).reshape([1, 1, 1, each]);
        // Exact at both ends: nothing of the other comes in.
        own * (gates.clone() * -1.0 + 1.0) + moved * gates
    };
    let mut parts = vec![side(0, true), side(each, false)];
    if width > count {
        parts.push(input.narrow(3, count, width - count));
    }
    Tensor::cat(parts, 3).reshape([rows, tokens, width])
}

impl TemporalShift {
    fn at(&self, at: NormSite) -> Option<&Param<Tensor<1>>> {
        match at {
            NormSite::Attention(at) if at.tower == Tower::Image => self.blocks.get(at.block)?.attention.as_ref(),
            NormSite::Mlp(at) if at.tower == Tower::Image => self.blocks.get(at.block)?.mlp.as_ref(),
            _ => None,
        }
    }
}

impl Sites for TemporalShift {
    fn entry(&self, tower: Tower) -> Entry {
        let first = self.blocks.iter().position(|gates| gates.attention.is_some() || gates.mlp.is_some());
        match tower {
            Tower::Image => first.map_or(Entry::Never, Entry::Block),
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched::NORM
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        match self.at(base.at) {
            Some(gates) => shifted(output, gates.val(), pass.frames.count()),
            None => output,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use inarch_core::backbone::values;

    use super::shifted;

    #[test]
    fn gates_let_neighbours_in_and_nothing_beyond_the_clip() {
        let device = Device::flex();
        // Two clips of three frames, one token, three channels: from the frame after, from the frame before, its own.
        let rows: [f32; 18] =
            [1., 10., 100., 2., 20., 200., 3., 30., 300., 4., 40., 400., 5., 50., 500., 6., 60., 600.];
        let input = Tensor::<1>::from_floats(rows, &device).reshape([6, 1, 3]);
        let through = |gates: [f32; 2], frames: usize| {
            values(shifted(input.clone(), Tensor::<1>::from_floats(gates, &device), frames))
        };
        assert_eq!(through([0.0; 2], 3), rows);
        let shift = [2., 0., 100., 3., 10., 200., 0., 20., 300., 5., 0., 400., 6., 40., 500., 0., 50., 600.];
        assert_eq!(through([1.0; 2], 3), shift);
        let half = [1.5, 10., 100., 2.5, 20., 200., 1.5, 30., 300., 4.5, 40., 400., 5.5, 50., 500., 3., 60., 600.];
        assert_eq!(through([0.5, 0.0], 3), half);
        // One frame has zeros for neighbours.
        let alone = [0.5, 5., 100., 1., 10., 200., 1.5, 15., 300., 2., 20., 400., 2.5, 25., 500., 3., 30., 600.];
        assert_eq!(through([0.5; 2], 1), alone);
    }
}
