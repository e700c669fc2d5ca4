//! What an adapter is told of a pass through a tower.

use burn::tensor::Tensor;

use super::pool::Frames;
use crate::seed::Seed;

/// Whether this pass trains or evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// No dropout.
    #[default]
    Evaluate,
    /// Dropout is on; its masks are drawn from the seed of this step, so a step can be repeated exactly.
    Train(Seed),
}

/// In what the frozen linear layers at the sites of a tower multiply, and the attention of its blocks. All else is in the device's
/// precision: the patches, convolutional trunks, normalisations, pools and heads, what an adapter computes itself, and what runs before
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// The precision of the device.
    #[default]
    Full,
    /// 16-bit floats of 8 significant bits and the range of 32-bit ones (mixed precision: Micikevicius et al., 2018, arXiv
    /// 1710.03740; with this range gradients need no scaling: Kalamkar et al., 2019, arXiv 1905.12322).
    Bf16,
}

/// What is known about one pass through a tower, beside its input.
#[derive(Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Training or evaluation.
    pub mode: Mode,
    /// In what the frozen layers of blocks multiply.
    pub products: Products,
    /// In the image tower: how many consecutive rows are the frames of one clip. Rows of other clips must not be looked at.
    pub frames: Frames,
    /// Normalised image features `[images, dim]` on which text prompts may depend (CoCoOp). The text rows are then
    /// `images * classes`, image-major.
    pub condition: Option<&'a Tensor<2>>,
    /// Normalised frozen features `[images, dim]` of the images in the image tower, for adapters whose prompts depend on them
    /// ([`Sites::queries_image`](super::Sites::queries_image)). Of clips, one for each; the sites of the tower see it repeated for each frame.
    pub query: Option<&'a Tensor<2>>,
    /// For each row of the text tower's output and each column of the scores, the class of the adapter that it stands
    /// for; `None` means row `i` is class `i`. With a condition the rows of each image repeat them.
    pub classes: Option<&'a [usize]>,
    /// Frozen text features of the classes at hand, `[classes, dim]`, for adapters that ask for them
    /// (`inarch_peft::Method::prior`): class-aware prompts and losses that hold on to zero-shot.
    pub prior: Option<&'a Tensor<2>>,
    /// In the text tower: the position of the end-of-text token in each row. Set by the tower itself.
    pub ends: Option<&'a [usize]>,
    /// In the text tower: the position of the first word in each row, behind a start token if there is one. Set by the tower
    /// itself.
    pub first: usize,
}

impl Pass<'_> {
    /// Stands in [`classes`](Self::classes) for a class that the adapter has no row for. Only adapters that say they are
    /// open to other classes meet it.
    pub const OTHER: usize = usize::MAX;

    /// A plain evaluation pass.
    pub fn evaluate() -> Self {
        Self::default()
    }

    /// A training pass whose random draws come from `step`.
    pub fn train(step: Seed) -> Self {
        Self { mode: Mode::Train(step), ..Self::default() }
    }
}
