//! Named tensors on the host, under the names and in the layout of Hugging Face's `CLIPModel` and `SiglipModel`.
//!
//! This is the canonical form of a backbone: every checkpoint format is brought to it, its digest is taken over it, and
//! it is what is written back. Matrices are `[out, in]` as in PyTorch; burn's linear weights are their transposes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention_pool::{AttentionPool, Pool, QueryPool};
use super::block::Block;
use super::cross::{CrossAttention, MatchHead, WordHead};
use super::dual_encoder::DualEncoder;
use super::efficient_net::{EfficientNet, InvertedBottleneck};
use super::image_tower::Embedding;
use super::resnet::{Convolution, ResNet};
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

/// A place in the model where one canonical tensor lives.
enum Slot<'a> {
    /// A linear weight, transposed on the way.
    Linear(&'a mut Param<Tensor<2>>, Vec<usize>),
    Matrix(&'a mut Param<Tensor<2>>),
    /// Filters of a convolution.
    Filters(&'a mut Param<Tensor<4>>),
    Vector(&'a mut Param<Tensor<1>>),
    /// Written without axes.
    Scalar(&'a mut Param<Tensor<1>>),
}

impl Slot<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Linear(_, shape) => shape.clone(),
            Self::Matrix(param) => param.val().dims().to_vec(),
            Self::Filters(param) => param.val().dims().to_vec(),
            Self::Vector(param) => param.val().dims().to_vec(),
            Self::Scalar(_) => vec![],
        }
    }

    /// `spare` is memory for work, kept from one slot to the next.
    fn fill(&mut self, tensor: HostTensor, spare: &mut Vec<f32>, device: &Device) {
        let HostTensor { shape, mut data, .. } = tensor;
        match self {
            Self::Linear(param, _) => {
                let rows = shape[0];
                let columns = data.len() / rows.max(1);
                // Transposed once here, so that every product reads contiguous rows; into the memory that is there, since
                // fresh pages cost more than the copy.
                spare.clear();
                spare.extend_from_slice(&data);
                transpose(spare, rows, columns, &mut data);
                **param = Param::from_tensor(matrix(data, columns, rows, device));
            }
            Self::Matrix(param) => **param = Param::from_tensor(matrix(data, shape[0], shape[1], device)),
            Self::Filters(param) => {
                **param = Param::from_tensor(Tensor::from_data(TensorData::new(data, shape), device));
            }
            Self::Vector(param) | Self::Scalar(param) => {
                let length = data.len();
                **param = Param::from_tensor(Tensor::from_data(TensorData::new(data, [length]), device));
            }
        }
    }

    fn read(&self) -> Vec<f32> {
        match self {
            Self::Linear(param, _) => {
                let weight = param.val();
                let [inputs, outputs] = weight.dims();
                let mut data = vec![0.0; inputs * outputs];
                transpose(&values(weight), inputs, outputs, &mut data);
                data
            }
            Self::Matrix(param) => values(param.val()),
            Self::Filters(param) => values(param.val()),
            Self::Vector(param) | Self::Scalar(param) => values(param.val()),
        }
    }
}

fn matrix(data: Vec<f32>, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}

/// Writes `data` `[rows, columns]` transposed.
fn transpose(data: &[f32], rows: usize, columns: usize, transposed: &mut [f32]) {
    // Square tiles: of both sides only a few lines are touched at a time.
    const TILE: usize = 16;
    for from_row in (0..rows).step_by(TILE) {
        for from_column in (0..columns).step_by(TILE) {
            for column in from_column..columns.min(from_column + TILE) {
                for row in from_row..rows.min(from_row + TILE) {
                    transposed[column * rows + row] = data[row * columns + column];
                }
            }
        }
    }
}

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

/// Every parameter of the model with its canonical name.
fn slots<'a>(model: &'a mut DualEncoder, spec: &BackboneSpec) -> Vec<(String, Slot<'a>)> {
    let mut slots = Vec::new();
    let patch = spec.image.patch;
    if let Some(image) = &mut model.image {
        let vision = "vision_model";
        for (name, token) in ["class_embedding", "distillation_embedding"].iter().zip(&mut image.class_embeddings) {
            slots.push((format!("{vision}.embeddings.{name}"), Slot::Vector(token)));
        }
        match &mut image.embedding {
            Embedding::Patches(layer) => {
                let shape = vec![spec.image.transformer.width, spec.image.style.channels, patch, patch];
                let name = format!("{vision}.embeddings.patch_embedding");
                slots.push((format!("{name}.weight"), Slot::Linear(&mut layer.weight, shape)));
                if let Some(bias) = &mut layer.bias {
                    slots.push((format!("{name}.bias"), Slot::Vector(bias)));
                }
            }
            Embedding::Trunk(trunk) => push_trunk(&mut slots, &format!("{vision}.trunk"), trunk),
            Embedding::EfficientNet(trunk) => push_efficient_net(&mut slots, &format!("{vision}.trunk"), trunk),
        }
        if let Some(positions) = &mut image.position_embedding {
            slots.push((format!("{vision}.embeddings.position_embedding.weight"), Slot::Matrix(positions)));
        }
        if let Some(pre_norm) = &mut image.pre_norm {
            push_norm(&mut slots, format!("{vision}.pre_layrnorm"), pre_norm);
        }
        push_blocks(&mut slots, vision, &mut image.blocks);
        if let Some(norm) = &mut image.post_norm {
            push_norm(&mut slots, format!("{vision}.post_layernorm"), norm);
        }
        match &mut image.pool {
            Some(Pool::Attention(pool)) => push_pool(&mut slots, &format!("{vision}.head"), pool),
            Some(Pool::Query(QueryPool { q_proj, k_proj, v_proj })) => {
                for (name, layer) in [("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj)] {
                    push_linear(&mut slots, &format!("{vision}.head.attention.{name}"), layer);
                }
            }
            None => {}
        }
        if let Some(projection) = &mut image.projection {
            push_linear(&mut slots, "visual_projection", projection);
        }
    }
    if let Some(text) = &mut model.text {
        let embeddings = "text_model.embeddings";
        slots.push((format!("{embeddings}.token_embedding.weight"), Slot::Matrix(&mut text.token_embedding)));
        slots.push((format!("{embeddings}.position_embedding.weight"), Slot::Matrix(&mut text.position_embedding)));
        if let Some(norm) = &mut text.embedding_norm {
            push_norm(&mut slots, format!("{embeddings}.layer_norm"), norm);
        }
        push_blocks(&mut slots, "text_model", &mut text.blocks);
        if let Some(norm) = &mut text.final_norm {
            push_norm(&mut slots, "text_model.final_layer_norm".into(), norm);
        }
        if let Some(hidden) = &mut text.projection_hidden {
            push_linear(&mut slots, "text_projection_hidden", hidden);
        }
        if let Some(projection) = &mut text.projection {
            push_linear(&mut slots, "text_projection", projection);
        }
    }
    if let Some(MatchHead { pooler, score }) = &mut model.match_head {
        push_linear(&mut slots, "match_head.pooler", pooler);
        push_linear(&mut slots, "match_head.score", score);
    }
    if let Some(WordHead { dense, norm, decoder }) = &mut model.word_head {
        push_linear(&mut slots, "word_head.dense", dense);
        push_norm(&mut slots, "word_head.layer_norm".into(), norm);
        push_linear(&mut slots, "word_head.decoder", decoder);
    }
    let numbers = [("logit_scale", &mut model.logit_scale), ("logit_bias", &mut model.logit_bias)];
    for (name, number) in numbers {
        slots.extend(number.as_mut().map(|number| (name.to_string(), Slot::Scalar(number))));
    }
    slots
}

fn push_linear<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: &str, layer: &'a mut Linear) {
    let [inputs, outputs] = layer.weight.val().dims();
    slots.push((format!("{name}.weight"), Slot::Linear(&mut layer.weight, vec![outputs, inputs])));
    if let Some(bias) = &mut layer.bias {
        slots.push((format!("{name}.bias"), Slot::Vector(bias)));
    }
}

