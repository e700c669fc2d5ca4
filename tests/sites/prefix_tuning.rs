//! Prefix tuning (Li and Liang, 2021, arXiv 2101.00190): learned keys and values that every token may attend to. There
//! is no site for it: the key and value projections return more rows than they were given, and attention takes them.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, Entry, Frozen, LinearBase, LinearSite, Pass, Projection, Sites, Tower};

use crate::support::{
    Edits, Reference, Rows, differs, features, learned, like_reference, pixels, plain, rows, rows_of, tiny,
};

const TOKENS: usize = 3;

#[derive(Module, Debug)]
struct Pair {
    key: Param<Tensor<2>>,
    value: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
pub(super) struct Prefix {
    image: Vec<Pair>,
    text: Vec<Pair>,
}

impl Prefix {
    pub(super) fn random(device: &Device) -> Self {
        let tower = |tower: Tower| {
            let width = tiny().width(tower);
            let one = |block: usize, part: &str| {
                learned(&format!("prefix.{tower}.{block}.{part}"), [TOKENS, width], 1.0, device)
            };
            (0..tiny().depth(tower)).map(|block| Pair { key: one(block, "key"), value: one(block, "value") }).collect()
        };
        Self { image: tower(Tower::Image), text: tower(Tower::Text) }
    }

    fn prefix(&self, at: BlockSite, projection: Projection) -> Option<Tensor<2>> {
        let Pair { key, value } = match at.tower {
            Tower::Image => &self.image[at.block],
            Tower::Text => &self.text[at.block],
        };
        match projection {
            Projection::Key => Some(key.val()),
            Projection::Value => Some(value.val()),
            _ => None,
        }
    }
}

impl Sites for Prefix {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Block(0)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        let LinearSite::Block(at, projection) = base.at else { return output };
        let Some(prefix) = self.prefix(at, projection) else { return output };
        let [batch, _, width] = output.dims();
        Tensor::cat(vec![prefix.unsqueeze::<3>().expand([batch, TOKENS, width]), output], 1)
    }
}

impl Edits for Prefix {
    fn attention(&self, at: BlockSite, projection: Projection, rows: Rows) -> Rows {
        let prefix = self.prefix(at, projection).map(rows_of).unwrap_or_default();
        prefix.into_iter().chain(rows).collect()
    }
}

#[test]
fn learned_keys_and_values_equal_the_reference() {
    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    let prefix = Prefix::random(&plain());
    let found = features(tiny(), &prefix);
    for (found, frozen) in found.clone().into_iter().zip(features(tiny(), &Frozen)) {
        differs("prefixed", found, frozen);
    }
    like_reference("prefix", found, reference.features(pixels(3), &rows(), &prefix));
}
