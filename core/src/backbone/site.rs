//! The site interface: how an adapter enters a frozen tower.
//!
//! A tower never knows which adapter it carries. At each *site* it hands the adapter what the adapter could need and
//! takes back the value to go on with; the default of every site is the frozen computation. The design, and the cases
//! it was tried against, are in `docs/decisions/001-sites.md`.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use super::pass::{Mode, Pass};
use super::place::{BlockSite, BranchSite, Entry, LinearSite, NormSite, Tower};
use super::pool::PoolBase;
use super::sublayer::SublayerBase;

/// A frozen layer as a site sees it: its weights, and the way to run it.
///
/// A method that only needs the result calls [`forward`](Self::forward); one that needs the weights (DoRA, folding)
/// reads [`layer`](Self::layer). In a stack of adapters `forward` runs the rest of the stack, then the layer.
pub struct Base<'a, At, Layer> {
    /// Where this is.
    pub at: At,
    /// The frozen layer itself, also inside a stack: an adapter that reads weights (DoRA) sees those of the backbone and
    /// belongs first.
    pub layer: &'a Layer,
    pub(super) next: &'a dyn Fn(Tensor<3>) -> Tensor<3>,
}

/// A frozen linear layer at its site. Its weight is `[d_input, d_output]`.
pub type LinearBase<'a> = Base<'a, LinearSite, Linear>;
/// A frozen normalisation at its site.
pub type NormBase<'a> = Base<'a, NormSite, LayerNorm>;

impl<'a, At: Copy, Layer> Base<'a, At, Layer> {
    /// A layer at its site, with what runs it.
    pub fn new(at: At, layer: &'a Layer, next: &'a dyn Fn(Tensor<3>) -> Tensor<3>) -> Self {
        Self { at, layer, next }
    }

    /// Runs the layer (and, in a stack, the adapters below): `[batch, tokens, d_input]` to `[batch, tokens, d_output]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        (self.next)(input)
    }
}

/// What the logits site is given.
pub struct Scores<'a> {
    /// Image features `[images, dim]` as the feature site gave them, not normalised.
    pub feature: &'a Tensor<2>,
    /// Normalised image features `[images, dim]`.
    pub image: &'a Tensor<2>,
    /// Normalised text features `[classes, dim]`; `[images * classes, dim]`, image-major, with a condition.
    pub text: &'a Tensor<2>,
    /// `scale * cosine + offset`, `[images, classes]`.
    pub logits: Tensor<2>,
    /// The logit scale (the inverse temperature, e.g. 100).
    pub scale: f32,
    /// What a backbone of the sigmoid loss adds to every score; 0 for others. A member of a stack before may have scaled it.
    pub offset: f32,
}

/// Which kinds of sites an adapter may change, feature and scores apart. In a mixed batch ([`Mixed`](super::Mixed)) what an
/// adapter leaves alone is computed for the rows of all such adapters at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// [`Sites::tokens`].
    pub tokens: bool,
    /// [`Sites::linear`].
    pub linear: bool,
    /// [`Sites::norm`].
    pub norm: bool,
    /// [`Sites::branch`].
    pub branch: bool,
}

impl Touched {
    /// None of them.
    pub const NONE: Self = Self { tokens: false, linear: false, norm: false, branch: false };
    /// All of them: always true enough.
    pub const ALL: Self = Self { tokens: true, linear: true, norm: true, branch: true };
    /// Linear layers only.
    pub const LINEAR: Self = Self { linear: true, ..Self::NONE };
    /// Normalisations only.
    pub const NORM: Self = Self { norm: true, ..Self::NONE };
    /// Residual branches only.
    pub const BRANCH: Self = Self { branch: true, ..Self::NONE };

    /// What either of two adapters may change.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tokens: self.tokens || other.tokens,
            linear: self.linear || other.linear,
            norm: self.norm || other.norm,
            branch: self.branch || other.branch,
        }
    }
}

/// What an adapter does to a linear layer in evaluation.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few of them live for as long as one layer runs")]
pub enum LinearChange {
    /// Nothing, nor in training.
    None,
    /// It adds a low-rank product to the output, and does nothing else.
    LowRank(LowRank),
    /// Whatever [`Sites::linear`] does.
    Any,
}

/// `scale * x A B`.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[d_input, rank]`.
    pub a: Tensor<2>,
    /// `[rank, d_output]`.
    pub b: Tensor<2>,
    /// The factor.
    pub scale: f64,
}