fn push_convolution<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: String, layer: &'a mut Convolution) {
    slots.push((format!("{name}.weight"), Slot::Filters(&mut layer.weight)));
    slots.push((format!("{name}.bias"), Slot::Vector(&mut layer.bias)));
}

fn push_efficient_net<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: &str, trunk: &'a mut EfficientNet) {
    push_convolution(slots, format!("{name}.stem"), &mut trunk.stem);
    for (place, block) in trunk.blocks.iter_mut().enumerate() {
        let InvertedBottleneck { expand, depthwise, reduce, excite, project } = block;
        if let Some(expand) = expand {
            push_convolution(slots, format!("{name}.blocks.{place}.expand"), expand);
        }
        let rest = [("depthwise", depthwise), ("reduce", reduce), ("excite", excite), ("project", project)];
        for (layer, weights) in rest {
            push_convolution(slots, format!("{name}.blocks.{place}.{layer}"), weights);
        }
    }
}

fn push_trunk<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: &str, trunk: &'a mut ResNet) {
    let mut push = |name: String, layer: &'a mut Convolution| push_convolution(slots, name, layer);
    for (place, layer) in trunk.stem.iter_mut().enumerate() {
        push(format!("{name}.stem.{place}"), layer);
    }
    for (stage, blocks) in trunk.stages.iter_mut().enumerate() {
        for (block, bottleneck) in blocks.iter_mut().enumerate() {
            let name = format!("{name}.stages.{stage}.{block}");
            for (place, layer) in bottleneck.convolutions.iter_mut().enumerate() {
                push(format!("{name}.convolutions.{place}"), layer);
            }
            if let Some(layer) = &mut bottleneck.downsample {
                push(format!("{name}.downsample"), layer);
            }
        }
    }
}

