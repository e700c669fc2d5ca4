//! Initial weights for a dual encoder that must learn from little data in little time.
//!
//! The image tower starts close to what training on images is known to find: patch filters whiten the pixels, positions
//! are orthogonal waves in a subspace of their own, and attention starts in the *mimetic* form (Trockman and Kolter,
//! 2023, arXiv 2305.09828): `W_q W_k^T` near a multiple of the identity, `W_v W_o` near a negative one. The text tower
//! starts as CLIP's does (Radford et al., 2021).

use std::collections::BTreeMap;
use std::f32::consts::PI;

use inarch_core::Seed;
use inarch_core::backbone::{BackboneSpec, HostTensor, StateDict, TransformerSpec};

use crate::contrastive::FIRST_BIAS;

/// Share of a token's energy that its position holds before the first normalisation.
const POSITION_SHARE: f32 = 0.25;
/// Added to the variances before whitening.
const WHITENING_FLOOR: f64 = 0.01;
/// The logit scale of CLIP at its start, 1 / 0.07.
const LOGIT_SCALE: f32 = 14.3;
/// That of SigLIP, whose scores have an offset (Zhai et al., 2023, arXiv 2303.15343, section 3.2).
const SIGMOID_SCALE: f32 = 10.0;

/// Canonical tensors of a fresh model. `pixels` are normalised images `[n, 3, size, size]` from which the patch filters
/// are taken.
pub(super) fn initial_weights(spec: &BackboneSpec, pixels: &[f32], seed: Seed) -> StateDict {
    let mut tensors = Tensors(BTreeMap::new());
    image_tower(&mut tensors, spec, pixels, seed.split("image"));
    text_tower(&mut tensors, spec, seed.split("text"));
    let scale = if spec.logit_bias { SIGMOID_SCALE } else { LOGIT_SCALE };
    tensors.put("logit_scale", vec![], vec![scale.ln()]);
    if spec.logit_bias {
        tensors.put("logit_bias", vec![], vec![FIRST_BIAS]);
    }
    tensors.0
}

struct Tensors(StateDict);

impl Tensors {
    fn put(&mut self, name: impl Into<String>, shape: Vec<usize>, data: Vec<f32>) {
        let name = name.into();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        self.0.insert(name.clone(), HostTensor { shape, data, origin: name });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.put(format!("{name}.weight"), vec![width], vec![1.0; width]);
        self.put(format!("{name}.bias"), vec![width], vec![0.0; width]);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, weight: Vec<f32>) {
        self.put(format!("{name}.weight"), vec![outputs, inputs], weight);
        self.put(format!("{name}.bias"), vec![outputs], vec![0.0; outputs]);
    }
}

fn image_tower(tensors: &mut Tensors, spec: &BackboneSpec, pixels: &[f32], seed: Seed) {
    let width = spec.image.transformer.width;
    let patch_values = 3 * spec.image.patch * spec.image.patch;
    // An orthonormal basis whose first vector is constant: the others are untouched by the mean subtraction of a norm.
    let waves = wave_count(width);
    let basis = orthonormal_rows(width, width, seed.split("basis"), true);
    let position_rows = &basis[width..width * (1 + 4 * waves)];
    let content_rows = &basis[width * (1 + 4 * waves)..];
    let content = content_rows.len() / width;

    let patches = unfold(pixels, spec.image.size, spec.image.patch);
    let whitening = inverse_square_root(&covariance(&patches, patch_values), patch_values);
    let kept = content.min(patch_values);
    let mut filters = vec![0.0f32; width * patch_values];
    for direction in 0..kept {
        for channel in 0..width {
            let weight = content_rows[direction * width + channel];
            for value in 0..patch_values {
                filters[channel * patch_values + value] += weight * whitening[direction * patch_values + value] as f32;
            }
        }
    }
    let energy = mean_energy(&patches, &filters, width, patch_values);
    tensors.put(
        "vision_model.embeddings.patch_embedding.weight",
        vec![width, 3, spec.image.patch, spec.image.patch],
        filters,
    );

    let grid = spec.image.grid();
    let amplitude = (POSITION_SHARE / (1.0 - POSITION_SHARE) * energy / (2.0 * waves as f32)).sqrt();
    let mut positions = vec![0.0f32; spec.image.tokens() * width];
    for row in 0..grid {
        for column in 0..grid {
            let at = (1 + row * grid + column) * width;
            for (wave, value) in position_waves(column, row, waves, grid).into_iter().enumerate() {
                for channel in 0..width {
                    positions[at + channel] += amplitude * value * position_rows[wave * width + channel];
                }
            }
        }
    }
    tensors.put("vision_model.embeddings.position_embedding.weight", vec![spec.image.tokens(), width], positions);
    let draws = seed.split("class").normals(content, (energy / width as f32).sqrt());
    let class = (0..width)
        .map(|channel| (0..content).map(|row| draws[row] * content_rows[row * width + channel]).sum())
        .collect();
    tensors.put("vision_model.embeddings.class_embedding", vec![width], class);

    tensors.norm("vision_model.pre_layrnorm", width);
    for block in 0..spec.image.transformer.depth {
        let prefix = format!("vision_model.encoder.layers.{block}");
        mimetic_attention(tensors, &prefix, &spec.image.transformer, seed.split(block));
        mlp(tensors, &prefix, &spec.image.transformer, seed.split(block));
    }
    tensors.norm("vision_model.post_layernorm", width);
    let projection = seed.split("projection").normals(spec.dim * width, (width as f32).powf(-0.5));
    tensors.put("visual_projection.weight", vec![spec.dim, width], projection);
}

