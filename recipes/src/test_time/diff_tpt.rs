//! DiffTPT: prompt tuning on views that a generator made, read from files (Feng et al., ICCV 2023, arXiv 2308.06038).
//!
//! The views in the image's folder of `views_from` come first; of them, the share `similar` nearest to the centre view by
//! cosine counts. Together with the random views, the share `keep` of least entropy lowers the entropy of its mean
//! probability over the context `[tokens, width]`, as in [TPT](super::tpt). Without files it is TPT with other settings.

use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::confidence::{entropy, share_of};
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::objective::marginal_entropy;
use super::prompt::Prompt;
use super::rows::dot;
use super::tpt::{PROMPT_NEEDS, check};
use super::tuner::Tuner;
use super::world::World;
use crate::error::Result;

/// Settings of DiffTPT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiffTptConfig {
    /// Learning rate.
    pub lr: f64,
    /// Steps.
    pub steps: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
    /// Share of the views from files that are similar enough.
    pub similar: f64,
}

impl Default for DiffTptConfig {
    fn default() -> Self {
        Self { lr: 5e-3, steps: 4, keep: 0.3, similar: 0.8 }
    }
}

impl MethodSettings for DiffTptConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        PROMPT_NEEDS
    }

    fn check(&self) -> std::result::Result<(), String> {
        check(self.lr, self.steps, self.keep)?;
        within("similar", self.similar, 0.0..=1.0)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(DiffTpt { config: self.clone(), prompt: None }))
    }
}

struct DiffTpt {
    config: DiffTptConfig,
    prompt: Option<Prompt>,
}

impl DiffTptConfig {
    fn select(&self, episode: &Episode) -> Vec<usize> {
        let centre = episode.features.row(0);
        let similarity = |view: &usize| dot(centre, episode.features.row(*view));
        let mut files: Vec<usize> = (1..=episode.from_files).collect();
        files.sort_by(|left, right| similarity(right).total_cmp(&similarity(left)));
        files.truncate(if files.is_empty() { 0 } else { share_of(files.len(), self.similar) });
        let mut pool: Vec<usize> =
            std::iter::once(0).chain(files).chain(1 + episode.from_files..episode.features.count()).collect();
        pool.sort_by(|left, right| entropy(episode.logits.row(*left)).total_cmp(&entropy(episode.logits.row(*right))));
        pool.truncate(share_of(pool.len(), self.keep));
        pool
    }
}

impl Adapt for DiffTpt {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        let config = &self.config;
        let tuner = Tuner {
            optimizer: AdamW::new(config.lr),
            steps: config.steps,
            select: &|episode| config.select(episode),
            loss: &|_, _, logits, _| marginal_entropy(logits),
        };
        tuner.answers(world, &mut self.prompt, episodes)
    }
}
