//! Training on what arrives, told apart from its own classes only.
//!
//! No loss sees two experiences beside each other, so no step lowers the scores of classes that do not arrive; neither are those of
//! different experiences ever compared. Around a pool of prompts this is L2P (Wang et al., CVPR 2022, arXiv 2112.08654): the pool is
//! shared by all experiences, and an image takes those prompts whose keys its own frozen feature is nearest to.

use inarch_peft::Loss;
use inarch_recipes::Moment;

use super::among::{classes_of, own_loss};
use super::branches::{Part, members, only};
use super::needs::Need;
use super::{Beginning, Episode, Strategy};
use crate::error::Result;

/// Nothing against forgetting but that.
#[derive(Default)]
pub(super) struct OwnClasses {
    /// The method that it is around, where it is around one.
    need: Option<Need>,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

impl OwnClasses {
    /// Around a method, which is a strategy of the same name.
    pub(super) fn around(need: Need) -> Self {
        Self { need: Some(need), ..Self::default() }
    }
}

impl Strategy for OwnClasses {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Some(need) = self.need else { return Ok(None) };
        match only(members(&beginning.recipe.method), |method| (method.name() == need.method).then_some(())) {
            Some(_) => Ok(None),
            None => Err(need.missing()),
        }
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.current = classes_of(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }
}
