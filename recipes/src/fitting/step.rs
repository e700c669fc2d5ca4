//! The gradients of a step, through the towers that the adapter touches.

use std::cell::RefCell;

use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Frames, Frozen, Pass, Products, Sites as _, Tower, normalise, values};
use inarch_peft::{Adapter, Correction, Loss, Step};

use super::images::ImageSide;
use super::{Fitting, moved};
use crate::clips::frames;
use crate::companion::{Foresight, Moment};
use crate::error::{Error, Result};
use crate::gradient::corrected;
use crate::objective::{Images, TextSide, Texts};
use crate::saved_run::SavedRun;
use crate::shards::{Shard, ShardCounts, ShardFeatures, shard_size, sharded_gradients};

/// Tokens that the images of a shard meet at most, but for a single image.
const SHARD_TOKENS: usize = 1 << 12;
/// Share of its first loss by which a run in reduced precision may differ from one in single precision.
const MOST_APART: f32 = 0.1;

/// Which of a step's losses a gradient is taken of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Task,
    Guide(usize),
}

/// Scores of a step, for who asks for them.
type Scores = RefCell<Vec<f32>>;

/// What a gradient brings along: how many guides there are, and how they correct.
type Guides = Option<(usize, Correction)>;

impl Part {
    /// That loss, and the guides.
    fn of(self, loss: Loss) -> (Tensor<1>, Guides) {
        let guides = loss.guide.as_ref().map(|guide| (guide.losses.len(), guide.correction));
        let own = |at: usize| loss.guide.and_then(|guide| guide.losses.into_iter().nth(at));
        match self {
            Self::Guide(at) => (own(at).unwrap_or(loss.task), None),
            Self::Task => (loss.task, guides),
        }
    }
}

/// Refuses a device that does not compute in the reduced precision.
fn check_device(backbone: &Backbone) -> Result<()> {
    if backbone.device().supports_dtype(DType::BF16) {
        return Ok(());
    }
    let reason = "the device does not compute in bf16; leave it at f32".to_string();
    Err(Error::Recipe { origin: "train.precision".into(), reason })
}

/// Refuses a precision in which a run would start elsewhere than in single precision.
fn check_precision(reduced: f32, full: f32) -> Result<()> {
    if !full.is_finite() {
        return Err(Error::Diverged { step: 0, loss: full });
    }
    let apart = (reduced - full).abs();
    if apart <= MOST_APART * full.abs().max(1.0) { Ok(()) } else { Err(Error::Precision { reduced, full }) }
}

