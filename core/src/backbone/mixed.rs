//! One batch whose rows use different adapters.

use std::ops::Range;

use burn::tensor::Tensor;

use super::pass::Pass;
use super::place::{BlockSite, BranchSite, Entry, Tower};
use super::pool::PoolBase;
use super::site::{Base, LinearBase, LinearChange, LowRank, NormBase, Sites};
use super::sublayer::SublayerBase;

/// An adapter with its rows of a batch.
type Member<'a> = (Range<usize>, &'a dyn Sites);

/// Deals the rows of a batch out to their adapters. What an adapter leaves alone is computed for all its neighbours' rows
/// together: a frozen layer runs once over all rows whose adapters do not change it or add a low-rank product to it, and
/// products of equal rank are one batched product (the idea of Punica, Chen et al., 2023, arXiv 2310.18547, without
/// padding).
///
/// Members that change layers in other ways belong at one end of the batch, so that the others stay neighbours. Each row
/// gets what it gets alone. There is no common meaning of scores over different classes: score each adapter's rows by
/// themselves. Rows of one tensor have one number of tokens, so adapters that add tokens must add equally many.
pub struct Mixed<'a> {
    image: Vec<Member<'a>>,
    text: Vec<Member<'a>>,
}

impl<'a> Mixed<'a> {
    /// Adapters of the rows of an image batch and of a text batch, in the order of the rows, each with its number of rows;
    /// of clips, with its number of clips.
    pub fn new(image: Vec<(usize, &'a dyn Sites)>, text: Vec<(usize, &'a dyn Sites)>) -> Self {
        Self { image: ranges(image), text: ranges(text) }
    }

    fn members(&self, tower: Tower) -> &[Member<'a>] {
        match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        }
    }

    /// The members of a tower with their rows inside it, where a clip has as many as it has frames.
    fn inside(&self, tower: Tower, pass: &Pass<'_>) -> Vec<Member<'a>> {
        let frames = if tower == Tower::Image { pass.frames.count() } else { 1 };
        let rows = |(rows, member): &Member<'a>| (rows.start * frames..rows.end * frames, *member);
        self.members(tower).iter().map(rows).collect()
    }

    /// Some of the members as a batch of their own.
    fn part(tower: Tower, members: &[Member<'a>], pass: &Pass<'_>) -> Self {
        let frames = if tower == Tower::Image { pass.frames.count() } else { 1 };
        let members = members.iter().map(|(rows, member)| (rows.len() / frames, *member)).collect();
        match tower {
            Tower::Image => Self::new(members, Vec::new()),
            Tower::Text => Self::new(Vec::new(), members),
        }
    }

    /// Runs each member on its rows of the batch; rows of members that `leave` it alone are passed on as they are.
    fn deal<const D: usize>(
        members: &[Member<'_>],
        input: Tensor<D>,
        leaves: impl Fn(&dyn Sites) -> bool,
        run: impl Fn(&dyn Sites, Range<usize>, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        if members.iter().all(|(_, member)| leaves(*member)) {
            return input;
        }
        let mut parts = Vec::new();
        for group in members.chunk_by(|left, right| leaves(left.1) && leaves(right.1)) {
            let rows = group[0].0.start..group[group.len() - 1].0.end;
            let part = input.clone().narrow(0, rows.start, rows.len());
            parts.push(if leaves(group[0].1) { part } else { run(group[0].1, rows, part) });
        }
        joined(parts)
    }
}

fn ranges(members: Vec<(usize, &dyn Sites)>) -> Vec<Member<'_>> {
    let mut next = 0;
    let place = |(rows, member)| {
        next += rows;
        (next - rows..next, member)
    };
    members.into_iter().map(place).collect()
}

fn joined<const D: usize>(mut parts: Vec<Tensor<D>>) -> Tensor<D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

impl Sites for Mixed<'_> {
    fn entry(&self, tower: Tower) -> Entry {
        self.members(tower).iter().map(|(_, member)| member.entry(tower)).min().unwrap_or(Entry::Never)
    }

    fn queries_image(&self) -> bool {
        self.members(Tower::Image).iter().any(|(_, member)| member.queries_image())
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.members(tower).iter().any(|(_, member)| member.needs_all_tokens(tower))
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let leaves = |member: &dyn Sites| !member.touched().tokens;
        Self::deal(&self.inside(at.tower, pass), tokens, leaves, |member, rows, tokens| {
            own(pass, at.tower, &rows, |pass| member.tokens(at, tokens, pass))
        })
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let members = &self.inside(base.at.tower(), pass);
        let changes: Vec<LinearChange> = members
            .iter()
            .map(|(_, member)| match member.touched().linear {
                false => LinearChange::None,
                true => member.linear_change(base.at),
            })
            .collect();
        let shared = |change: &LinearChange| !matches!(change, LinearChange::Any);
        let next = |input| base.forward(input);
        let mut parts = Vec::new();
        let mut at = 0;
        for group in changes.chunk_by(|left, right| shared(left) && shared(right)) {
            let members = &members[at..at + group.len()];
            at += group.len();
            let rows = members[0].0.start..members[members.len() - 1].0.end;
            let part = input.clone().narrow(0, rows.start, rows.len());
            parts.push(if shared(&group[0]) {
                let rows: Vec<usize> = members.iter().map(|(rows, _)| rows.len()).collect();
                with_low_rank(base.forward(part.clone()), part, &rows, group)
            } else {
                own(pass, base.at.tower(), &rows, |pass| {
                    members[0].1.linear(Base::new(base.at, base.layer, &next), part, pass)
                })
            });
        }
        joined(parts)
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let tower = base.at.tower();
        let members = self.inside(tower, pass);
        let leaves = |member: &dyn Sites| !member.touched().norm;
        let next = |input| base.forward(input);
        let mut parts = Vec::new();
        for group in members.chunk_by(|left, right| leaves(left.1) && leaves(right.1)) {
            let rows = group[0].0.start..group[group.len() - 1].0.end;
            let part = input.clone().narrow(0, rows.start, rows.len());
            parts.push(match leaves(group[0].1) {
                true => base.forward(part),
                false => {
                    own(pass, tower, &rows, |pass| group[0].1.norm(Base::new(base.at, base.layer, &next), part, pass))
                }
            });
        }
        joined(parts)
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let leaves = |member: &dyn Sites| !member.touched().branch;
        Self::deal(&self.inside(at.block().tower, pass), output, leaves, |member, rows, output| {
            let input = input.clone().narrow(0, rows.start, rows.len());
            own(pass, at.block().tower, &rows, |pass| member.branch(at, &input, output, pass))
        })
    }

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        self.members(tower).iter().any(|(_, member)| member.wraps_sublayers(tower))
    }

    /// The rows of an adapter that wraps it run by themselves, those between such adapters together.
    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let tower = base.at().block().tower;
        let members = self.inside(tower, pass);
        let leaves = |member: &dyn Sites| !member.wraps_sublayers(tower);
        let mut parts = Vec::new();
        for group in members.chunk_by(|left, right| leaves(left.1) && leaves(right.1)) {
            let rows = group[0].0.start..group[group.len() - 1].0.end;
            let part = stream.clone().narrow(0, rows.start, rows.len());
            parts.push(own(pass, tower, &rows, |pass| match leaves(group[0].1) {
                true => {
                    let together = Self::part(tower, group, pass);
                    base.within(&rows, &together, pass, |base| base.forward(part))
                }
                false => base.within(&rows, group[0].1, pass, |base| group[0].1.sublayer(base, part, pass)),
            }));
        }
        joined(parts)
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        let pass = &Pass { query: None, ..*pass };
        let own = |(rows, member): &Member<'_>| {
            let own = frames.clone().narrow(0, rows.start, rows.len());
            member.pool(PoolBase::new(&|frames| base.forward(frames)), own, pass)
        };
        joined(self.image.iter().map(own).collect())
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        Self::deal(
            self.members(tower),
            feature,
            |_| false,
            |member, rows, feature| own(pass, tower, &rows, |pass| member.feature(tower, feature, pass)),
        )
    }
}

