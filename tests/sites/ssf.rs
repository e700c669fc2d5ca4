//! SSF (Lian et al., 2022, arXiv 2210.08823) at the normalisations: a gain and a shift after each.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, Entry, Frozen, NormBase, NormSite, Pass, Sites, StateDict, Tower, values};

use crate::support::{differs, features, learned, plain, rebuilt, same_features, tiny};

#[derive(Module, Debug)]
struct Affine {
    gain: Param<Tensor<1>>,
    shift: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
pub(super) struct Ssf {
    image: Vec<Affine>,
    text: Vec<Affine>,
}

/// The place of a normalisation among those of its tower, in the order of data, and its canonical name. The first
/// place is that of the input, which the text tower does not have.
fn place(at: NormSite) -> (Tower, usize, String) {
    let model = |tower: Tower| if tower == Tower::Image { "vision_model" } else { "text_model" };
    let layer = |BlockSite { tower, block }: BlockSite| format!("{}.encoder.layers.{block}", model(tower));
    match at {
        NormSite::Input(tower) => (tower, 0, format!("{}.pre_layrnorm", model(tower))),
        NormSite::Attention(at) => (at.tower, 1 + 2 * at.block, format!("{}.layer_norm1", layer(at))),
        NormSite::Cross(_) => unreachable!("CLIP looks at no image"),
        NormSite::Mlp(at) => (at.tower, 2 + 2 * at.block, format!("{}.layer_norm2", layer(at))),
        NormSite::Output(tower) => {
            let name = if tower == Tower::Image { "post_layernorm" } else { "final_layer_norm" };
            (tower, 1 + 2 * tiny().depth(tower), format!("{}.{name}", model(tower)))
        }
    }
}

/// Every normalisation of both towers.
fn norms() -> Vec<NormSite> {
    let mut sites = vec![NormSite::Input(Tower::Image)];
    for tower in [Tower::Image, Tower::Text] {
        for block in 0..tiny().depth(tower) {
            sites.extend([NormSite::Attention(BlockSite { tower, block }), NormSite::Mlp(BlockSite { tower, block })]);
        }
        sites.push(NormSite::Output(tower));
    }
    sites
}

impl Ssf {
    pub(super) fn random(device: &Device) -> Self {
        let mut ssf = Self { image: Vec::new(), text: Vec::new() };
        for site in norms() {
            let (tower, _, name) = place(site);
            let one = |part: &str| learned(&format!("ssf.{name}.{part}"), [tiny().width(tower)], 1.0, device);
            let affine = Affine { gain: one("gain"), shift: one("shift") };
            match tower {
                Tower::Image => ssf.image.push(affine),
                Tower::Text => ssf.text.push(affine),
            }
        }
        ssf
    }

    fn affine(&self, at: NormSite) -> &Affine {
        match place(at) {
            (Tower::Image, at, _) => &self.image[at],
            (Tower::Text, at, _) => &self.text[at - 1],
        }
    }

    fn compose(&self, tensors: &mut StateDict) {
        for site in norms() {
            let (_, _, name) = place(site);
            let Affine { gain, shift } = self.affine(site);
            let (gain, shift) = (values(gain.val()), values(shift.val()));
            for part in ["weight", "bias"] {
                let tensor = tensors.get_mut(&format!("{name}.{part}")).expect("a canonical name");
                for (at, value) in tensor.data.iter_mut().enumerate() {
                    *value = *value * gain[at] + if part == "bias" { shift[at] } else { 0.0 };
                }
            }
        }
    }
}

impl Sites for Ssf {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Block(0),
        }
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Affine { gain, shift } = self.affine(base.at);
        base.forward(input) * gain.val().unsqueeze::<3>() + shift.val().unsqueeze::<3>()
    }
}

#[test]
fn it_equals_the_composed_normalisations() {
    let ssf = Ssf::random(&plain());
    let composed = rebuilt(|tensors| ssf.compose(tensors));
    let found = features(tiny(), &ssf);
    same_features("composed", found.clone(), features(&composed, &Frozen), 1e-5);
    let [image, _] = features(tiny(), &Frozen);
    let [found, _] = found;
    differs("image", found, image);
}