fn text_tower(tensors: &mut Tensors, spec: &BackboneSpec, seed: Seed) {
    let transformer = &spec.text.transformer;
    let width = transformer.width;
    let embedding = seed.split("tokens").normals(spec.text.vocabulary * width, 0.02);
    tensors.put("text_model.embeddings.token_embedding.weight", vec![spec.text.vocabulary, width], embedding);
    let positions = seed.split("positions").normals(spec.text.context * width, 0.01);
    tensors.put("text_model.embeddings.position_embedding.weight", vec![spec.text.context, width], positions);
    let residual = (2.0 * transformer.depth as f32).powf(-0.5);
    for block in 0..transformer.depth {
        let seed = seed.split(block);
        let prefix = format!("text_model.encoder.layers.{block}");
        let deviation = (width as f32).powf(-0.5);
        for (name, factor) in [("q_proj", 1.0), ("k_proj", 1.0), ("v_proj", 1.0), ("out_proj", residual)] {
            let weight = seed.split(name).normals(width * width, deviation * factor);
            tensors.linear(&format!("{prefix}.self_attn.{name}"), width, width, weight);
        }
        mlp(tensors, &prefix, transformer, seed);
    }
    tensors.norm("text_model.final_layer_norm", width);
    let projection = seed.split("projection").normals(spec.dim * width, (width as f32).powf(-0.5));
    tensors.put("text_projection.weight", vec![spec.dim, width], projection);
}

/// Norms and MLP of a block.
fn mlp(tensors: &mut Tensors, prefix: &str, spec: &TransformerSpec, seed: Seed) {
    let (width, hidden) = (spec.width, spec.mlp);
    tensors.norm(&format!("{prefix}.layer_norm1"), width);
    tensors.norm(&format!("{prefix}.layer_norm2"), width);
    let up = seed.split("fc1").normals(hidden * width, (width as f32).powf(-0.5));
    tensors.linear(&format!("{prefix}.mlp.fc1"), hidden, width, up);
    let scale = (hidden as f32).powf(-0.5) * (2.0 * spec.depth as f32).powf(-0.5);
    let down = seed.split("fc2").normals(width * hidden, scale);
    tensors.linear(&format!("{prefix}.mlp.fc2"), width, hidden, down);
}

/// Query and key share most of their rows, output is mostly the negative transpose of value.
fn mimetic_attention(tensors: &mut Tensors, prefix: &str, spec: &TransformerSpec, seed: Seed) {
    let width = spec.width;
    let head = width / spec.heads;
    let noise = (width as f32).powf(-0.5);
    let (mut query, mut key) = (Vec::new(), Vec::new());
    for index in 0..spec.heads {
        let seed = seed.split("head").split(index);
        let rows = orthonormal_rows(head, width, seed.split("rows"), false);
        let draws = seed.split("noise").normals(head * width, noise);
        query.extend(rows.iter().map(|value| 1.15 * value));
        key.extend(rows.iter().zip(draws).map(|(value, draw)| 1.15 * (0.75 * value + 0.66 * draw)));
    }
    let rotation = orthonormal_rows(width, width, seed.split("value"), false);
    let draws = seed.split("output").normals(width * width, noise);
    let output = (0..width * width)
        .map(|at| {
            let (row, column) = (at / width, at % width);
            0.63 * (draws[at] - rotation[column * width + row])
        })
        .collect();
    let value = rotation.iter().map(|value| 0.63 * value).collect();
    for (name, weight) in [("q_proj", query), ("k_proj", key), ("v_proj", value), ("out_proj", output)] {
        tensors.linear(&format!("{prefix}.self_attn.{name}"), width, width, weight);
    }
}

/// Frequencies of an axis: as many as leave three quarters of the width to the content, at most four.
fn wave_count(width: usize) -> usize {
    (width / 16).clamp(1, 4)
}

/// `[cos, sin]` of both axes; orthogonal for different positions on a grid of twice the number of waves.
fn position_waves(column: usize, row: usize, waves: usize, grid: usize) -> Vec<f32> {
    let frequencies: Vec<f32> = (0..waves).map(|wave| PI * (2.0 * wave as f32 + 1.0) / grid as f32).collect();
    let axis = |position: usize, wave: fn(f32) -> f32| {
        frequencies.iter().map(move |frequency| wave(frequency * position as f32)).collect::<Vec<_>>()
    };
    [axis(column, f32::cos), axis(column, f32::sin), axis(row, f32::cos), axis(row, f32::sin)].concat()
}

