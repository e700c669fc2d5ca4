//! One training step on all cores: the batch is cut into shards, each shard runs its tower forward and backward on one
//! thread, and the loss sees the features of the whole batch.
//!
//! The towers' part of the gradient is linear in the gradient of the features, so cutting there changes no value beyond
//! the order of a sum (GradCache: Gao et al., 2021, arXiv 2101.06983). Small shards also stay in the processor's cache,
//! which on the CPU backend matters more than the size of a matrix product.

use std::sync::mpsc;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::image::ImageBatch;
use inarch_core::parallel::{threads, within};

/// Detaches every parameter into a leaf of its own with the same identity, so that graphs of different threads share
/// nothing.
struct Leaves;

impl ModuleMapper for Leaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, value.detach(), mapper).set_require_grad(true)
    }
}

/// Gradients of `module` over a batch cut into `shards`.
///
/// `forward` gives the features `[rows, dim]` of one shard; `loss` is given the features of all shards in order, as one
/// leaf, and returns the loss `[1]` and whatever else the caller wants to know.
pub(crate) fn sharded_gradients<M, T>(
    module: &M,
    shards: usize,
    forward: impl Fn(&M, usize) -> Tensor<2> + Sync,
    loss: impl FnOnce(Tensor<2>) -> (Tensor<1>, T),
) -> (GradientsParams, f32, T)
where
    M: Module + Sync,
{
    let shards = shards.max(1);
    let workers = threads().clamp(1, shards);
    let share = shards.div_ceil(workers);
    let own = threads() / workers;
    let models: Vec<M> = (0..shards).map(|_| module.clone().map(&mut Leaves)).collect();
    let forward = &forward;
    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(workers);
        for (worker, models) in models.chunks(share).enumerate() {
            let (features_out, features_in) = mpsc::channel::<Tensor<2>>();
            let (gradients_out, gradients_in) = mpsc::channel::<Tensor<2>>();
            let shards = move || {
                let graphs: Vec<Tensor<2>> = models
                    .iter()
                    .enumerate()
                    .map(|(index, model)| {
                        let features = forward(model, worker * share + index);
                        // The other end only goes away when the caller panics, and then nothing is left to do.
                        let _ = features_out.send(features.clone().without_autodiff());
                        features
                    })
                    .collect();
                drop(features_out);
                let mut found = Vec::with_capacity(models.len());
                for (features, model) in graphs.into_iter().zip(models) {
                    let Ok(gradient) = gradients_in.recv() else { break };
                    let upstream = (features * gradient).sum();
                    found.push(GradientsParams::from_grads(upstream.backward(), model));
                }
                found
            };
            let handle = scope.spawn(move || within(own, shards));
            workers.push((handle, features_in, gradients_out));
        }

        let parts: Vec<Tensor<2>> = workers.iter().flat_map(|(_, features, _)| features.iter()).collect();
        let rows: Vec<usize> = parts.iter().map(|part| part.dims()[0]).collect();
        let leaf = Tensor::cat(parts, 0).autodiff().require_grad();
        let (loss, extra) = loss(leaf.clone());
        let value = loss.clone().into_scalar::<f32>();
        let gradients = loss.backward();
        let gradient = leaf.grad(&gradients).unwrap_or_else(|| leaf.clone().without_autodiff().zeros_like());

        let mut start = 0;
        for (shard, rows) in rows.into_iter().enumerate() {
            let _ = workers[shard / share].2.send(gradient.clone().narrow(0, start, rows));
            start += rows;
        }
        // What the loss itself used of the module: the text tower, the temperature, class rows.
        let mut accumulated = GradientsAccumulator::new();
        accumulated.accumulate(module, GradientsParams::from_grads(gradients, module));
        for (handle, _, _) in workers {
            match handle.join() {
                Ok(found) => found.into_iter().for_each(|gradients| accumulated.accumulate(module, gradients)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (accumulated.grads(), value, extra)
    })
}

/// Images in a shard of a batch: few enough for the caches, at least two shards. It depends on the batch alone, so that the
/// number of cores does not show in any sum.
pub(crate) fn shard_size(images: usize) -> usize {
    images.div_ceil(2).clamp(1, 16)
}

/// An image batch cut into shards.
pub(crate) struct Shards<'a> {
    batch: &'a ImageBatch,
    size: usize,
    device: &'a Device,
}

impl<'a> Shards<'a> {
    /// Shards of at most `size` images on `device`.
    pub(crate) fn new(batch: &'a ImageBatch, size: usize, device: &'a Device) -> Self {
        Self { batch, size: size.max(1), device }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.batch.shape[0].div_ceil(self.size)
    }

    /// The pixels of one, `[images, 3, height, width]`.
    pub(crate) fn pixels(&self, shard: usize) -> Tensor<4> {
        let [images, channels, height, width] = self.batch.shape;
        let values = channels * height * width;
        let (from, to) = (shard * self.size, ((shard + 1) * self.size).min(images));
        let data = self.batch.pixels[from * values..to * values].to_vec();
        Tensor::from_data(TensorData::new(data, [to - from, channels, height, width]), self.device)
    }
}
