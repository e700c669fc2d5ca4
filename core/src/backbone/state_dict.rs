//! Named tensors on the host, under the names and in the layout of Hugging Face's `CLIPModel` and `SiglipModel`.
//!
//! This is the canonical form of a backbone: every checkpoint format is brought to it, its digest is taken over it, and
//! it is what is written back. Matrices are `[out, in]` as in PyTorch; burn's linear weights are their transposes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::dual_encoder::DualEncoder;
use super::slots::{Slot, slots};
use super::spec::BackboneSpec;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Its axes.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
    /// The name it had in the file it came from.
    pub origin: String,
}

/// Tensors by canonical name.
pub type StateDict = BTreeMap<String, HostTensor>;

/// Buffers that old checkpoints carry and that hold no weights.
const IGNORED: [&str; 2] = ["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"];

/// The values of a float tensor, row-major, as f32.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Places as a tensor to select by.
pub fn indices(places: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let places: Vec<i32> = places.into_iter().map(|place| place as i32).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), &device.clone().without_autodiff())
}

impl DualEncoder {
    /// Fills a model of shape `spec` with canonical tensors, on `device`.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming the first tensor that is missing, mis-shaped, not finite or not part of the model.
    pub fn from_state_dict(spec: &BackboneSpec, tensors: StateDict, path: &Path, device: &Device) -> Result<Self> {
        Self::filled(spec, &shapes(&tensors), tensors, path, device)
    }

    /// As [`from_state_dict`](Self::from_state_dict), and the identity of the backbone: one thread hashes what another
    /// then puts into place.
    pub(super) fn identified(
        spec: &BackboneSpec,
        tensors: StateDict,
        path: &Path,
        device: &Device,
    ) -> Result<(Self, Digest)> {
        let shapes = shapes(&tensors);
        // Few wait between the threads, so that what has its place does not stay in memory twice.
        let (hashed, waiting) = sync_channel(4);
        thread::scope(|scope| {
            let digest = scope.spawn(move || {
                let mut hasher = Hasher::new(spec);
                for (name, tensor) in tensors {
                    hasher.tensor(&name, &tensor);
                    if hashed.send((name, tensor)).is_err() {
                        break; // The other thread has found a fault.
                    }
                }
                hasher.0.finish()
            });
            let model = Self::filled(spec, &shapes, waiting, path, device)?;
            Ok((model, digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
        })
    }

    /// A model filled with tensors as they come; their shapes are known before.
    fn filled(
        spec: &BackboneSpec,
        shapes: &BTreeMap<String, (Vec<usize>, String)>,
        tensors: impl IntoIterator<Item = (String, HostTensor)>,
        path: &Path,
        device: &Device,
    ) -> Result<Self> {
        let mut model = Self::zeros(spec, device);
        let slots = slots(&mut model, spec);
        let fault = |name: &str, expected: String, found: String| {
            Err(Error::Tensor { path: path.to_path_buf(), name: name.into(), expected, found })
        };
        let known: BTreeSet<&str> = slots.iter().map(|(name, _)| name.as_str()).collect();
        let unused = || shapes.iter().filter(|(name, _)| !known.contains(name.as_str()));
        for (name, slot) in &slots {
            let expected = slot.shape();
            let wanted = || format!("shape {expected:?}");
            match shapes.get(name) {
                None => {
                    let near = unused().min_by_key(|(other, _)| distance(other, name));
                    let hint = near.map(|(near, _)| format!(" (nearest unused name: `{near}`)")).unwrap_or_default();
                    return fault(name, wanted(), format!("no such tensor{hint}"));
                }
                Some((found, origin)) => {
                    let scalar = expected.is_empty() && found.iter().product::<usize>() == 1;
                    if *found != expected && !scalar {
                        return fault(origin, wanted(), format!("shape {found:?}"));
                    }
                }
            }
        }
        let foreign: Vec<_> = unused().filter(|(name, _)| !IGNORED.contains(&name.as_str())).collect();
        if let Some((_, (found, origin))) = foreign.first() {
            let found = format!("shape {found:?} ({} tensors are unused)", foreign.len());
            return fault(origin, "no such tensor in a model of this config".into(), found);
        }
        drop(known);
        let mut slots: BTreeMap<String, Slot<'_>> = slots.into_iter().collect();
        let mut spare = Vec::new();
        for (name, tensor) in tensors {
            let Some(mut slot) = slots.remove(&name) else { continue };
            if let Some(index) = first_not_finite(&tensor.data) {
                let found = format!("{} at element {index}", tensor.data[index]);
                return fault(&tensor.origin, format!("finite values of shape {:?}", slot.shape()), found);
            }
            slot.fill(tensor, &mut spare, device);
        }
        drop(slots);
        Ok(model)
    }

    /// The canonical tensors of this model.
    pub fn state_dict(&self, spec: &BackboneSpec) -> StateDict {
        let mut model = self.clone();
        slots(&mut model, spec)
            .into_iter()
            .map(|(name, slot)| {
                let tensor = HostTensor { shape: slot.shape(), data: slot.read(), origin: name.clone() };
                (name, tensor)
            })
            .collect()
    }
}

/// A cheap dissimilarity of names: characters outside the common prefix and suffix.
fn distance(left: &str, right: &str) -> usize {
    let prefix = left.bytes().zip(right.bytes()).take_while(|(l, r)| l == r).count();
    let suffix = left.bytes().rev().zip(right.bytes().rev()).take_while(|(l, r)| l == r).count();
    (left.len() + right.len()).saturating_sub(2 * (prefix + suffix))
}

/// Shapes and original names of tensors.
fn shapes(tensors: &StateDict) -> BTreeMap<String, (Vec<usize>, String)> {
    let of = |tensor: &HostTensor| (tensor.shape.clone(), tensor.origin.clone());
    tensors.iter().map(|(name, tensor)| (name.clone(), of(tensor))).collect()
}

/// The place of the first value that is infinite or not a number.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    const PART: usize = 4096;
    // A part at a time without a way out in its middle, which the compiler makes wide instructions of.
    let all_finite = |part: &[f32]| part.iter().fold(true, |all, value| all & value.is_finite());
    let part = values.chunks(PART).position(|part| !all_finite(part))?;
    values[part * PART..].iter().position(|value| !value.is_finite()).map(|at| part * PART + at)
}

/// The identity of a backbone: SHA-256 over its specification and its canonical tensors, in name order, as
/// little-endian f32.
struct Hasher(DigestBuilder);

impl Hasher {
    fn new(spec: &BackboneSpec) -> Self {
        let mut builder = DigestBuilder::default();
        builder.piece(serde_json::to_string(spec).expect("a specification is plain data").as_bytes());
        Self(builder)
    }

    fn tensor(&mut self, name: &str, tensor: &HostTensor) {
        if IGNORED.contains(&name) {
            return;
        }
        self.0.piece(name.as_bytes());
        for axis in &tensor.shape {
            self.0.piece(&(*axis as u64).to_le_bytes());
        }
        if cfg!(target_endian = "little") {
            self.0.piece(bytemuck::cast_slice(&tensor.data));
        } else {
            let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.0.piece(&bytes);
        }
    }
}

/// The identity of a backbone of these tensors.
pub(super) fn digest(spec: &BackboneSpec, tensors: &StateDict) -> Digest {
    let mut hasher = Hasher::new(spec);
    tensors.iter().for_each(|(name, tensor)| hasher.tensor(name, tensor));
    hasher.0.finish()
}
