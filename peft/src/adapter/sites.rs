//! An adapter at the sites: what its method does there.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use inarch_core::backbone::{
    BlockSite, BranchSite, Entry, LinearBase, LinearChange, LinearSite, Mode, NormBase, NormSite, Pass, PoolBase,
    Scores, Sites, SublayerBase, Touched, Tower,
};

use super::Adapter;

impl Sites for Adapter {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites().entry(tower)
    }

    fn conditions_text(&self) -> bool {
        self.sites().conditions_text()
    }

    fn queries_image(&self) -> bool {
        self.sites().queries_image()
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.sites().needs_all_tokens(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.sites().shares_beginnings(mode)
    }

    fn touched(&self) -> Touched {
        self.sites().touched()
    }

    fn linear_change(&self, at: LinearSite) -> LinearChange {
        self.sites().linear_change(at)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().tokens(at, tokens, pass)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().linear(base, input, pass)
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().norm(base, input, pass)
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().branch(at, input, output, pass)
    }

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        self.sites().wraps_sublayers(tower)
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().sublayer(base, stream, pass)
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().pool(base, frames, pass)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().feature(tower, feature, pass)
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().logits(scores, pass)
    }

    fn folds(&self) -> bool {
        self.sites().folds()
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        self.sites().fold(at, layer)
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        self.sites().fold_norm(at, layer)
    }
}
