//! A fit as data.

use std::path::PathBuf;

use inarch_core::Digest;
use inarch_core::backbone::Products;
use inarch_core::data::{ClipConfig, DataOptions};
use inarch_core::image::{Augment, Frame, OnBadImage, Window};
use inarch_core::text::{Template, TemplateSet};
use inarch_peft::{MANIFEST_FILE, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::balance::Imbalance;
use crate::contrastive::PairLoss;
use crate::error::Result;
use crate::optimizer::OptimizerConfig;
use crate::recipe_paths::is_descriptions;
use crate::schedule::{Budget, Schedule};
use crate::settings::fault;

/// Everything that decides a trained adapter, beside the bytes of backbone and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The backbone: a folder, a file or a name.
    #[serde(default)]
    pub backbone: Option<String>,
    /// The data set.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// The folder that the paths of a split file are relative to.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// A pattern over file names; what its group matches is never in two splits ([`DataOptions::group_by`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// Which slices of volumes and frames of DICOM files are images; the middle one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<Frame>,
    /// The window that grey values are shown in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Seed of all draws.
    #[serde(default = "one")]
    pub seed: u64,
    /// Training images of each class; all when absent.
    #[serde(default)]
    pub shots: Option<usize>,
    /// Which classes take part.
    #[serde(default)]
    pub subset: Subset,
    /// How clips are read; absent for still images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<ClipConfig>,
    /// A named set of templates, or templates.
    pub templates: Templates,
    /// Augmented views of each training image that are fixed for the run; 0 draws a fresh one each time. Where frozen features are
    /// computed once, a fixed one for each epoch stands for these: 32 at most, and no more than 1 GiB holds, but one.
    pub views: usize,
    /// What to do about an image that cannot be read.
    #[serde(default)]
    pub on_bad_image: BadImagePolicy,
    /// How training images are varied.
    #[serde(default = "Augment::clip")]
    pub augment: Augment,
    /// The method and its settings.
    pub method: MethodConfig,
    /// The optimisation.
    pub train: TrainConfig,
}

fn one() -> u64 {
    1
}

/// Which classes take part in a run (the base-to-new protocol of CoCoOp: Zhou et al., 2022, arXiv 2203.05557).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subset {
    /// All classes.
    #[default]
    All,
    /// The first half, rounded up.
    Base,
    /// The second half.
    New,
}

/// What to do about an image that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadImagePolicy {
    /// Stop and name it.
    #[default]
    Fail,
    /// Leave it out and list it in the report.
    Skip,
}

impl From<BadImagePolicy> for OnBadImage {
    fn from(policy: BadImagePolicy) -> Self {
        match policy {
            BadImagePolicy::Fail => Self::Fail,
            BadImagePolicy::Skip => Self::Skip,
        }
    }
}

/// Templates by name or in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// A set's name, one template, or a `.json` file of descriptions ([`TemplateSet::descriptions`]).
    Named(String),
    /// Templates.
    List(Vec<Template>),
}

impl Templates {
    /// The templates themselves.
    ///
    /// # Errors
    /// An unknown name.
    pub fn resolve(&self) -> Result<Vec<Template>> {
        match self {
            Self::Named(name) if is_descriptions(name) => {
                Ok(TemplateSet::descriptions(name.as_ref())?.templates().to_vec())
            }
            Self::Named(name) => Ok(TemplateSet::resolve(name)?.templates().to_vec()),
            Self::List(templates) => Ok(templates.clone()),
        }
    }
}

/// The optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// How long.
    pub budget: Budget,
    /// Images in a step.
    pub batch: usize,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// In what the frozen layers of the towers multiply ([`Products`]); loss and steps are in single precision.
    #[serde(default, skip_serializing_if = "TrainPrecision::is_full")]
    pub precision: TrainPrecision,
    /// What is done about classes of unequal size.
    #[serde(default, skip_serializing_if = "Imbalance::is_none")]
    pub imbalance: Imbalance,
    /// How image-text pairs are judged, where they are trained on; when absent, by the loss that the backbone was trained with:
    /// `sigmoid` where its scores have an offset (SigLIP), else `softmax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_loss: Option<PairLoss>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// In what the frozen layers of the towers multiply in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainPrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats of 8 significant bits, for devices that are fast in them.
    Bf16,
}

impl TrainPrecision {
    fn is_full(&self) -> bool {
        *self == Self::F32
    }
}

impl From<TrainPrecision> for Products {
    fn from(precision: TrainPrecision) -> Self {
        match precision {
            TrainPrecision::F32 => Self::Full,
            TrainPrecision::Bf16 => Self::Bf16,
        }
    }
}

impl Recipe {
    /// Steps of a run over `images` training images, and of one epoch.
    pub(crate) fn steps(&self, images: usize) -> (usize, usize) {
        let steps_per_epoch = (images / self.train.batch).max(1);
        (self.train.budget.steps(self.shots.unwrap_or(16), steps_per_epoch), steps_per_epoch)
    }

    /// How its data set is read.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            root: self.root.clone(),
            group_by: self.group_by.clone(),
            slices: self.slices.unwrap_or_default(),
            clips: self.clips.clone(),
            window: self.window,
            ..DataOptions::default()
        }
    }

    /// Checks what no type says.
    pub(crate) fn check(&self) -> Result<()> {
        let train = &self.train;
        if train.batch == 0 {
            return Err(fault("train.batch", "must be at least 1".into()));
        }
        let optimizer = train.optimizer.check();
        optimizer.map_err(|(setting, reason)| fault(&format!("train.optimizer.{setting}"), reason))?;
        if self.shots == Some(0) {
            return Err(fault("shots", "must be at least 1; leave it out to train on all images".into()));
        }
        if self.views > 1000 {
            return Err(fault("views", format!("must be at most 1000, found {}", self.views)));
        }
        train.imbalance.check().map_err(|reason| fault("train.imbalance", reason))?;
        self.augment.validate()?;
        self.clips.as_ref().map_or(Ok(()), ClipConfig::check)?;
        Ok(())
    }

    /// What tells this recipe from others, wherever backbone and data lie: it in full, with what is in the files that it names.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn identity(&self) -> Result<String> {
        let mut recipe = Self { backbone: None, data: None, root: None, ..self.clone() };
        if matches!(&recipe.templates, Templates::Named(name) if is_descriptions(name)) {
            recipe.templates = Templates::List(recipe.templates.resolve()?);
        }
        let mut text = recipe.to_toml();
        if let MethodConfig::Fusion(fusion) = &recipe.method {
            for source in &fusion.sources {
                text.push_str(Digest::of_file(&source.join(MANIFEST_FILE))?.hex());
            }
        }
        Ok(text)
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}
