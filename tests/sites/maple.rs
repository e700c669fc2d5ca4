//! MaPLe (Khattak et al., 2023, arXiv 2210.03117): text prompts, and image prompts that are linear maps of them, in the
//! first blocks of both towers.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, Entry, Frozen, Pass, Sites, Tower};

use crate::support::{
    Edits, Reference, Rows, differs, features, learned, like_reference, pixels, plain, product, rows, rows_of, tiny,
};

const TOKENS: usize = 2;
const DEPTH: usize = 2;

#[derive(Module, Debug)]
struct Coupled {
    text: Param<Tensor<2>>,
    map: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
pub(super) struct Maple {
    blocks: Vec<Coupled>,
}

impl Maple {
    pub(super) fn random(device: &Device) -> Self {
        let (text, image) = (tiny().width(Tower::Text), tiny().width(Tower::Image));
        let one = |block: usize| Coupled {
            text: learned(&format!("maple.{block}.text"), [TOKENS, text], 0.5, device),
            map: learned(&format!("maple.{block}.map"), [text, image], 0.5, device),
        };
        Self { blocks: (0..DEPTH).map(one).collect() }
    }

    fn prompt(&self, at: BlockSite) -> Option<Tensor<2>> {
        let Coupled { text, map } = self.blocks.get(at.block)?;
        Some(match at.tower {
            Tower::Text => text.val(),
            Tower::Image => text.val().matmul(map.val()),
        })
    }
}

impl Sites for Maple {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Tokens
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(prompt) = self.prompt(at) else { return tokens };
        let [batch, length, width] = tokens.dims();
        let prompt = prompt.unsqueeze::<3>().expand([batch, TOKENS, width]);
        match at.tower {
            Tower::Image => {
                let kept = if at.block == 0 { length } else { length - TOKENS };
                Tensor::cat(vec![tokens.narrow(1, 0, kept), prompt], 1)
            }
            Tower::Text => {
                let (begin, rest) = (tokens.clone().narrow(1, 0, 1), length - 1 - TOKENS);
                Tensor::cat(vec![begin, prompt, tokens.narrow(1, 1 + TOKENS, rest)], 1)
            }
        }
    }
}

impl Edits for Maple {
    fn tokens(&self, at: BlockSite, mut rows: Rows) -> Rows {
        let Some(Coupled { text, map }) = self.blocks.get(at.block) else { return rows };
        let text = rows_of(text.val());
        match at.tower {
            Tower::Text => rows[1..=TOKENS].clone_from_slice(&text),
            Tower::Image => {
                if at.block > 0 {
                    rows.truncate(rows.len() - TOKENS);
                }
                rows.extend(product(&text, &rows_of(map.val())));
            }
        }
        rows
    }
}

#[test]
fn coupled_deep_prompts_equal_the_reference() {
    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    let maple = Maple::random(&plain());
    let found = features(tiny(), &maple);
    for (found, frozen) in found.clone().into_iter().zip(features(tiny(), &Frozen)) {
        differs("prompted", found, frozen);
    }
    like_reference("maple", found, reference.features(pixels(3), &rows(), &maple));
}