/// An adapter, as the towers see it. Every site defaults to the frozen computation.
///
/// Implementations are values passed into a forward call; they never change the backbone.
pub trait Sites: Send + Sync {
    /// The first point of `tower` that this adapter touches. It must not be later than the truth: all before it is
    /// computed without the adapter.
    fn entry(&self, tower: Tower) -> Entry;

    /// Whether text features depend on the image ([`Pass::condition`] must then be given).
    fn conditions_text(&self) -> bool {
        false
    }

    /// Whether image prompts depend on the image's own frozen feature: [`Pass::query`] is then given, and the frozen tower
    /// runs first where the feature is not known.
    fn queries_image(&self) -> bool {
        false
    }

    /// Whether every token of a tower's last block is needed, because this adapter mixes tokens at a branch or norm site
    /// (convolutional and temporal adapters). Otherwise only the token that is pooled is computed there.
    fn needs_all_tokens(&self, tower: Tower) -> bool {
        let _ = tower;
        false
    }

    /// Whether texts that begin with the same tokens keep the same values there in every block of the text tower: whatever this
    /// adapter does to a token depends on the tokens before it and on its place, not on its text or on the number of tokens at
    /// hand; where it repeats the texts for each image, it may depend on the image. What such texts share is then computed once.
    fn shares_beginnings(&self, mode: Mode) -> bool {
        let _ = mode;
        self.entry(Tower::Text) >= Entry::Feature
    }

    /// Whether this adapter is met at [`sublayer`](Self::sublayer) in the blocks of a tower. Where it is, texts do not share the
    /// computation of what they begin with, and in a mixed batch its rows run by themselves.
    fn wraps_sublayers(&self, tower: Tower) -> bool {
        let _ = tower;
        false
    }

    /// Which kinds of sites this adapter may change. Naming too many costs time in mixed batches; one too few would be
    /// passed over.
    fn touched(&self) -> Touched {
        Touched::ALL
    }

    /// What [`linear`](Self::linear) does at a site in evaluation, told instead of done, so that a mixed batch can do it for
    /// many adapters at once, and a trunk need not call where nothing is done.
    fn linear_change(&self, at: LinearSite) -> LinearChange {
        let _ = at;
        LinearChange::Any
    }

    /// Input tokens of a block, `[batch, tokens, width]`. Block 0 is met where the literature inserts prompts: in the
    /// text tower before positions are added, in the image tower after that and before the first normalisation.
    /// The image tower may add tokens at the end; the text tower replaces tokens in place, since its end-of-text
    /// position must not move.
    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let _ = (at, pass);
        tokens
    }

    /// A linear layer: `[batch, tokens, d_input]` to `[batch, tokens, d_output]`. Keys and values of an image are made of its
    /// tokens, once for all texts that it meets: `[images, tokens, width of the image tower]`.
    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let _ = pass;
        base.forward(input)
    }

    /// A layer normalisation, `[batch, tokens, width]`.
    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let _ = pass;
        base.forward(input)
    }

    /// A residual branch: `input` is the residual stream that the branch read, `output` what it is about to add.
    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let _ = (at, input, pass);
        output
    }

    /// A sublayer of a block (attention, attention to an image, MLP): the stream before it, `[batch, tokens, width]`, to the stream
    /// behind it. The other sites of the block lie within. Met by adapters that say so
    /// ([`wraps_sublayers`](Self::wraps_sublayers)).
    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let _ = pass;
        base.forward(stream)
    }

    /// The projected features of the frames of clips, `[clips, frames, dim]` in the order of time, to those of the clips,
    /// `[clips, dim]`; still images are clips of one frame. Image tower only.
    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        let _ = pass;
        base.forward(frames)
    }

    /// The pooled, projected feature of a tower, `[rows, dim]`, not normalised; of clips, one row for each.
    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let _ = (tower, pass);
        feature
    }

    /// The scores, `[images, classes]`.
    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let _ = pass;
        scores.logits
    }

    /// Whether [`fold`](Self::fold) and [`fold_norm`](Self::fold_norm) express all of this adapter. One that also acts on
    /// tokens, branches, features or scores cannot be folded.
    fn folds(&self) -> bool {
        false
    }

    /// The same change written into the weights of one linear layer, or `None` where this adapter leaves it alone.
    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let _ = (at, layer);
        None
    }

    /// The same change written into one normalisation, or `None` where this adapter leaves it alone.
    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        let _ = (at, layer);
        None
    }
}

/// No adapter: the frozen backbone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frozen;

impl Sites for Frozen {
    fn folds(&self) -> bool {
        true
    }

    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }
}
