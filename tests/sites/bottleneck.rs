//! A bottleneck after a branch (Houlsby et al., 2019, arXiv 1902.00751) and one beside it (AdaptFormer: Chen et al.,
//! 2022, arXiv 2205.13535).

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, BranchSite, Entry, Frozen, Pass, Sites, Tower};

use crate::support::{
    Edits, Reference, Rows, differs, features, learned, like_reference, pixels, plain, product, rows, rows_of, tiny,
};

const RANK: usize = 5;
const SCALE: f64 = 0.3;

#[derive(Module, Debug)]
struct Narrow {
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

impl Narrow {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        relu(input.matmul(self.down.val().unsqueeze())).matmul(self.up.val().unsqueeze())
    }

    fn rows(&self, input: &Rows) -> Rows {
        let mut hidden = product(input, &rows_of(self.down.val()));
        hidden.iter_mut().flatten().for_each(|value| *value = value.max(0.0));
        product(&hidden, &rows_of(self.up.val()))
    }
}

/// After both branches of every block (`after`), or beside the MLP of every block.
#[derive(Module, Debug)]
pub(super) struct Bottleneck {
    image: Vec<Narrow>,
    text: Vec<Narrow>,
    after: bool,
}

impl Bottleneck {
    pub(super) fn random(after: bool, device: &Device) -> Self {
        let tower = |tower: Tower| {
            let width = tiny().width(tower);
            let one = |at: usize| Narrow {
                down: learned(&format!("bottleneck.{tower}.{at}.down"), [width, RANK], 0.4, device),
                up: learned(&format!("bottleneck.{tower}.{at}.up"), [RANK, width], 0.4, device),
            };
            (0..tiny().depth(tower) * if after { 2 } else { 1 }).map(one).collect()
        };
        Self { image: tower(Tower::Image), text: tower(Tower::Text), after }
    }

    fn narrow(&self, at: BranchSite) -> Option<&Narrow> {
        let (BlockSite { tower, .. }, index) = match at {
            BranchSite::Attention(at) if self.after => (at, 2 * at.block),
            BranchSite::Attention(_) | BranchSite::Cross(_) => return None,
            BranchSite::Mlp(at) if self.after => (at, 2 * at.block + 1),
            BranchSite::Mlp(at) => (at, at.block),
        };
        match tower {
            Tower::Image => self.image.get(index),
            Tower::Text => self.text.get(index),
        }
    }
}

impl Sites for Bottleneck {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Block(0)
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        match self.narrow(at) {
            None => output,
            Some(narrow) if self.after => output.clone() + narrow.forward(output),
            Some(narrow) => output + narrow.forward(input.clone()) * SCALE,
        }
    }
}

impl Edits for Bottleneck {
    fn branch(&self, at: BranchSite, input: &Rows, output: Rows) -> Rows {
        let Some(narrow) = self.narrow(at) else { return output };
        let (addend, scale) = if self.after { (narrow.rows(&output), 1.0) } else { (narrow.rows(input), SCALE) };
        let add = |(left, right): (Vec<f64>, Vec<f64>)| {
            left.into_iter().zip(right).map(|(left, right)| left + scale * right).collect()
        };
        output.into_iter().zip(addend).map(add).collect()
    }
}

#[test]
fn after_and_beside_a_branch_equal_the_reference() {
    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    for after in [true, false] {
        let adapter = Bottleneck::random(after, &plain());
        let found = features(tiny(), &adapter);
        let [image, _] = features(tiny(), &Frozen);
        differs("image", found[0].clone(), image);
        like_reference("bottleneck", found, reference.features(pixels(3), &rows(), &adapter));
    }
}
