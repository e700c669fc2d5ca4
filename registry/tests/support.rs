//! Adapters to be published, and registries to publish them to.

use std::collections::BTreeMap;

use inarch_registry::{Digest, PublishRequest, Published, Registry, Source};
use tempfile::TempDir;

/// A registry in a folder of its own.
pub(crate) struct Shelf {
    pub(crate) folder: TempDir,
    pub(crate) registry: Registry,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let registry = Registry::open(folder.path().join("registry")).expect("a registry");
        Self { folder, registry }
    }

    #[track_caller]
    pub(crate) fn publish(&self, name: &str, seed: u64) -> Published {
        self.registry.publish(request(name, seed)).expect("a publication")
    }

    /// A clean bill of health.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let report = self.registry.verify().expect("a verification");
        assert_eq!(report.problems, [], "{report:?}");
    }
}

/// Tensors that differ by seed in a few values only, as a small update of an adapter does.
pub(crate) fn tensors(seed: u64, values: usize) -> Vec<u8> {
    let head = format!("{{\"weight\":{{\"dtype\":\"F32\",\"shape\":[{values}],\"data_offsets\":[0,{}]}}}}", 4 * values);
    let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
    bytes.extend(head.as_bytes());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in 0..values {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let changed = at.is_multiple_of(97);
        let value = (state >> 40) as f32 / 1e7 + if changed { seed as f32 } else { 0.0 };
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

pub(crate) fn card(tensors: &[u8], accuracy: f64) -> Vec<u8> {
    let backbone = Digest::of(b"pocket");
    format!(
        r#"{{"schema":1,"method":{{"name":"lora","rank":4}},"backbone":{{"name":"pocket","digest":"{backbone}"}},"classes":["cat","dog"],"templates":["a photo of a {{}}."],"precision":"f32","data":null,"parents":[],"metrics":{{"accuracy":{accuracy}}},"parameters":96,"tensors":"{}"}}"#,
        Digest::of(tensors)
    )
    .into_bytes()
}

pub(crate) fn request(name: &str, seed: u64) -> PublishRequest {
    sized(name, seed, 1000)
}

pub(crate) fn sized(name: &str, seed: u64, values: usize) -> PublishRequest {
    let tensors = tensors(seed, values);
    let card = card(&tensors, 0.5 + (seed % 50) as f64 / 100.0);
    PublishRequest {
        files: vec![
            ("adapter.safetensors".into(), Source::Bytes(tensors)),
            ("adapter.json".into(), Source::Bytes(card)),
            ("recipe.toml".into(), Source::Bytes(b"method = \"lora\"\n".to_vec())),
        ],
        labels: BTreeMap::from([("site".into(), format!("clinic-{}", seed % 3))]),
        ..PublishRequest::new(name.parse().expect("a name"))
    }
}

/// Draws that are the same in every run.
#[derive(Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