/// Runs `site` with what a pass knows about a member's own images.
fn own<R>(pass: &Pass<'_>, tower: Tower, rows: &Range<usize>, site: impl FnOnce(&Pass<'_>) -> R) -> R {
    let query = pass.query.filter(|_| tower == Tower::Image);
    let query = query.map(|query| query.clone().narrow(0, rows.start, rows.len()));
    site(&Pass { query: query.as_ref(), ..*pass })
}

/// Adds each member's low-rank product to its rows of a frozen layer's output. Neighbours of equal rank share one
/// batched product.
fn with_low_rank(output: Tensor<3>, input: Tensor<3>, rows: &[usize], changes: &[LinearChange]) -> Tensor<3> {
    let rank = |change: &LinearChange| match change {
        LinearChange::LowRank(LowRank { a, .. }) => a.dims()[1],
        LinearChange::None | LinearChange::Any => 0,
    };
    if changes.iter().all(|change| rank(change) == 0) {
        return output;
    }
    let (mut parts, mut member, mut start) = (Vec::new(), 0, 0);
    for group in changes.chunk_by(|left, right| rank(left) == rank(right)) {
        let counts = &rows[member..member + group.len()];
        member += group.len();
        let count = counts.iter().sum();
        let part = output.clone().narrow(0, start, count);
        parts.push(match rank(&group[0]) {
            0 => part,
            _ => part + product(input.clone().narrow(0, start, count), counts, group),
        });
        start += count;
    }
    joined(parts)
}

/// `scale * x A B` with each row's own factors, `[rows, tokens, d_input]` to `[rows, tokens, d_output]`.
fn product(input: Tensor<3>, counts: &[usize], changes: &[LinearChange]) -> Tensor<3> {
    let factors: Vec<&LowRank> = changes
        .iter()
        .filter_map(|change| match change {
            LinearChange::LowRank(factors) => Some(factors),
            LinearChange::None | LinearChange::Any => None,
        })
        .collect();
    if let [LowRank { a, b, scale }] = factors[..] {
        let ([rows, tokens, width], [_, outputs]) = (input.dims(), b.dims());
        let low = input.reshape([rows * tokens, width]).matmul(a.clone()) * *scale;
        return low.matmul(b.clone()).reshape([rows, tokens, outputs]);
    }
    let each = |take: &dyn Fn(&LowRank) -> Tensor<2>| {
        let rows = factors.iter().zip(counts).flat_map(|(factors, count)| {
            let factor: Tensor<3> = take(factors).unsqueeze();
            std::iter::repeat_n(factor, *count)
        });
        Tensor::cat(rows.collect(), 0)
    };
    let a = each(&|factors| factors.a.clone());
    // The scale goes to the smaller of the two factors' products: one number for each of `rank` columns.
    let b = each(&|factors| factors.b.clone() * factors.scale);
    input.matmul(a).matmul(b)
}
