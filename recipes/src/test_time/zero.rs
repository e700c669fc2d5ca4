//! ZERO: a vote of the surest views, which is their mean at temperature zero (Farina et al., 2024, arXiv 2405.18330).
//!
//! Of the views `[views, classes]` the share `keep` of least entropy votes for its best class; among equal counts the next
//! views in the order of confidence decide. Nothing is trained; views are crops without AugMix. The probabilities are the
//! shares of the votes. Where no view is left to decide, the greatest score of view 0 among the tied classes does; the
//! authors' code then takes class 0.

use inarch_core::backbone::Backbone;
use inarch_core::image::ViewRecipe;
use serde::{Deserialize, Serialize};

use super::confidence::{by_confidence, greatest, share_of};
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::world::World;
use crate::error::Result;

/// Settings of ZERO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZeroConfig {
    /// Share of the views that vote.
    pub keep: f64,
}

impl Default for ZeroConfig {
    fn default() -> Self {
        Self { keep: 0.3 }
    }
}

impl MethodSettings for ZeroConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { recipe: ViewRecipe::Crop, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("keep", self.keep, 0.0..=1.0)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Zero(self.clone())))
    }
}

struct Zero(ZeroConfig);

impl Adapt for Zero {
    fn adapt(&mut self, _world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| Answer::probabilities(&votes(episode, self.0.keep))).collect())
    }
}

/// How often each class is voted for; the winner of a tie has one vote more.
fn votes(episode: &Episode, keep: f64) -> Vec<f32> {
    let logits = &episode.logits;
    let order = by_confidence(logits);
    let (voters, others) = order.split_at(share_of(logits.count(), keep));
    let mut votes = vec![0.0f32; logits.width()];
    for view in voters {
        votes[greatest(logits.row(*view))] += 1.0;
    }
    let most = votes[greatest(&votes)];
    let tied: Vec<usize> = (0..votes.len()).filter(|class| votes[*class] == most).collect();
    if tied.len() > 1 {
        let voted = others.iter().map(|view| greatest(logits.row(*view))).find(|class| tied.contains(class));
        let centre = logits.row(0);
        let best = tied.iter().copied().max_by(|left, right| centre[*left].total_cmp(&centre[*right]));
        if let Some(winner) = voted.or(best) {
            votes[winner] += 1.0;
        }
    }
    votes
}
