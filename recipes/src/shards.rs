//! One training step on all cores: the batch is cut into shards of images and of classes, each runs its tower forward and
//! backward on one thread, and the loss sees the features of all.
//!
//! The towers' part of the gradient is linear in the gradient of the features, so cutting there changes no value beyond
//! the order of a sum (GradCache: Gao et al., 2021, arXiv 2101.06983). Small shards also stay in the processor's cache,
//! which on the CPU backend matters more than the size of a matrix product.

use std::sync::mpsc;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::Frames;
use inarch_core::image::ImageBatch;
use inarch_core::parallel::{threads, within};

/// A part of a step that one thread runs through its tower.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shard {
    /// Some images, by number.
    Image(usize),
    /// Some classes, by number.
    Text(usize),
}

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardCounts {
    pub(crate) images: usize,
    pub(crate) texts: usize,
    /// Whether a shard's activations are dropped once its features are known and computed again on the way back, so that
    /// only one shard of each thread has any: a forward pass more, for memory.
    pub(crate) recompute: bool,
}

/// The features `[rows, dim]` of each shard, as the loss sees them.
pub(crate) struct ShardFeatures {
    pub(crate) images: Vec<Tensor<2>>,
    pub(crate) texts: Vec<Tensor<2>>,
}

/// Detaches every parameter into a leaf of its own with the same identity, so that graphs of different threads share
/// nothing.
struct Leaves;

impl ModuleMapper for Leaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, value.detach(), mapper).set_require_grad(true)
    }
}

/// A copy for another thread: graphs that meet in a parameter are one graph, which only one of them may run backward.
pub(crate) fn apart<M: Module>(module: &M) -> M {
    module.clone().map(&mut Leaves)
}

impl ShardCounts {
    /// Where a shard stands among all: images first.
    fn place(self, shard: Shard) -> usize {
        match shard {
            Shard::Image(shard) => shard,
            Shard::Text(shard) => self.images + shard,
        }
    }

    /// The shards of each of `workers` threads: every thread gets its share of either kind.
    fn dealt(self, workers: usize) -> Vec<Vec<Shard>> {
        let mut dealt = vec![Vec::new(); workers];
        (0..self.images).for_each(|shard| dealt[shard % workers].push(Shard::Image(shard)));
        // The other way round, so that an odd image shard and an odd text shard meet on different threads.
        (0..self.texts).for_each(|shard| dealt[workers - 1 - shard % workers].push(Shard::Text(shard)));
        dealt
    }
}