/// Random orthonormal rows (Gram and Schmidt, twice, in f64); with `constant_first` the first row is constant.
fn orthonormal_rows(rows: usize, width: usize, seed: Seed, constant_first: bool) -> Vec<f32> {
    let draws = seed.normals(rows * width, 1.0);
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut vector: Vec<f64> = if row == 0 && constant_first {
            vec![1.0; width]
        } else {
            draws[row * width..(row + 1) * width].iter().map(|value| f64::from(*value)).collect()
        };
        for _ in 0..2 {
            for other in &basis {
                let overlap: f64 = vector.iter().zip(other).map(|(left, right)| left * right).sum();
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= overlap * other);
            }
        }
        let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|value| *value /= length);
        basis.push(vector);
    }
    basis.concat().into_iter().map(|value| value as f32).collect()
}

/// Patches of images `[n, 3, size, size]` as rows of `3 * patch * patch` values.
fn unfold(pixels: &[f32], size: usize, patch: usize) -> Vec<f32> {
    let grid = size / patch;
    let image_values = 3 * size * size;
    let mut rows = Vec::with_capacity(pixels.len());
    for image in pixels.chunks_exact(image_values) {
        for row in 0..grid {
            for column in 0..grid {
                for channel in 0..3 {
                    for y in 0..patch {
                        let at = channel * size * size + (row * patch + y) * size + column * patch;
                        rows.extend_from_slice(&image[at..at + patch]);
                    }
                }
            }
        }
    }
    rows
}

fn covariance(rows: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; width * width];
    for row in rows.chunks_exact(width) {
        for (left, sums) in row.iter().zip(sums.chunks_exact_mut(width)) {
            sums.iter_mut().zip(row).for_each(|(sum, right)| *sum += f64::from(*left) * f64::from(*right));
        }
    }
    let count = (rows.len() / width).max(1) as f64;
    sums.iter().map(|sum| sum / count).collect()
}

/// `(C + floor)^(-1/2)` by the coupled Newton iteration (Higham, 2008, chapter 6).
fn inverse_square_root(matrix: &[f64], width: usize) -> Vec<f64> {
    let identity = |factor: f64| -> Vec<f64> {
        (0..width * width).map(|at| if at / width == at % width { factor } else { 0.0 }).collect()
    };
    let shifted: Vec<f64> = matrix.iter().zip(identity(WHITENING_FLOOR)).map(|(value, floor)| value + floor).collect();
    let norm = shifted.iter().map(|value| value * value).sum::<f64>().sqrt();
    let mut root: Vec<f64> = shifted.iter().map(|value| value / norm).collect();
    let mut inverse = identity(1.0);
    for _ in 0..40 {
        let product = multiply(&inverse, &root, width);
        let step: Vec<f64> =
            identity(1.5).iter().zip(&product).map(|(diagonal, value)| diagonal - 0.5 * value).collect();
        root = multiply(&root, &step, width);
        inverse = multiply(&step, &inverse, width);
    }
    inverse.iter().map(|value| value / norm.sqrt()).collect()
}

fn multiply(left: &[f64], right: &[f64], width: usize) -> Vec<f64> {
    let mut product = vec![0.0; width * width];
    for (row, product) in left.chunks_exact(width).zip(product.chunks_exact_mut(width)) {
        for (factor, right) in row.iter().zip(right.chunks_exact(width)) {
            product.iter_mut().zip(right).for_each(|(sum, value)| *sum += factor * value);
        }
    }
    product
}

fn mean_energy(rows: &[f32], filters: &[f32], width: usize, values: usize) -> f32 {
    let rows: Vec<&[f32]> = rows.chunks_exact(values).step_by(16).collect();
    let total: f32 = rows
        .iter()
        .map(|row| {
            filters[..width * values]
                .chunks_exact(values)
                .map(|filter| filter.iter().zip(*row).map(|(left, right)| left * right).sum::<f32>().powi(2))
                .sum::<f32>()
        })
        .sum();
    total / rows.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::{Seed, inverse_square_root, multiply, orthonormal_rows};

    #[test]
    fn the_inverse_square_root_inverts() {
        let matrix = [4.0, 1.0, 1.0, 3.0];
        let root = inverse_square_root(&matrix, 2);
        let back = multiply(&multiply(&root, &root, 2), &[4.01, 1.0, 1.0, 3.01], 2);
        for (found, expected) in back.iter().zip([1.0, 0.0, 0.0, 1.0]) {
            assert!((found - expected).abs() < 1e-9, "{back:?}");
        }
    }

    #[test]
    fn rows_are_orthonormal() {
        let rows = orthonormal_rows(3, 8, Seed::new(1), true);
        for left in 0..3 {
            for right in 0..3 {
                let dot: f32 = (0..8).map(|at| rows[left * 8 + at] * rows[right * 8 + at]).sum();
                let expected = if left == right { 1.0 } else { 0.0 };
                assert!((dot - expected).abs() < 1e-5, "{left} {right} {dot}");
            }
        }
        assert!(rows[..8].iter().all(|value| (value - rows[0]).abs() < 1e-6));
    }
}
