//! ST-Adapter: bottlenecks with a convolution over time inside the blocks of the image tower (Pan et al., 2022, arXiv
//! 2206.13559).
//!
//! `x' = x + (conv(x D + d) + c) U + u` on the patches' part of the residual stream `x`
//! `[clips, frames, patches, width]`, with `D` `[width, hidden]`, `U` `[hidden, width]` and a convolution over time of each
//! channel by itself, `[kernel, hidden]` (the authors' kernel of 3 x 1 x 1; there is no activation in their code). The class
//! token and prompts pass by. Kernel and offsets start at zero, `D` and `U` uniform within `1 / sqrt(inputs)`, so that the start is
//! the identity. Count for each place, with `h = hidden`: `2 * width * h + (kernel + 2) * h + width`.
//!
//! Sites: branch, image tower. `after_attention` stands behind a block's attention, before its MLP (their 12 x 384);
//! `after_mlp` behind its MLP, which is before the attention of the next block (with both, their 24 x 384). Behind the
//! attention of the last block only the class token is read, so that block has none; and none stands before the first
//! attention, where the authors' 24 x 384 has one.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, BranchSite, Entry, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::taps::over_time;
use super::temporal_conv::check_kernel;
use super::{check_size, drawn};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of ST-Adapter; the defaults are those of its authors for Something-Something v2: half the width, kernel 3, two
/// places in a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StAdapterConfig {
    /// Width of the tower over the width of the bottleneck.
    pub reduction: usize,
    /// Frames that the convolution sees at once, odd.
    pub kernel: usize,
    /// Stand behind attentions.
    pub after_attention: bool,
    /// Stand behind MLPs.
    pub after_mlp: bool,
    /// The first block, counted from 0.
    pub first_block: usize,
}

impl Default for StAdapterConfig {
    fn default() -> Self {
        Self { reduction: 2, kernel: 3, after_attention: true, after_mlp: true, first_block: 0 }
    }
}

#[derive(Module, Debug)]
struct Bottleneck {
    down: Param<Tensor<2>>,
    down_offset: Param<Tensor<1>>,
    kernel: Param<Tensor<2>>,
    kernel_offset: Param<Tensor<1>>,
    up: Param<Tensor<2>>,
    up_offset: Param<Tensor<1>>,
}

impl Bottleneck {
    fn new(width: usize, hidden: usize, kernel: usize, seed: Seed, device: &Device) -> Self {
        let zeros = |width: usize| Param::from_tensor(Tensor::zeros([width], device));
        Self {
            down: drawn(width, hidden, seed.split("down"), device),
            down_offset: zeros(hidden),
            kernel: Param::from_tensor(Tensor::from_data(
                TensorData::new(vec![0.0f32; kernel * hidden], [kernel, hidden]),
                device,
            )),
            kernel_offset: zeros(hidden),
            up: drawn(hidden, width, seed.split("up"), device),
            up_offset: zeros(width),
        }
    }

    /// The change of patches `[clips * frames, patches, width]`.
    fn forward(&self, patches: Tensor<3>, frames: usize) -> Tensor<3> {
        let ([rows, count, width], [_, hidden]) = (patches.dims(), self.down.dims());
        let low = patches.reshape([rows * count, width]).matmul(self.down.val());
        let low = low + self.down_offset.val().unsqueeze::<2>();
        let mixed = over_time(low.reshape([rows / frames, frames, count, hidden]), self.kernel.val());
        let mixed = mixed.reshape([rows * count, hidden]) + self.kernel_offset.val().unsqueeze::<2>();
        let change = mixed.matmul(self.up.val()) + self.up_offset.val().unsqueeze::<2>();
        change.reshape([rows, count, width])
    }
}

#[derive(Module, Debug)]
struct Places {
    attention: Option<Bottleneck>,
    mlp: Option<Bottleneck>,
}

/// Bottlenecks with a convolution over time.
#[derive(Module, Debug)]
pub struct StAdapter {
    blocks: Vec<Places>,
    /// Tokens before the patches.
    class_tokens: usize,
    patches: usize,
}

impl StAdapterConfig {
    /// The blocks that have bottlenecks: all but the last.
    fn blocks(&self, backbone: &Backbone) -> std::ops::Range<usize> {
        let end = backbone.depth(Tower::Image).saturating_sub(1);
        self.first_block.min(end)..end
    }

    fn hidden(&self, backbone: &Backbone) -> usize {
        (backbone.width(Tower::Image) / self.reduction.max(1)).max(1)
    }
}

impl Method for StAdapterConfig {
    type Adapter = StAdapter;

    /// [`Error::Setting`] for a reduction of 0, a kernel that is even, or no place.
    fn init(&self, start: &Start<'_>) -> Result<StAdapter> {
        check_size("reduction", self.reduction)?;
        check_kernel(self.kernel)?;
        let Start { backbone, seed, device, .. } = *start;
        let chosen = self.blocks(backbone);
        if !(self.after_attention || self.after_mlp) {
            let reason = "stand behind attentions, behind MLPs, or both".into();
            return Err(Error::Setting { setting: "after_attention", reason });
        }
        if chosen.is_empty() {
            let reason = format!("must come before block {}, the last", chosen.end);
            return Err(Error::Setting { setting: "first_block", reason });
        }
        let (width, hidden) = (backbone.width(Tower::Image), self.hidden(backbone));
        let place = |block: usize, name: &str, wanted: bool| {
            let seed = seed.split(block).split(name);
            (wanted && chosen.contains(&block)).then(|| Bottleneck::new(width, hidden, self.kernel, seed, device))
        };
        let places = |block: usize| Places {
            attention: place(block, "attention", self.after_attention),
            mlp: place(block, "mlp", self.after_mlp),
        };
        let spec = &backbone.spec().image;
        let patches = spec.grid() * spec.grid();
        let class_tokens = spec.tokens() - patches;
        Ok(StAdapter { blocks: (0..chosen.end).map(places).collect(), class_tokens, patches })
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
        let (width, hidden) = (backbone.width(Tower::Image), self.hidden(backbone));
        let places = usize::from(self.after_attention) + usize::from(self.after_mlp);
        self.blocks(backbone).len() * places * (2 * width * hidden + (self.kernel + 2) * hidden + width)
    }
}

impl Learner for StAdapter {}

impl StAdapter {
    fn at(&self, site: BranchSite) -> Option<&Bottleneck> {
        let block = site.block();
        let places = self.blocks.get(block.block).filter(|_| block.tower == Tower::Image)?;
        match site {
            BranchSite::Attention(_) => places.attention.as_ref(),
            // The image tower looks at no image.
            BranchSite::Cross(_) => None,
            BranchSite::Mlp(_) => places.mlp.as_ref(),
        }
    }
}

impl Sites for StAdapter {
    fn entry(&self, tower: Tower) -> Entry {
        let first = self.blocks.iter().position(|places| places.attention.is_some() || places.mlp.is_some());
        match tower {
            Tower::Image => first.map_or(Entry::Never, Entry::Block),
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(bottleneck) = self.at(at) else { return output };
        let [_, tokens, _] = output.dims();
        let stream = input.clone() + output.clone();
        let first = self.class_tokens;
        let change = bottleneck.forward(stream.narrow(1, first, self.patches), pass.frames.count());
        let mut parts = Vec::with_capacity(3);
        if first > 0 {
            parts.push(output.clone().narrow(1, 0, first));
        }
        parts.push(output.clone().narrow(1, first, self.patches) + change);
        let rest = first + self.patches;
        if tokens > rest {
            parts.push(output.narrow(1, rest, tokens - rest));
        }
        Tensor::cat(parts, 1)
    }
}
