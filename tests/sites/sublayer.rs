//! Whole sublayers: what is composed of their parts is what the tower does, in a stack the last member wraps the
//! others, and texts that begin alike are still right.

use burn::tensor::Tensor;
use inarch_core::backbone::{BranchSite, Entry, Frozen, Mode, Pass, Sites, Stack, SublayerBase, Tower};

use super::fold::lora;
use super::ssf::Ssf;
use crate::support::{differs, features, pixels, plain, rows, same, same_features, tiny};

/// What happens at every sublayer of both towers.
pub(super) struct Wrap(pub(super) fn(&SublayerBase<'_>, Tensor<3>) -> Tensor<3>);

impl Sites for Wrap {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Block(0)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn wraps_sublayers(&self, _tower: Tower) -> bool {
        true
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        self.0(&base, stream)
    }
}

fn whole(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    base.forward(stream)
}

/// What a sublayer does, of its parts.
fn composed(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    stream.clone() + base.run(base.read(stream))
}

/// The same, with every row shown twice to attentions, and tokens as rows of their own to MLPs.
fn arranged(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, width] = stream.dims();
    let read = base.read(stream.clone());
    let output = match base.at() {
        BranchSite::Mlp(_) => base.run(read.reshape([batch * tokens, 1, width])),
        BranchSite::Attention(_) | BranchSite::Cross(_) => {
            let twice =
                read.unsqueeze_dim::<4>(1).expand([batch, 2, tokens, width]).reshape([2 * batch, tokens, width]);
            base.run(twice).reshape([batch, 2, tokens, width]).narrow(1, 1, 1).squeeze_dim::<3>(1)
        }
    };
    stream + output.reshape([batch, tokens, width])
}

/// A parallel path from what the sublayer reads.
pub(super) fn beside(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    let read = base.read(stream.clone());
    let output = base.forward(stream);
    let [_, tokens, _] = output.dims();
    output + read.narrow(1, 0, tokens) * 0.2
}

fn shrunk(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    base.forward(stream) * 0.5
}

fn shrunk_beside(base: &SublayerBase<'_>, stream: Tensor<3>) -> Tensor<3> {
    beside(base, stream) * 0.5
}

/// Images alone: a text's mask is that of its own rows.
fn image(sites: &dyn Sites) -> Tensor<2> {
    tiny().encode_image(pixels(3), sites, &Pass::evaluate())
}

#[test]
fn a_sublayer_that_is_run_whole_is_the_frozen_one() {
    let [image, text] = features(tiny(), &Wrap(whole));
    let frozen = features(tiny(), &Frozen);
    same("images", image, frozen[0].clone(), 0.0);
    same("texts", text, frozen[1].clone(), 1e-6);
}

#[test]
fn parts_compose_to_the_whole_with_what_a_stack_has_made_of_its_layers() {
    let device = plain();
    let (lora, ssf) = (lora(&["*.q_proj", "*.v_proj", "*.fc1"], &device), Ssf::random(&device));
    for parts in [composed, arranged] {
        let wrap = Wrap(parts);
        same("alone", image(&wrap), image(&Frozen), 1e-5);
        for member in [&lora as &dyn Sites, &ssf] {
            let expected = image(member);
            same("before", image(&Stack(vec![member, &wrap])), expected.clone(), 1e-5);
            same("behind", image(&Stack(vec![&wrap, member])), expected.clone(), 1e-5);
            differs("a member that acts", expected, image(&Frozen));
        }
    }
}

#[test]
fn in_a_stack_the_last_member_wraps_the_others() {
    let (inner, outer) = (Wrap(beside), Wrap(shrunk));
    let expected = features(tiny(), &Wrap(shrunk_beside));
    same_features("last", features(tiny(), &Stack(vec![&inner, &outer])), expected.clone(), 1e-6);
    let other = features(tiny(), &Stack(vec![&outer, &inner]));
    for (found, expected) in other.into_iter().zip(expected) {
        differs("the other order", found, expected);
    }
}

#[test]
fn texts_that_begin_alike_go_through_a_wrapped_sublayer() {
    let wrap = Wrap(beside);
    let texts = rows();
    let together = tiny().encode_text(&texts, &wrap, &Pass::evaluate());
    for (row, text) in texts.iter().enumerate() {
        let alone = tiny().encode_text(std::slice::from_ref(text), &wrap, &Pass::evaluate());
        same("a text", together.clone().narrow(0, row, 1), alone, 1e-5);
    }
    differs("texts", together, tiny().encode_text(&texts, &Frozen, &Pass::evaluate()));
}
