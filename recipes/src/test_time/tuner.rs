//! Adapts the prompts of many images at once: one forward and one backward pass for all.

use burn::tensor::Tensor;
use inarch_core::backbone::{Entry, Pass, Tower, normalise, values};
use inarch_core::parallel;

use super::adamw::{AdamW, Moments};
use super::episode::{Answer, Episode};
use super::objective::{gradient_of, views_of};
use super::prompt::{Prompt, shares_passes};
use super::world::{Model, World};
use crate::error::{Error, Result};

/// Rows of the text tower in one pass: enough for the matrix products, few enough for the processor's caches. Fixed, so
/// that the result does not depend on the number of cores.
const ROWS: usize = 128;

/// The loss `[1]` of one image: its sure views' scores `[views, classes]` and its class features `[classes, dim]`, which
/// are not normalised.
pub(super) type Loss<'a> = dyn Fn(&Episode, &[usize], Tensor<2>, Tensor<2>) -> Tensor<1> + Sync + 'a;

/// How prompts are adapted.
pub(super) struct Tuner<'a> {
    pub(super) optimizer: AdamW,
    pub(super) steps: usize,
    /// The views of an image that count.
    pub(super) select: &'a (dyn Fn(&Episode) -> Vec<usize> + Sync),
    pub(super) loss: &'a Loss<'a>,
}

impl Tuner<'_> {
    /// Answers for some images, each from the context of `prompt`, or, where prompts depend on the image, from its own.
    pub(super) fn answers(
        &self,
        world: &World<'_>,
        prompt: &mut Option<Prompt>,
        episodes: &[Episode],
    ) -> Result<Vec<Answer>> {
        let model = needed(world)?;
        let shares = shares_passes(model.classifier, model.sites);
        if prompt.is_none() && !model.sites.conditions_text() {
            *prompt = Some(Prompt::new(&model, None)?);
        }
        let prompt = prompt.as_ref();
        if let Some(prompt) = prompt
            && model.sites.entry(Tower::Text) == Entry::Never
            && prompt.parts.parts().len() > 1
        {
            return Ok(episodes.iter().map(|episode| self.wide(world, &model, prompt, episode)).collect());
        }
        let size = if shares { (ROWS / world.classes).max(1) } else { 1 };
        let shards: Vec<&[Episode]> = episodes.chunks(size).collect();
        let found = parallel::map(&shards, |shard| self.shard(world, &model, prompt, shard));
        Ok(found.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// One image with many classes: the cores share its classes. The gradient of the class features is taken first; the
    /// towers' part is linear in it, so part after part goes forward and backward on its own, and memory is that of a part
    /// for each core (GradCache: Gao et al., 2021, arXiv 2101.06983).
    fn wide(&self, world: &World<'_>, model: &Model<'_>, prompt: &Prompt, episode: &Episode) -> Answer {
        let device = world.device;
        let parts: Vec<usize> = (0..prompt.parts.parts().len()).collect();
        let chosen = (self.select)(episode);
        let views = views_of(episode, &chosen, device);
        let mut context = prompt.context.clone().unsqueeze::<3>();
        let mut moments = Moments::new();
        let forward = |context: &Tensor<3>| {
            let part = |part: &usize| normalise(prompt.part(model, context.clone(), *part));
            let outputs = parallel::map(&parts, part);
            model.classifier.join(&prompt.parts, outputs, model.sites, &Pass::evaluate()).features
        };
        for step in 0..self.steps {
            // Before the first step the class features are those of every image.
            let text = if step == 0 { episode.text.tensor(device) } else { forward(&context) };
            let leaf = text.autodiff().require_grad();
            let loss = (self.loss)(episode, &chosen, world.score.logits(&views, &leaf), leaf.clone());
            let Some(upstream) = gradient_of(&leaf, &loss) else { break };
            let upstream = prompt.parts.split(upstream);
            let gradients = parallel::map(&parts, |part| {
                let leaf = context.clone().autodiff().require_grad();
                let features = normalise(prompt.part(model, leaf.clone(), *part));
                gradient_of(&leaf, &(features * upstream[*part].clone()).sum())
            });
            let Some(gradient) = gradients.into_iter().flatten().reduce(|sum, gradient| sum + gradient) else { break };
            context = moments.step(&self.optimizer, context, gradient);
        }
        let centre = views_of(episode, &[0], device);
        let scores = values(world.score.logits(&centre, &forward(&context)));
        Answer { adapted: Some(values(context)), ..Answer::scores(scores) }
    }

    fn shard(
        &self,
        world: &World<'_>,
        model: &Model<'_>,
        prompt: Option<&Prompt>,
        episodes: &[Episode],
    ) -> Result<Vec<Answer>> {
        let device = world.device;
        let condition = views_of(&episodes[0], &[0], device);
        let own;
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => {
                own = Prompt::new(model, Some(&condition))?;
                &own
            }
        };
        let images = episodes.len();
        let [count, width] = prompt.context.dims();
        let chosen: Vec<Vec<usize>> = episodes.iter().map(self.select).collect();
        let views: Vec<Tensor<2>> =
            episodes.iter().zip(&chosen).map(|(episode, chosen)| views_of(episode, chosen, device)).collect();
        let mut contexts = prompt.context.clone().unsqueeze::<3>().repeat_dim(0, images);
        let mut moments = Moments::new();
        let text_of = |text: &Tensor<2>, image: usize| text.clone().narrow(0, image * world.classes, world.classes);
        for _ in 0..self.steps {
            let leaf = contexts.clone().autodiff().require_grad();
            let text = prompt.text(model, leaf.clone(), Some(&condition));
            let losses = (0..images).map(|image| {
                let own = text_of(&text, image);
                let logits = world.score.logits(&views[image], &own);
                (self.loss)(&episodes[image], &chosen[image], logits, own)
            });
            // Each loss depends on its own context alone, so the gradient of the sum holds that of each.
            let loss = Tensor::cat(losses.collect(), 0).sum();
            let Some(gradient) = gradient_of(&leaf, &loss) else { break };
            contexts = moments.step(&self.optimizer, contexts, gradient);
        }
        let text = prompt.text(model, contexts.clone(), Some(&condition));
        let answer = |image: usize| {
            let centre = views_of(&episodes[image], &[0], device);
            let context = contexts.clone().narrow(0, image, 1).reshape([count, width]);
            let scores = values(world.score.logits(&centre, &text_of(&text, image)));
            Answer { adapted: Some(values(context)), ..Answer::scores(scores) }
        };
        Ok((0..images).map(answer).collect())
    }
}

/// The model, which methods that run a tower need.
///
/// # Errors
/// A world of features alone.
pub(super) fn needed<'a>(world: &World<'a>) -> Result<Model<'a>> {
    world.model.ok_or_else(|| {
        Error::Core(inarch_core::Error::invalid(
            "test-time adaptation",
            "this method runs a tower and needs a backbone",
        ))
    })
}
