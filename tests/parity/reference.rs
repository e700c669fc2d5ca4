//! A backbone on disk beside the numbers that its reference implementation computes with it.

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, StateDict};
use inarch_core::checkpoint::{Precision, open_backbone, read_safetensors, write_backbone};

use crate::support::{fixture, plain};

pub(super) struct Reference {
    pub(super) name: &'static str,
    pub(super) backbone: Backbone,
    pub(super) expected: StateDict,
    pub(super) texts: Vec<String>,
}

impl Reference {
    /// Of `parity/KIND/NAME`.
    pub(super) fn open(kind: &str, name: &'static str) -> Self {
        let folder = fixture(&format!("parity/{kind}/{name}"));
        let (expected, metadata) = read_safetensors(&folder.join("expected.safetensors")).expect("a fixture");
        let backbone = open_backbone(&folder, &plain()).expect("a backbone");
        let texts = serde_json::from_str(&metadata["texts"]).expect("a list of texts");
        Self { name, backbone, expected, texts }
    }

    pub(super) fn pixels(&self) -> Tensor<4> {
        let tensor = &self.expected["pixels"];
        let shape = <[usize; 4]>::try_from(tensor.shape.clone()).expect("four axes");
        self.backbone.pixels(tensor.data.clone(), shape).expect("the backbone's size")
    }

    /// Written by us and read again, it is the same.
    pub(super) fn check_round_trip(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        write_backbone(&self.backbone, folder.path(), Precision::F32).expect("a writable folder");
        let again = open_backbone(folder.path(), &plain());
        let again = again.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(again.digest(), self.backbone.digest(), "{}", self.name);
    }
}
