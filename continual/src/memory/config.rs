//! What a memory keeps, and how much.

use inarch_core::data::{Example, Source};
use serde::{Deserialize, Serialize};

use super::sample::Precision;
use crate::error::{Error, Result};

/// Most views of a sample.
const MOST_VIEWS: usize = 64;

/// Which samples stay when there is no room for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// A uniform sample of everything that was offered: those with the smallest hash of their id. It needs no random state,
    /// does not depend on the order of arrival, merges, and stays uniform when samples are removed.
    Reservoir,
    /// As many bytes for each class, chosen within it as above; what a class does not need, the others use.
    #[default]
    Balanced,
    /// As many for each class; those whose mean is closest to the class mean (iCaRL: Rebuffi et al., 2017, arXiv
    /// 1611.07725), in the order in which herding chose them. That order is kept when their number shrinks; the weight of a sample
    /// is its place. Samples that come to a class later, or from a merge, are chosen among with those that are there.
    Herding,
    /// The latest.
    Ring,
    /// A sample in which the chance grows with the loss a sample had when it was offered (weighted reservoir: Efraimidis and
    /// Spirakis, 2006). Merges as well.
    LossAware,
}

/// What of a sample is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Its frozen feature only: small, and no image to be stolen.
    #[default]
    Latents,
    /// The image file as well, for methods that change the image tower.
    Images,
}

impl Content {
    /// What is kept of examples beside their latents, in their order: their images, as they may be kept, or nothing.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn images(self, examples: &[&Example]) -> Result<Vec<Option<Vec<u8>>>> {
        match self {
            Self::Latents => Ok(vec![None; examples.len()]),
            Self::Images => {
                let sources: Vec<&Source> = examples.iter().map(|example| &example.source).collect();
                Ok(Source::file_bytes(&sources)?)
            }
        }
    }
}

/// Settings of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Most bytes of the memory on disk, with everything that belongs to it.
    pub budget_bytes: u64,
    /// How latents are stored.
    pub precision: Precision,
    /// What is kept.
    pub content: Content,
    /// Latents of a sample: that of the centre view, and with more than 1 those of augmented views, drawn by `seed` and the
    /// sample's id. Learners by steps rehearse any of them; everything else reads the first.
    #[serde(skip_serializing_if = "is_centre_alone")]
    pub views: usize,
    /// Which samples stay.
    pub sampler: Sampler,
    /// Samples older than so many days are dropped; kept for ever when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_days: Option<u32>,
    /// Decides the hashes. Memories merge to the same choice only under one seed.
    pub seed: u64,
}

/// Memories of the centre view are written as before there were others.
fn is_centre_alone(views: &usize) -> bool {
    *views == 1
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            budget_bytes: 256 << 10,
            precision: Precision::default(),
            content: Content::default(),
            views: 1,
            sampler: Sampler::default(),
            most_days: None,
            seed: 1,
        }
    }
}

impl MemoryConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// A budget that holds nothing, or a number of views outside of 1 to 64 or beside images.
    pub fn check(&self) -> Result<()> {
        if self.budget_bytes < 1 << 10 {
            let reason = format!("must be at least 1024, found {}", self.budget_bytes);
            return Err(Error::setting("memory.budget_bytes", reason));
        }
        if !(1..=MOST_VIEWS).contains(&self.views) {
            return Err(Error::setting("memory.views", format!("must be 1 to {MOST_VIEWS}, found {}", self.views)));
        }
        if self.views > 1 && self.content == Content::Images {
            let reason = "views are of latents; an image that is kept is augmented anew in each step, so leave `views` out \
                          or keep `latents`";
            return Err(Error::setting("memory.views", reason));
        }
        Ok(())
    }
}
