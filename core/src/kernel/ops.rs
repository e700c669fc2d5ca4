//! The fused operations on the CPU backend's tensors.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Shape};

use super::{attention, layer_norm, quick_gelu};

/// Rows are few while a weight has this many times as many outputs (measured, see `docs/benchmarks.md`).
const FEW: usize = 5;

/// The operations, for tensors with and without gradients.
#[backend_extension(Flex, Autodiff)]
pub(super) trait TowerOps: Backend {
    /// See [`attention`](super::attention()).
    fn tower_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> FloatTensor<Self>;

    /// See [`layer_norm`](super::layer_norm()).
    fn tower_layer_norm(
        input: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// See [`quick_gelu`](super::quick_gelu()).
    fn tower_quick_gelu(input: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`linear`](super::linear()).
    fn tower_linear(input: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What their backward passes compute.
pub(super) trait TowerGradients: TowerOps {
    /// Gradients of query, key and value.
    fn attention_gradients(
        inputs: [FloatTensor<Self>; 3],
        gradient: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> [FloatTensor<Self>; 3];

    /// Gradient of the input.
    fn layer_norm_gradient(
        input: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// Gradient of the input.
    fn quick_gelu_gradient(input: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of the input.
    fn linear_gradient(weight: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl TowerOps for Flex {
    fn tower_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        heads: usize,
        causal: bool,
    ) -> FlexTensor {
        let (probabilities, _) = probabilities(query, key, heads, causal);
        join(Self::float_matmul(probabilities, split(value, heads)))
    }

    fn tower_layer_norm(input: FlexTensor, gain: FlexTensor, shift: FlexTensor, epsilon: f64) -> FlexTensor {
        let (input, gain, shift) = (input.to_contiguous(), gain.to_contiguous(), shift.to_contiguous());
        let mut output = vec![0.0; input.layout().num_elements()];
        layer_norm::forward(&mut output, values(&input), values(&gain), values(&shift), epsilon as f32);
        tensor(output, input.layout().shape().clone())
    }

    fn tower_quick_gelu(input: FlexTensor) -> FlexTensor {
        let input = input.to_contiguous();
        let mut output = vec![0.0; input.layout().num_elements()];
        quick_gelu::forward(&mut output, values(&input), last(&input));
        tensor(output, input.layout().shape().clone())
    }

    fn tower_linear(input: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        // All rows at once: a product for each row of the batch would read the weight as often.
        let [batch, tokens, inputs] = input.layout().shape().dims();
        let [_, outputs] = weight.layout().shape().dims();
        let rows = Self::float_reshape(input, Shape::new([batch * tokens, inputs]));
        let bias = Self::float_reshape(bias, Shape::new([1, outputs]));
        let product = Self::float_add(Self::float_matmul(rows, weight), bias);
        Self::float_reshape(product, Shape::new([batch, tokens, outputs]))
    }
}

impl TowerGradients for Flex {
    fn attention_gradients(
        [query, key, value]: [FlexTensor; 3],
        gradient: FlexTensor,
        heads: usize,
        causal: bool,
    ) -> [FlexTensor; 3] {
        // The probabilities are computed again: they are the largest tensor of a block, and cheap.
        let (probabilities, scores) = probabilities(query.clone(), key.clone(), heads, causal);
        let gradient = split(gradient, heads);
        let transposed = |tensor: FlexTensor| Self::float_swap_dims(tensor, 2, 3);
        let of_value = Self::float_matmul(transposed(probabilities.clone()), gradient.clone());
        let mut of_scores = Self::float_matmul(gradient, transposed(split(value, heads)));
        attention::softmax_backward(of_scores.storage_mut(), values(&probabilities), scores);
        let of_query = Self::float_matmul(of_scores.clone(), split(key, heads));
        let of_key = Self::float_matmul(transposed(of_scores), split(query, heads));
        [of_query, of_key, of_value].map(join)
    }

    fn layer_norm_gradient(input: FlexTensor, gain: FlexTensor, gradient: FlexTensor, epsilon: f64) -> FlexTensor {
        let (input, gain) = (input.to_contiguous(), gain.to_contiguous());
        let mut gradient = owned(gradient);
        layer_norm::backward(gradient.storage_mut(), values(&input), values(&gain), epsilon as f32);
        gradient
    }

    fn quick_gelu_gradient(input: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let input = input.to_contiguous();
        let mut gradient = owned(gradient);
        quick_gelu::backward(gradient.storage_mut(), values(&input), last(&input));
        gradient
    }

    fn linear_gradient(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [batch, tokens, outputs] = gradient.layout().shape().dims();
        let [inputs, _] = weight.layout().shape().dims();
        let rows = batch * tokens;
        let gradient = Self::float_reshape(gradient, Shape::new([rows, outputs]));
        // `g W^T` copies the whole weight into another order first, which for few rows takes longer than the product; `W g^T`
        // reads it as it lies, and only the small result has to be turned.
        let found = if FEW * rows > outputs {
            Self::float_matmul(gradient, Self::float_transpose(weight))
        } else {
            let turned = Self::float_matmul(weight, Self::float_transpose(gradient));
            Self::float_transpose(turned).to_contiguous()
        };
        Self::float_reshape(found, Shape::new([batch, tokens, inputs]))
    }
}

/// The attention probabilities `[batch, heads, queries, keys]`.
fn probabilities(query: FlexTensor, key: FlexTensor, heads: usize, causal: bool) -> (FlexTensor, attention::Scores) {
    let dim = last(&query) / heads;
    let key = Flex::float_swap_dims(split(key, heads), 2, 3);
    let mut values = Flex::float_matmul(split(query, heads), key);
    let [_, _, queries, keys] = values.layout().shape().dims();
    let scores = attention::Scores { queries, keys, scale: (dim as f32).sqrt().recip(), causal };
    attention::softmax(values.storage_mut(), scores);
    (values, scores)
}

/// `[batch, tokens, width]` seen as `[batch, heads, tokens, dim]`, without a copy.
fn split(tensor: FlexTensor, heads: usize) -> FlexTensor {
    let [batch, tokens, width] = tensor.layout().shape().dims();
    let tensor = Flex::float_reshape(tensor, Shape::new([batch, tokens, heads, width / heads]));
    Flex::float_swap_dims(tensor, 1, 2)
}

/// `[batch, heads, tokens, dim]` to `[batch, tokens, width]`.
fn join(tensor: FlexTensor) -> FlexTensor {
    let [batch, heads, tokens, dim] = tensor.layout().shape().dims();
    let mut output = vec![0.0; batch * heads * tokens * dim];
    attention::join_heads(&mut output, values(&tensor), heads, tokens, dim);
    self::tensor(output, Shape::new([batch, tokens, heads * dim]))
}

/// The values of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous f32")
}

/// A contiguous tensor that shares its memory with no other.
fn owned(tensor: FlexTensor) -> FlexTensor {
    let whole = tensor.layout().num_elements() * size_of::<f32>() == tensor.bytes().len();
    if whole && tensor.is_contiguous() && tensor.is_unique() {
        return tensor;
    }
    let tensor = tensor.to_contiguous();
    self::tensor(values(&tensor).to_vec(), tensor.layout().shape().clone())
}

fn last(tensor: &FlexTensor) -> usize {
    tensor.layout().shape().iter().last().copied().unwrap_or(1)
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}
