//! CoCoOp (Zhou et al., 2022, arXiv 2203.05557): context tokens moved by a small network of the image feature, so that
//! every image has its own set of class texts.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, Entry, Pass, Sites, Tower, normalise};
use inarch_core::text::Template;
use inarch_peft::Classifier;

use crate::support::{
    Edits, Reference, Rows, classes, close, differs, flat, learned, pixels, plain, product, rows_of, same, tiny,
};

const TOKENS: usize = 3;

#[derive(Module, Debug)]
pub(super) struct Cocoop {
    context: Param<Tensor<2>>,
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

impl Cocoop {
    pub(super) fn random(device: &Device) -> Self {
        let (dim, width) = (tiny().spec().dim, tiny().width(Tower::Text));
        Self {
            context: learned("cocoop.context", [TOKENS, width], 0.3, device),
            down: learned("cocoop.down", [dim, 4], 1.0, device),
            up: learned("cocoop.up", [4, width], 1.0, device),
        }
    }
}

impl Sites for Cocoop {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Tokens,
        }
    }

    fn conditions_text(&self) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let (Some(image), Tower::Text, 0) = (pass.condition, at.tower, at.block) else { return tokens };
        let shift = relu(image.clone().matmul(self.down.val())).matmul(self.up.val());
        let [images, width] = shift.dims();
        let [texts, length, _] = tokens.dims();
        let context = self.context.val().unsqueeze::<3>() + shift.unsqueeze_dim::<3>(1);
        let context = context.unsqueeze_dim::<4>(1).expand([images, texts, TOKENS, width]);
        let tokens = tokens.unsqueeze::<4>().expand([images, texts, length, width]);
        let rest = tokens.clone().narrow(2, 1 + TOKENS, length - 1 - TOKENS);
        Tensor::cat(vec![tokens.narrow(2, 0, 1), context, rest], 2).reshape([images * texts, length, width])
    }
}

/// The context of one image, put into the reference.
struct Moved(Rows);

impl Edits for Moved {
    fn tokens(&self, at: BlockSite, mut rows: Rows) -> Rows {
        if at == (BlockSite { tower: Tower::Text, block: 0 }) {
            rows[1..=TOKENS].clone_from_slice(&self.0);
        }
        rows
    }
}

fn classifier() -> Classifier<'static> {
    let template = Template::new("X X X {}.").expect("one place");
    Classifier::zero_shot(tiny(), &classes(), &[template]).expect("plain names")
}

fn text(cocoop: &Cocoop, image: &Tensor<2>) -> Tensor<2> {
    let classifier = classifier();
    let pass = Pass { condition: Some(image), ..Pass::evaluate() };
    classifier.text(classifier.start(cocoop), cocoop, &pass)
}

#[test]
fn a_batch_equals_image_by_image_and_the_reference() {
    let cocoop = Cocoop::random(&plain());
    let image = normalise(tiny().encode_image(pixels(3), &cocoop, &Pass::evaluate()));
    let batched = text(&cocoop, &image);
    assert_eq!(batched.dims(), [3 * classes().len(), tiny().spec().dim]);
    let single = (0..3).map(|at| text(&cocoop, &image.clone().narrow(0, at, 1))).collect();
    same("image by image", batched.clone(), Tensor::cat(single, 0), 1e-6);
    let parts = batched.clone().chunk(3, 0);
    differs("texts of two images", parts[0].clone(), parts[1].clone());

    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    let texts: Vec<String> = classes().iter().map(|class| format!("X X X {}.", class.replace('_', " "))).collect();
    let rows = tiny().tokenize(&texts).expect("plain texts");
    let mut expected = Rows::new();
    for image in rows_of(image) {
        let mut hidden = product(&vec![image], &rows_of(cocoop.down.val()));
        hidden[0].iter_mut().for_each(|value| *value = value.max(0.0));
        let shift = product(&hidden, &rows_of(cocoop.up.val())).remove(0);
        let mut context = rows_of(cocoop.context.val());
        for row in &mut context {
            row.iter_mut().zip(&shift).for_each(|(value, shift)| *value += shift);
        }
        let moved = Moved(context);
        expected.extend(rows.iter().map(|ids| reference.text(ids, &moved)));
    }
    close("reference", &inarch_core::backbone::values(batched), &flat(&expected), 2e-5);
}

#[test]
fn scores_compare_each_image_with_its_own_texts() {
    let cocoop = Cocoop::random(&plain());
    let image = tiny().encode_image(pixels(3), &cocoop, &Pass::evaluate());
    let unit = normalise(image.clone());
    let found = classifier().logits(&image, &text(&cocoop, &unit), &cocoop, &Pass::evaluate());
    let by_image = |at: usize| {
        let own = unit.clone().narrow(0, at, 1);
        let text = normalise(text(&cocoop, &own));
        own.matmul(text.transpose()) * tiny().logit_scale()
    };
    same("scores", found, Tensor::cat((0..3).map(by_image).collect(), 0), 1e-5);
}

#[test]
fn templates_are_averaged_for_each_image_alone() {
    let cocoop = Cocoop::random(&plain());
    let templates = ["X X X {}.", "X X X one {}"].map(|text| Template::new(text).expect("one place"));
    let image = normalise(tiny().encode_image(pixels(2), &cocoop, &Pass::evaluate()));
    let features = |templates: &[Template], image: &Tensor<2>| {
        let classifier = Classifier::zero_shot(tiny(), &classes(), templates).expect("plain names");
        let pass = Pass { condition: Some(image), ..Pass::evaluate() };
        classifier.text(classifier.start(&cocoop), &cocoop, &pass)
    };
    let single = (0..2)
        .map(|at| {
            let image = image.clone().narrow(0, at, 1);
            let [left, right] = [0, 1].map(|at| normalise(features(&templates[at..=at], &image)));
            (left + right) / 2.0
        })
        .collect();
    same("means", features(&templates, &image), Tensor::cat(single, 0), 1e-5);
}
