//! One batch whose rows use different adapters: an implementation of the sites that deals the rows out.

use std::ops::Range;

use burn::tensor::Tensor;
use inarch_core::backbone::{
    Base, BlockSite, BranchSite, Entry, Frozen, LinearBase, LinearSite, NormBase, NormSite, Pass, Sites, Tower,
};

use super::bottleneck::Bottleneck;
use super::dora::Dora;
use super::fold::lora;
use super::ia3::Ia3;
use super::ssf::Ssf;
use super::vpt::Vpt;
use crate::support::{differs, pixels, plain, rows, same, tiny};

/// Adapters with their rows of the batch, which they cover without gaps and in order.
pub(crate) struct Mixed<'a> {
    pub(crate) image: Vec<(Range<usize>, &'a dyn Sites)>,
    pub(crate) text: Vec<(Range<usize>, &'a dyn Sites)>,
}

impl Mixed<'_> {
    fn members(&self, tower: Tower) -> &[(Range<usize>, &dyn Sites)] {
        match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        }
    }

    /// Runs each member on its rows of the batch.
    fn deal<const D: usize>(
        &self,
        tower: Tower,
        input: Tensor<D>,
        run: impl Fn(&dyn Sites, Range<usize>, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let parts = self
            .members(tower)
            .iter()
            .map(|(rows, member)| run(*member, rows.clone(), input.clone().narrow(0, rows.start, rows.len())));
        Tensor::cat(parts.collect(), 0)
    }
}

fn tower_of_linear(at: LinearSite) -> Tower {
    match at {
        LinearSite::Block(at, _) => at.tower,
        LinearSite::Head(tower) => tower,
    }
}

fn tower_of_norm(at: NormSite) -> Tower {
    match at {
        NormSite::Input(tower) | NormSite::Output(tower) => tower,
        NormSite::Attention(at) | NormSite::Mlp(at) => at.tower,
    }
}

fn tower_of_branch(at: BranchSite) -> Tower {
    match at {
        BranchSite::Attention(at) | BranchSite::Mlp(at) => at.tower,
    }
}

impl Sites for Mixed<'_> {
    fn entry(&self, tower: Tower) -> Entry {
        self.members(tower).iter().map(|(_, member)| member.entry(tower)).min().unwrap_or(Entry::Never)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.deal(at.tower, tokens, |member, _, tokens| member.tokens(at, tokens, pass))
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let next = |input| base.forward(input);
        self.deal(tower_of_linear(base.at), input, |member, _, input| {
            member.linear(Base::new(base.at, base.layer, &next), input, pass)
        })
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let next = |input| base.forward(input);
        self.deal(tower_of_norm(base.at), input, |member, _, input| {
            member.norm(Base::new(base.at, base.layer, &next), input, pass)
        })
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.deal(tower_of_branch(at), output, |member, rows, output| {
            member.branch(at, &input.clone().narrow(0, rows.start, rows.len()), output, pass)
        })
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.deal(tower, feature, |member, _, feature| member.feature(tower, feature, pass))
    }
}

/// Compares a mixed batch with each member's rows alone.
fn check(what: &str, members: &[(usize, &dyn Sites)]) {
    let mut ranges = Vec::new();
    let mut next = 0;
    for (count, member) in members {
        ranges.push((next..next + count, *member));
        next += count;
    }
    let mixed = Mixed { image: ranges.clone(), text: ranges.clone() };
    let pass = Pass::evaluate();
    let images = pixels(next);
    let texts: Vec<Vec<u32>> = rows().into_iter().cycle().take(next).collect();
    let image = tiny().encode_image(images.clone(), &mixed, &pass);
    let text = tiny().encode_text(&texts, &mixed, &pass);
    for (rows, member) in ranges {
        for row in rows {
            let alone = tiny().encode_image(images.clone().narrow(0, row, 1), member, &pass);
            same(&format!("{what}: image {row}"), image.clone().narrow(0, row, 1), alone, 1e-5);
            let alone = tiny().encode_text(&texts[row..=row], member, &pass);
            same(&format!("{what}: text {row}"), text.clone().narrow(0, row, 1), alone, 1e-5);
        }
    }
    differs(what, image, tiny().encode_image(images, &Frozen, &pass));
}

#[test]
fn every_row_is_adapted_by_its_own_adapter() {
    let device = plain();
    let (lora, ia3) = (lora(&["*.q_proj", "*.v_proj"], &device), Ia3::random(&device));
    let (dora, ssf) = (Dora::random(&device), Ssf::random(&device));
    let bottleneck = Bottleneck::random(true, &device);
    check("sites of all kinds", &[(1, &lora), (2, &ia3), (1, &Frozen), (1, &dora), (1, &ssf), (2, &bottleneck)]);
}

#[test]
fn adapters_that_enter_late_share_a_batch_with_those_that_enter_early() {
    let device = plain();
    let (late, early) = (lora(&["*.projection"], &device), Ssf::random(&device));
    check("entries", &[(2, &late), (1, &early)]);
}

#[test]
fn prompts_of_one_length_share_a_batch() {
    // Of several lengths they cannot: rows of one tensor have one number of tokens.
    let device = plain();
    let (left, right) = (Vpt::named("left", 2, &device), Vpt::named("right", 2, &device));
    check("prompts", &[(2, &left), (1, &right)]);
}