impl Fitting<'_> {
    /// A step through the towers that the adapter touches, in shards.
    pub(super) fn step(&mut self, side: &ImageSide<'_>, examples: &[usize], run: &SavedRun) -> Result<()> {
        let backbone = self.session.backbone;
        let pass = self.pass();
        let (step_seed, frames) = (self.step_seed(), self.frames());
        let pairs = self.texts(examples)?;
        let parts = self.objective.text_shards(self.adapter.sites());
        let (shards, given) = match side {
            ImageSide::Features(features) => (0, Some(features)),
            ImageSide::Towers { shards, frozen, .. } => (*shards, frozen.as_ref()),
        };
        let beside = given.is_none() && self.adapter.learner().needs_frozen_image();
        // Only an adapter that leaves the images alone has texts that depend on them, and runs in shards.
        let condition = given.filter(|_| self.adapter.conditions_text()).map(|features| normalise(features.clone()));
        let size = self.shard_size(examples.len());
        let forward = |products: Products, adapter: &Adapter, shard: Shard| {
            let (part, shard) = match (shard, side) {
                (Shard::Text(shard), _) => {
                    let train = Pass::train(step_seed.split("text").split(shard));
                    let pass = Pass { condition: condition.as_ref(), products, ..train };
                    return parts[shard].output(backbone, adapter.sites(), &pass);
                }
                (Shard::Image(shard), ImageSide::Towers { part, .. }) => (part, shard),
                (Shard::Image(_), ImageSide::Features(_)) => unreachable!("features are not cut"),
            };
            let partial = part(shard);
            let evaluate = Pass { frames, ..Pass::evaluate() };
            let frozen = beside.then(|| backbone.finish(Tower::Image, partial.clone(), &Frozen, &evaluate));
            // What a prompt asks of the image is known already.
            let known = given.map(|frozen| {
                let all = examples.len();
                frozen.clone().narrow(0, shard * size, size.min(all - shard * size))
            });
            let query = frozen.clone().or(known).filter(|_| adapter.queries_image()).map(normalise);
            let train = Pass::train(step_seed.split(shard));
            let pass = Pass { query: query.as_ref(), frames, products, ..train };
            let adapted = backbone.finish(Tower::Image, partial, adapter.sites(), &pass);
            if backbone.crosses() {
                let [images, _] = adapted.dims();
                let own = (shard * size..shard * size + images, step_seed.split("words"));
                return self.objective.cross(backbone, &adapted, pairs.as_ref(), own, adapter.sites(), &pass);
            }
            // Side by side through the one channel that a shard has; nothing flows back into the frozen half.
            match frozen {
                Some(frozen) => Tensor::cat(vec![adapted, frozen], 1),
                None => adapted,
            }
        };
        let gradients_in = |products: Products,
                            adapter: &Adapter,
                            foresight: Option<&Foresight>,
                            which: Part,
                            scores: Option<&Scores>| {
            let loss = |features: ShardFeatures| {
                // Texts that are not cut into parts run through their tower here.
                let pass = Pass { products, ..pass };
                let images = match side {
                    ImageSide::Features(frozen) => {
                        let adapted = adapter.feature(Tower::Image, frozen.clone(), &pass);
                        Images { adapted, frozen: Some(frozen.clone()), examples }
                    }
                    ImageSide::Towers { frozen, .. } => {
                        let image = Tensor::cat(features.images, 0);
                        let [_, width] = image.dims();
                        if beside {
                            let frozen = image.clone().narrow(1, width / 2, width / 2).without_autodiff();
                            Images { adapted: image.narrow(1, 0, width / 2), frozen: Some(frozen), examples }
                        } else {
                            Images { adapted: image, frozen: frozen.clone(), examples }
                        }
                    }
                };
                let texts = match &pairs {
                    _ if backbone.crosses() => TextSide::Met(pairs.as_ref().map(|(pairs, _)| pairs)),
                    Some((pairs, rows)) => TextSide::Pairs(pairs, rows),
                    None if parts.is_empty() => TextSide::Classes,
                    None => TextSide::Shards(features.texts),
                };
                which.of(self.loss((adapter, foresight), images, texts, &pass, scores))
            };
            let counts = ShardCounts { images: shards, texts: parts.len(), recompute: self.recompute };
            sharded_gradients(adapter, counts, |adapter, shard| forward(products, adapter, shard), loss)
        };
        let products = self.recipe.train.precision.into();
        let full = if self.step == 0 && products != Products::Full {
            check_device(backbone)?;
            Some(gradients_in(Products::Full, &self.adapter, None, Part::Task, None).1)
        } else {
            None
        };
        let gradients = |adapter: &Adapter, foresight: Option<&Foresight>, which: Part, scores: Option<&Scores>| {
            gradients_in(products, adapter, foresight, which, scores)
        };
        let foresees = self.companion.as_ref().is_some_and(|companion| companion.foresees());
        let foresight = (foresees && self.fresh_rows(examples) < examples.len()).then(|| {
            let (before, after) = (Scores::default(), Scores::default());
            let (virtual_step, _, _) = gradients(&self.adapter, None, Part::Task, Some(&before));
            let companion = self.companion.as_deref();
            let mut optimizer = self.optimizer.clone();
            let ahead = moved(&mut optimizer, self.adapter.clone(), virtual_step, self.lr(), companion);
            gradients(&ahead, None, Part::Task, Some(&after));
            Foresight { before: before.take(), after: after.take() }
        });
        let take = |which: Part| gradients(&self.adapter, foresight.as_ref(), which, None);
        let (gradients, value) = self.guided(take);
        if let Some(full) = full {
            check_precision(value, full)?;
        }
        self.apply(gradients, value, run)
    }

    /// The gradients of the task's loss, corrected by the guides' where there are any.
    fn guided(&self, take: impl Fn(Part) -> (GradientsParams, f32, Guides)) -> (GradientsParams, f32) {
        let (task, value, guides) = take(Part::Task);
        let Some((count, correction)) = guides else { return (task, value) };
        let guides: Vec<GradientsParams> = (0..count).map(|guide| take(Part::Guide(guide)).0).collect();
        (corrected(&self.adapter, task, &guides, correction), value)
    }

    /// How many of a step's examples are not rehearsed.
    fn fresh_rows(&self, examples: &[usize]) -> usize {
        examples.iter().filter(|example| **example < self.fresh).count()
    }

    fn loss(
        &self,
        (adapter, foresight): (&Adapter, Option<&Foresight>),
        images: Images<'_>,
        texts: TextSide<'_>,
        pass: &Pass<'_>,
        scores: Option<&Scores>,
    ) -> Loss {
        let examples = images.examples;
        let own = |step: &Step<'_>| {
            if let Some(scores) = scores {
                scores.replace(values(step.logits.clone()));
            }
            match &self.companion {
                None => adapter.learner().loss(step),
                Some(companion) => {
                    let fresh = self.fresh_rows(examples);
                    companion.loss(&Moment { adapter, step, examples, fresh, foresight })
                }
            }
        };
        self.objective.loss_by(self.session.backbone, adapter, images, texts, &self.train, pass, &own)
    }

    /// Images, or clips, of a shard of a step of so many; fewer where each meets many texts.
    pub(super) fn shard_size(&self, examples: usize) -> usize {
        let met = self.objective.tokens_met(self.session.backbone, examples);
        shard_size(examples, self.frames()).min((SHARD_TOKENS / met.max(1)).max(1))
    }

    /// The rows of an example in the image tower.
    pub(super) fn frames(&self) -> Frames {
        frames(self.recipe.clips.as_ref())
    }

    fn texts(&self, examples: &[usize]) -> Result<Texts> {
        self.objective.texts(self.session.backbone, examples, self.seed.split("caption").split(self.step))
    }

    fn step_seed(&self) -> Seed {
        self.seed.split("step").split(self.step)
    }

    fn pass(&self) -> Pass<'static> {
        Pass::train(self.step_seed().split("text"))
    }
}

#[cfg(test)]
mod tests {
    use super::check_precision;
    use crate::error::Error;

    #[test]
    fn a_precision_that_starts_elsewhere_is_refused_with_both_losses() {
        // A tenth of the loss, and of 1 where it is below that.
        for (reduced, full) in [(2.0, 2.0), (2.19, 2.0), (1.81, 2.0), (0.09, 0.0), (0.01, 0.1)] {
            assert!(check_precision(reduced, full).is_ok(), "{reduced} {full}");
        }
        for (reduced, full) in [(2.21, 2.0), (1.79, 2.0), (0.11, 0.0), (f32::NAN, 2.0), (f32::INFINITY, 2.0)] {
            let error = check_precision(reduced, full).expect_err("another start");
            assert!(matches!(error, Error::Precision { .. }), "{error}");
            let words = error.to_string();
            assert!(words.contains(&format!("{reduced} in the recipe's `train.precision`")), "{words}");
            assert!(words.contains(&format!("{full} in f32")) && words.contains("leave it at f32"), "{words}");
        }
    }
}
