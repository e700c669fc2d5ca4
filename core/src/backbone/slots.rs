//! Where each canonical tensor lives in the model.

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor, TensorData};

use super::attention_pool::{AttentionPool, Pool, QueryPool};
use super::block::Block;
use super::cross::{CrossAttention, MatchHead, WordHead};
use super::dual_encoder::DualEncoder;
use super::efficient_net::{EfficientNet, InvertedBottleneck};
use super::image_tower::Embedding;
use super::resnet::{Convolution, ResNet};
use super::spec::BackboneSpec;
use super::state_dict::{HostTensor, values};

/// A place in the model where one canonical tensor lives.
pub(super) enum Slot<'a> {
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
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Linear(_, shape) => shape.clone(),
            Self::Matrix(param) => param.val().dims().to_vec(),
            Self::Filters(param) => param.val().dims().to_vec(),
            Self::Vector(param) => param.val().dims().to_vec(),
            Self::Scalar(_) => vec![],
        }
    }

    /// `spare` is memory for work, kept from one slot to the next.
    pub(super) fn fill(&mut self, tensor: HostTensor, spare: &mut Vec<f32>, device: &Device) {
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

    pub(super) fn read(&self) -> Vec<f32> {
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

/// Every parameter of the model with its canonical name.
pub(super) fn slots<'a>(model: &'a mut DualEncoder, spec: &BackboneSpec) -> Vec<(String, Slot<'a>)> {
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
