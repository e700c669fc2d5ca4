//! Several adapters at once.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use super::pass::{Mode, Pass};
use super::place::{BlockSite, BranchSite, Entry, LinearSite, NormSite, Tower};
use super::pool::PoolBase;
use super::site::{Base, LinearBase, LinearChange, NormBase, Scores, Sites, Touched};
use super::sublayer::SublayerBase;

/// Several adapters at once. Each sees the frozen backbone as those before it have changed it: at linear, norm and
/// sublayer sites the last wraps the others, and the first is closest to the frozen layer; elsewhere they act in order.
pub struct Stack<'a>(pub Vec<&'a dyn Sites>);

/// How one member of a stack runs a layer.
type Call<'a, At, Layer> = dyn Fn(&dyn Sites, Base<'_, At, Layer>, Tensor<3>) -> Tensor<3> + 'a;

impl Stack<'_> {
    fn wrap<At: Copy, Layer>(
        members: &[&dyn Sites],
        base: Base<'_, At, Layer>,
        input: Tensor<3>,
        call: &Call<'_, At, Layer>,
    ) -> Tensor<3> {
        let Some((last, rest)) = members.split_last() else { return base.forward(input) };
        let (at, layer) = (base.at, base.layer);
        let next = |input| Self::wrap(rest, Base::new(at, layer, base.next), input, call);
        call(*last, Base::new(at, layer, &next), input)
    }
}

impl Sites for Stack<'_> {
    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.0.iter().any(|member| member.needs_all_tokens(tower))
    }

    fn folds(&self) -> bool {
        self.0.iter().all(|member| member.folds())
    }

    fn entry(&self, tower: Tower) -> Entry {
        self.0.iter().map(|member| member.entry(tower)).min().unwrap_or(Entry::Never)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.0.iter().all(|member| member.shares_beginnings(mode))
    }

    fn touched(&self) -> Touched {
        self.0.iter().fold(Touched::NONE, |touched, member| touched.or(member.touched()))
    }

    fn linear_change(&self, at: LinearSite) -> LinearChange {
        let mut touching = self.0.iter().filter(|member| member.touched().linear);
        match (touching.next(), touching.next()) {
            (None, _) => LinearChange::None,
            (Some(only), None) => only.linear_change(at),
            (Some(_), Some(_)) => LinearChange::Any,
        }
    }

    fn conditions_text(&self) -> bool {
        self.0.iter().any(|member| member.conditions_text())
    }

    fn queries_image(&self) -> bool {
        self.0.iter().any(|member| member.queries_image())
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.iter().fold(tokens, |tokens, member| member.tokens(at, tokens, pass))
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        Self::wrap(&self.0, base, input, &|member, base, input| member.linear(base, input, pass))
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        Self::wrap(&self.0, base, input, &|member, base, input| member.norm(base, input, pass))
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.iter().fold(output, |output, member| member.branch(at, input, output, pass))
    }

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        self.0.iter().any(|member| member.wraps_sublayers(tower))
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        sublayer(&self.0, base, stream, pass)
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        pool(&self.0, base, frames, pass)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.0.iter().fold(feature, |feature, member| member.feature(tower, feature, pass))
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let Scores { feature, image, text, logits, scale, offset } = scores;
        let given = |logits| Scores { feature, image, text, logits, scale, offset };
        self.0.iter().fold(logits, |logits, member| member.logits(given(logits), pass))
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        self.0.iter().fold(None, |folded: Option<Linear>, member| {
            let next = member.fold(at, folded.as_ref().unwrap_or(layer));
            next.or(folded)
        })
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        self.0.iter().fold(None, |folded: Option<LayerNorm>, member| {
            let next = member.fold_norm(at, folded.as_ref().unwrap_or(layer));
            next.or(folded)
        })
    }
}

/// The last member wraps the others, as at layers.
fn sublayer(members: &[&dyn Sites], base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
    let Some((last, rest)) = members.split_last() else { return base.forward(stream) };
    let next = |stream| sublayer(rest, base, stream, pass);
    last.sublayer(base.over(&next), stream, pass)
}

/// The same at the pool.
fn pool(members: &[&dyn Sites], base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
    let Some((last, rest)) = members.split_last() else { return base.forward(frames) };
    let next = |frames| pool(rest, PoolBase::new(&|frames| base.forward(frames)), frames, pass);
    last.pool(PoolBase::new(&next), frames, pass)
}
