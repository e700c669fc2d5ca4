//! A sublayer of a block at its site: attention or MLP, with what normalises its input and what runs it.

use std::ops::Range;

use burn::tensor::Tensor;

use super::block::{Block, BlockContext, Seen};
use super::pass::{Mode, Pass};
use super::place::{BranchSite, Tower};
use super::pool::Frames;
use super::site::Sites;

/// A sublayer of a frozen block at its site: whole, and in its parts.
///
/// [`forward`](Self::forward) is what the tower would do, in a stack of adapters through the members below. The parts,
/// [`read`](Self::read) and [`run`](Self::run), go through the norm and linear sites, so that they are those of the
/// backbone as the whole stack has changed it.
#[derive(Clone, Copy)]
pub struct SublayerBase<'a> {
    at: BranchSite,
    block: &'a Block,
    context: BlockContext<'a>,
    /// Rows of the stream.
    rows: usize,
    /// Whether nothing but the first token is read behind it.
    first_only: bool,
    /// The rest of a stack.
    next: Option<&'a dyn Fn(Tensor<3>) -> Tensor<3>>,
}

impl<'a> SublayerBase<'a> {
    /// A sublayer for a stream of so many rows.
    pub(super) fn new(
        at: BranchSite,
        block: &'a Block,
        rows: usize,
        first_only: bool,
        context: BlockContext<'a>,
    ) -> Self {
        Self { at, block, context, rows, first_only, next: None }
    }

    /// Where this is.
    pub fn at(&self) -> BranchSite {
        self.at
    }

    /// The stream before the sublayer, `[batch, tokens, width]`, to the stream behind it: normalised, run, through the
    /// branch site, and added. Behind the last attention of a tower that reads its first token only, that token alone
    /// comes back: `[batch, 1, width]`.
    pub fn forward(&self, stream: Tensor<3>) -> Tensor<3> {
        match self.next {
            Some(next) => next(stream),
            None => self.block.advance(self.at, stream, self.first_only, self.context),
        }
    }

    /// What the sublayer reads of a stream: the stream normalised, or as it is in a tower that normalises afterwards.
    /// Rows are those of the stream, in its order.
    pub fn read(&self, stream: Tensor<3>) -> Tensor<3> {
        self.block.read(self.at, stream, self.context)
    }

    /// What the sublayer's frozen layers make of what was read, `[rows, tokens, width]` to the same, short of the
    /// branch site. Tokens may be arranged in rows of any number and length, clip by clip, equally many rows for each
    /// clip (for each row in the text tower). All tokens of a row see each other: a mask is that of the block's own
    /// rows.
    ///
    /// # Panics
    /// When rows are not equally many for each clip.
    pub fn run(&self, read: Tensor<3>) -> Tensor<3> {
        let (pass, tower) = (self.context.pass, self.at.block().tower);
        let frames = if tower == Tower::Image { pass.frames.count() } else { 1 };
        let ([rows, _, _], clips) = (read.dims(), (self.rows / frames).max(1));
        assert!(rows.is_multiple_of(clips), "{rows} rows are not equally many for each of {clips} clips");
        let each = Frames::of(rows / clips);
        // Known of each clip, told for each of its rows.
        let query = pass.query.filter(|_| tower == Tower::Image).map(|query| {
            let [_, dim] = query.dims();
            let of_clips = query.clone().reshape([clips, frames, dim]).narrow(1, 0, 1);
            each.spread(of_clips.squeeze_dim::<2>(1))
        });
        // The layers run once more in `forward`: masks of dropout must not repeat.
        let mode = match pass.mode {
            Mode::Train(seed) => Mode::Train(seed.split("run")),
            Mode::Evaluate => Mode::Evaluate,
        };
        let pass = &Pass { mode, frames: each, query: query.as_ref(), ..*pass };
        self.block.layers(self.at, read, false, BlockContext { seen: Seen::All, pass, ..self.context })
    }

    /// The same with something between it and the frozen sublayer.
    pub(super) fn over<'b>(&'b self, next: &'b dyn Fn(Tensor<3>) -> Tensor<3>) -> SublayerBase<'b> {
        SublayerBase { next: Some(next), ..*self }
    }

    /// Hands `run` the same sublayer for some of the rows, with an adapter and a pass of their own.
    pub(super) fn within<R>(
        &self,
        rows: &Range<usize>,
        sites: &dyn Sites,
        pass: &Pass<'_>,
        run: impl FnOnce(SublayerBase<'_>) -> R,
    ) -> R {
        let marks = match self.context.seen {
            Seen::Marked(marks) => Some(marks.clone().narrow(0, rows.start, rows.len())),
            Seen::All | Seen::Before => None,
        };
        let seen = marks.as_ref().map_or(self.context.seen, Seen::Marked);
        let context = BlockContext { seen, sites, pass, ..self.context };
        run(SublayerBase { context, rows: rows.len(), next: None, ..*self })
    }
}

/// Whether texts may share the computation of what they begin with. A sublayer that is wrapped knows one stream only.
pub(super) fn shares_beginnings(sites: &dyn Sites, mode: Mode) -> bool {
    sites.shares_beginnings(mode) && !sites.wraps_sublayers(Tower::Text)
}