fn push_pool<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: &str, pool: &'a mut AttentionPool) {
    slots.push((format!("{name}.probe"), Slot::Vector(&mut pool.probe)));
    push_norm(slots, format!("{name}.layernorm"), &mut pool.norm);
    for (layer, weights) in [
        ("attention.q_proj", &mut pool.q_proj),
        ("attention.k_proj", &mut pool.k_proj),
        ("attention.v_proj", &mut pool.v_proj),
        ("attention.out_proj", &mut pool.out_proj),
        ("mlp.fc1", &mut pool.fc1),
        ("mlp.fc2", &mut pool.fc2),
    ] {
        push_linear(slots, &format!("{name}.{layer}"), weights);
    }
}

fn push_norm<'a>(slots: &mut Vec<(String, Slot<'a>)>, name: String, norm: &'a mut LayerNorm) {
    slots.push((format!("{name}.weight"), Slot::Vector(&mut norm.gamma)));
    if let Some(beta) = &mut norm.beta {
        slots.push((format!("{name}.bias"), Slot::Vector(beta)));
    }
}

fn push_blocks<'a>(slots: &mut Vec<(String, Slot<'a>)>, tower: &str, blocks: &'a mut [Block]) {
    for (index, block) in blocks.iter_mut().enumerate() {
        let prefix = format!("{tower}.encoder.layers.{index}");
        push_norm(slots, format!("{prefix}.layer_norm1"), &mut block.norm1);
        push_norm(slots, format!("{prefix}.layer_norm2"), &mut block.norm2);
        for (name, layer) in [
            ("self_attn.q_proj", &mut block.q_proj),
            ("self_attn.k_proj", &mut block.k_proj),
            ("self_attn.v_proj", &mut block.v_proj),
            ("self_attn.out_proj", &mut block.out_proj),
            ("mlp.fc1", &mut block.fc1),
            ("mlp.fc2", &mut block.fc2),
        ] {
            push_linear(slots, &format!("{prefix}.{name}"), layer);
        }
        if let Some(CrossAttention { norm, q_proj, k_proj, v_proj, out_proj }) = &mut block.cross {
            push_norm(slots, format!("{prefix}.layer_norm_cross"), norm);
            for (name, layer) in [("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj), ("out_proj", out_proj)] {
                push_linear(slots, &format!("{prefix}.cross_attn.{name}"), layer);
            }
        }
        for (name, scale) in [("layer_scale1", &mut block.scale1), ("layer_scale2", &mut block.scale2)] {
            slots.extend(scale.as_mut().map(|scale| (format!("{prefix}.{name}"), Slot::Vector(scale))));
        }
    }
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
