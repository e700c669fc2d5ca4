//! Features and logits equal those of `transformers.CLIPModel`; `generate.py` beside this file made the expected ones.
//!
//! Tolerance: 1e-4 of the greatest expected value. Both sides compute in single precision with other orders of
//! summation; the observed distance is two orders smaller.

mod damage;
mod write;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, Frozen, Pass, StateDict, values};
use inarch_core::checkpoint::{open_backbone, read_safetensors};
use inarch_core::text::Template;

use crate::support::{close, fixture, plain};

const TOLERANCE: f32 = 1e-4;

/// A backbone beside what the reference computes with it.
struct Case {
    backbone: Backbone,
    expected: StateDict,
    texts: Vec<String>,
}

impl Case {
    /// The fixture `name` with the numbers of `expected`; inputs that are not there are those of `inputs`.
    fn open(name: &str, expected: &str, inputs: &str) -> Self {
        let read = |folder: &str| {
            read_safetensors(&fixture(&format!("parity/clip_tiny/{folder}/expected.safetensors"))).expect("a fixture")
        };
        let (mut tensors, metadata) = read(expected);
        for (name, tensor) in read(inputs).0 {
            if ["pixels", "input_ids"].contains(&name.as_str()) {
                tensors.insert(name, tensor);
            }
        }
        let backbone = open_backbone(&fixture(&format!("parity/clip_tiny/{name}")), &plain()).expect("a backbone");
        let texts = serde_json::from_str(&metadata["texts"]).expect("a list of texts");
        Self { backbone, expected: tensors, texts }
    }

    fn pixels(&self) -> Tensor<4> {
        let tensor = &self.expected["pixels"];
        let shape = <[usize; 4]>::try_from(tensor.shape.clone()).expect("four axes");
        self.backbone.pixels(tensor.data.clone(), shape).expect("the backbone's size")
    }

    /// The reference's rows, cut at the first end token.
    fn rows(&self) -> Vec<Vec<u32>> {
        let tensor = &self.expected["input_ids"];
        let end = self.backbone.tokenizer().eot();
        let cut = |row: &[f32]| {
            let ids: Vec<u32> = row.iter().map(|id| *id as u32).collect();
            let length = ids.iter().position(|id| *id == end).expect("an end token") + 1;
            ids[..length].to_vec()
        };
        tensor.data.chunks(tensor.shape[1]).map(cut).collect()
    }

    #[track_caller]
    fn check<const D: usize>(&self, name: &str, found: Tensor<D>) {
        let expected = &self.expected[name];
        assert_eq!(found.dims().as_slice(), expected.shape.as_slice(), "{name}");
        close(name, &values(found), &expected.data, TOLERANCE);
    }

    fn check_outputs(&self) {
        let pass = Pass::evaluate();
        let image = self.backbone.encode_image(self.pixels(), &Frozen, &pass);
        let text = self.backbone.encode_text(&self.rows(), &Frozen, &pass);
        self.check("logits_per_image", self.backbone.similarity(&image, &text, &Frozen, &pass));
        self.check("image_features", image);
        self.check("text_features", text);
        assert_eq!(self.backbone.tokenize(&self.texts).expect("plain texts"), self.rows());
    }

    /// The residual stream before each block.
    fn check_streams(&self) {
        let spec = self.backbone.spec();
        for block in 0..spec.image.transformer.depth {
            let partial = self.backbone.start_image(self.pixels(), Entry::Block(block));
            self.check(&format!("vision.hidden.{block}"), partial.stream().expect("tokens"));
        }
        for block in 0..spec.text.transformer.depth {
            let rows = self.rows();
            let partial = self.backbone.start_text(&rows, Entry::Block(block));
            let found = partial.stream().expect("tokens");
            let name = format!("text.hidden.{block}");
            let expected = &self.expected[&name];
            let [_, context, width] = expected.shape[..] else { panic!("three axes") };
            // The reference computes the padding, we do not: rows are compared up to their end token.
            for (index, row) in rows.iter().enumerate() {
                let found = found.clone().narrow(0, index, 1).narrow(1, 0, row.len());
                let start = index * context * width;
                close(&name, &values(found), &expected.data[start..start + row.len() * width], TOLERANCE);
            }
        }
    }
}

#[test]
fn quick_gelu_equals_transformers() {
    let case = Case::open("quick", "quick", "quick");
    case.check_outputs();
    case.check_streams();
}

#[test]
fn half_precision_weights_equal_transformers() {
    Case::open("half", "half", "quick").check_outputs();
}

#[test]
fn gelu_and_an_old_config_equal_transformers() {
    let case = Case::open("gelu", "gelu", "gelu");
    case.check_outputs();
    case.check_streams();
}

#[test]
fn shards_equal_transformers_and_the_whole_file() {
    let case = Case::open("sharded", "gelu", "gelu");
    case.check_outputs();
    let whole = open_backbone(&fixture("parity/clip_tiny/gelu"), &plain()).expect("a backbone");
    assert_eq!(case.backbone.digest(), whole.digest());
}

#[test]
fn one_value_of_the_logit_scale_counts_as_none() {
    // Some tools write the scale as one element, some as a scalar: one backbone, one identity.
    let tiny = crate::support::tiny();
    let again = crate::support::rebuilt(|tensors| {
        tensors.get_mut("logit_scale").expect("a scale").shape = vec![1];
    });
    assert_eq!(tiny.digest(), again.digest());
    let scale = tiny.state_dict()["logit_scale"].data[0];
    close("logit scale", &[tiny.logit_scale()], &[scale.exp()], 1e-6);
}

#[test]
fn a_text_that_spells_out_its_end_ends_there() {
    let backbone = open_backbone(&fixture("parity/clip_tiny/quick"), &plain()).expect("a backbone");
    let rows = backbone.tokenize(&["a cat", "a cat<|endoftext|>dog", "a cat<|endoftext|>"]).expect("plain texts");
    assert_eq!(rows[1..], [rows[0].clone(), rows[0].clone()]);
    let template = Template::new("a {}").expect("a template");
    let prompts = backbone.prompts(&["cat<|endoftext|>dog".to_string()], &[template]).expect("a prompt");
    assert_eq!(prompts, rows[..1]);
}
