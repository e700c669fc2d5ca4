//! VPT-deep (Jia et al., 2022, arXiv 2203.12119): prompts follow the patches into the first block; each later block
//! gets its own in their place.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, Entry, Frozen, Pass, Sites, Tower};

use crate::support::{
    Edits, Reference, Rows, differs, features, learned, like_reference, pixels, plain, rows, rows_of, tiny,
};

#[derive(Module, Debug)]
pub(super) struct Vpt {
    prompts: Vec<Param<Tensor<2>>>,
}

impl Vpt {
    pub(super) fn random(tokens: usize, device: &Device) -> Self {
        Self::named("vpt", tokens, device)
    }

    pub(super) fn named(name: &str, tokens: usize, device: &Device) -> Self {
        let width = tiny().width(Tower::Image);
        let prompt = |block: usize| learned(&format!("{name}.{block}"), [tokens, width], 1.0, device);
        Self { prompts: (0..tiny().depth(Tower::Image)).map(prompt).collect() }
    }
}

impl Sites for Vpt {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at.tower == Tower::Text {
            return tokens;
        }
        let prompt = self.prompts[at.block].val();
        let [count, width] = prompt.dims();
        let [batch, length, _] = tokens.dims();
        let kept = if at.block == 0 { length } else { length - count };
        Tensor::cat(vec![tokens.narrow(1, 0, kept), prompt.unsqueeze::<3>().expand([batch, count, width])], 1)
    }
}

impl Edits for Vpt {
    fn tokens(&self, at: BlockSite, mut rows: Rows) -> Rows {
        if at.tower == Tower::Image {
            let prompt = rows_of(self.prompts[at.block].val());
            if at.block > 0 {
                rows.truncate(rows.len() - prompt.len());
            }
            rows.extend(prompt);
        }
        rows
    }
}

#[test]
fn appended_and_replaced_prompts_equal_the_reference() {
    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    for tokens in [1, 4] {
        let vpt = Vpt::random(tokens, &plain());
        let found = features(tiny(), &vpt);
        let [image, _] = features(tiny(), &Frozen);
        differs("image", found[0].clone(), image);
        like_reference("vpt", found, reference.features(pixels(3), &rows(), &vpt));
    }
}
