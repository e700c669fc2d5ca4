//! The tiny backbone of `parity/clip_tiny/quick` and inputs for it.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Pass, Sites, StateDict};
use inarch_core::checkpoint::open_backbone;
use inarch_core::text::Template;
use inarch_peft::{Method, Start};

use super::fixture::fixture;
use super::parameter::draws;

/// Class names for the tiny vocabulary.
pub(crate) const CLASSES: [&str; 4] = ["cat", "dog", "red hat", "x_ray"];

/// The device of every test that does not run the binary: the processor, or what `INARCH_TEST_DEVICE` names.
pub(crate) fn plain() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let named = || inarch_core::device(std::env::var("INARCH_TEST_DEVICE").as_deref().unwrap_or("cpu"));
    DEVICE.get_or_init(|| named().expect("a device that the tests are built with")).clone()
}

/// The same device with gradients.
pub(crate) fn tracked() -> Device {
    plain().autodiff()
}

/// The backbone, opened once.
pub(crate) fn tiny() -> &'static Backbone {
    static TINY: OnceLock<Backbone> = OnceLock::new();
    TINY.get_or_init(|| open_backbone(&fixture("parity/clip_tiny/quick"), &plain()).expect("a valid backbone"))
}

/// The tiny backbone with changed weights.
pub(crate) fn rebuilt(edit: impl FnOnce(&mut StateDict)) -> Backbone {
    let tiny = tiny();
    let mut tensors = tiny.state_dict();
    edit(&mut tensors);
    let (tokenizer, preprocess) = (tiny.tokenizer().clone(), tiny.preprocess().clone());
    Backbone::new("rebuilt", tiny.spec().clone(), tensors, tokenizer, preprocess, Path::new("rebuilt"), &plain())
        .expect("the same shapes")
}

/// Random images, `[count, 3, size, size]`.
pub(crate) fn pixels(count: usize) -> Tensor<4> {
    let size = tiny().spec().image.size;
    draws("pixels", [count, 3, size, size], 1.0, &plain())
}

/// Token rows of different lengths.
pub(crate) fn rows() -> Vec<Vec<u32>> {
    tiny().tokenize(&["a photo of a cat.", "a photo of a big red dog", "a b c d"]).expect("plain texts")
}

/// [`CLASSES`] as owned names.
pub(crate) fn classes() -> Vec<String> {
    CLASSES.map(String::from).to_vec()
}

/// Two templates, so that averaging is part of every law.
pub(crate) fn templates() -> Vec<Template> {
    ["a photo of a {}.", "a {}"].map(|text| Template::new(text).expect("one place")).to_vec()
}

/// Features of [`pixels`] and [`rows`], three of each, through an adapter.
pub(crate) fn features(backbone: &Backbone, sites: &dyn Sites) -> [Tensor<2>; 2] {
    let pass = Pass::evaluate();
    [backbone.encode_image(pixels(3), sites, &pass), backbone.encode_text(&rows(), sites, &pass)]
}

/// A fresh adapter of a method that needs no training images, with text features of ones.
pub(crate) fn begin<M: Method>(config: &M, device: &Device) -> inarch_peft::Result<M::Adapter> {
    let class_features = Tensor::ones([CLASSES.len(), tiny().spec().dim], &plain());
    config.init(&Start::new(tiny(), &class_features, Seed::new(1), device))
}