/// Gradients of `module` over shards.
///
/// `forward` gives the features of one shard; `loss` is given those of all, as leaves, and returns the loss `[1]` and whatever
/// else the caller wants to know.
pub(crate) fn sharded_gradients<M, T>(
    module: &M,
    counts: ShardCounts,
    forward: impl Fn(&M, Shard) -> Tensor<2> + Sync,
    loss: impl FnOnce(ShardFeatures) -> (Tensor<1>, T),
) -> (GradientsParams, f32, T)
where
    M: Module + Sync,
{
    let most = module.devices().first().map_or_else(threads, inarch_core::workers);
    let workers = most.clamp(1, (counts.images + counts.texts).max(1));
    let own = threads() / workers;
    let forward = &forward;
    let dealt: Vec<Vec<(Shard, M)>> = counts
        .dealt(workers)
        .into_iter()
        .map(|shards| shards.into_iter().map(|shard| (shard, apart(module))).collect())
        .collect();
    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(dealt.len());
        for shards in dealt {
            let names: Vec<Shard> = shards.iter().map(|(shard, _)| *shard).collect();
            let (features_out, features_in) = mpsc::channel::<Tensor<2>>();
            let (gradients_out, gradients_in) = mpsc::channel::<Tensor<2>>();
            let work = move || {
                let graphs: Vec<Option<Tensor<2>>> = shards
                    .iter()
                    .map(|(shard, model)| {
                        let features = match counts.recompute {
                            true => forward(&model.clone().no_grad(), *shard),
                            false => forward(model, *shard),
                        };
                        // The other end only goes away when the caller panics, and then nothing is left to do.
                        let _ = features_out.send(features.clone().without_autodiff());
                        (!counts.recompute).then_some(features)
                    })
                    .collect();
                drop(features_out);
                let mut found = Vec::with_capacity(shards.len());
                for (features, (shard, model)) in graphs.into_iter().zip(shards) {
                    let Ok(gradient) = gradients_in.recv() else { break };
                    let upstream = (features.unwrap_or_else(|| forward(&model, shard)) * gradient).sum();
                    // A shard that no parameter reaches has nothing to go back through.
                    if upstream.is_autodiff() {
                        found.push((counts.place(shard), GradientsParams::from_grads(upstream.backward(), &model)));
                    }
                }
                found
            };
            let handle = scope.spawn(move || within(own, work));
            workers.push((handle, names, features_in, gradients_out));
        }

        let mut leaves: Vec<Vec<Tensor<2>>> = Vec::with_capacity(workers.len());
        let mut features = (vec![None; counts.images], vec![None; counts.texts]);
        for (_, names, features_in, _) in &workers {
            let own: Vec<Tensor<2>> = features_in.iter().map(|found| found.autodiff().require_grad()).collect();
            for (shard, leaf) in names.iter().zip(&own) {
                match shard {
                    Shard::Image(shard) => features.0[*shard] = Some(leaf.clone()),
                    Shard::Text(shard) => features.1[*shard] = Some(leaf.clone()),
                }
            }
            leaves.push(own);
        }
        // A thread that panicked sent nothing; its panic is passed on below.
        let complete = features.0.iter().chain(&features.1).all(Option::is_some);
        let outcome = complete.then(|| {
            let (images, texts) = features;
            let (images, texts) = (images.into_iter().flatten().collect(), texts.into_iter().flatten().collect());
            let (loss, extra) = loss(ShardFeatures { images, texts });
            let value = loss.clone().into_scalar::<f32>();
            let gradients = loss.backward();
            for ((_, _, _, gradients_out), leaves) in workers.iter().zip(&leaves) {
                for leaf in leaves {
                    let gradient = leaf.grad(&gradients);
                    let _ =
                        gradients_out.send(gradient.unwrap_or_else(|| leaf.clone().without_autodiff().zeros_like()));
                }
            }
            // What the loss itself used of the module: the temperature, class rows, a feature site.
            (GradientsParams::from_grads(gradients, module), value, extra)
        });
        let mut parts = Vec::with_capacity(counts.images + counts.texts);
        for (handle, _, _, gradients_out) in workers {
            drop(gradients_out);
            match handle.join() {
                Ok(found) => parts.extend(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let (gradients, value, extra) = outcome.expect("every shard sent its features");
        let mut accumulated = GradientsAccumulator::new();
        accumulated.accumulate(module, gradients);
        // In the order of the shards, whichever thread ran them.
        parts.sort_by_key(|(place, _)| *place);
        parts.into_iter().for_each(|(_, gradients)| accumulated.accumulate(module, gradients));
        (accumulated.grads(), value, extra)
    })
}

/// Images in a shard of a batch, or clips of so many frames: few enough for the caches, at least two shards. It depends on the
/// batch alone, so that the number of cores does not show in any sum.
pub(crate) fn shard_size(examples: usize, frames: Frames) -> usize {
    examples.div_ceil(2).clamp(1, (16 / frames.count()).max(1))
}

/// Into how many shards classes are cut that run through the text tower in every step: few, since each of them runs the
/// beginning that all texts share.
pub(crate) fn text_shards(classes: usize) -> usize {
    (classes / 48).clamp(1 + usize::from(classes >= 8), 16)
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

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};

    use inarch_core::backbone::values;

    use super::{Shard, ShardCounts, apart, sharded_gradients};

    /// Trains nothing, but goes backward through the module from many threads at once.
    fn side_by_side(module: &Linear, copy: impl Fn(&Linear) -> Linear + Sync) {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let own = copy(module);
                        let input = Tensor::<2>::ones([3, 4], &Device::flex());
                        let gradients = own.forward(own.forward(input)).powf_scalar(2.0).sum().backward();
                        assert!(own.weight.val().grad(&gradients).is_some());
                    }
                });
            }
        });
    }

    #[test]
    fn activations_that_are_computed_again_give_the_same_gradients() {
        let module = LinearConfig::new(4, 4).init(&Device::flex().autodiff());
        let gradients = |recompute| {
            let forward = |module: &Linear, shard: Shard| {
                let (kind, shard) = match shard {
                    Shard::Image(shard) => (1.0, shard),
                    Shard::Text(shard) => (-1.0, shard),
                };
                let input = Tensor::<2>::ones([2, 4], &Device::flex()) * (kind * (shard + 1) as f64 / 7.0);
                module.forward(module.forward(input).tanh())
            };
            let counts = ShardCounts { images: 3, texts: 5, recompute };
            let (gradients, value, ()) = sharded_gradients(&module, counts, forward, |features| {
                let all = Tensor::cat([features.images, features.texts].concat(), 0);
                (all.clone().matmul(all.transpose()).powf_scalar(2.0).mean(), ())
            });
            let weight = gradients.get::<2>(module.weight.id).expect("a gradient");
            (values(weight), value)
        };
        let (kept, value) = gradients(false);
        assert!(kept.iter().any(|value| value.abs() > 1e-3), "{kept:?}");
        assert_eq!((kept, value), gradients(true));
    }

    #[test]
    fn copies_go_backward_side_by_side() {
        let module = LinearConfig::new(4, 4).init(&Device::flex().autodiff());
        side_by_side(&module, apart);
    }
}
