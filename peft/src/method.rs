//! What every method states about itself: its settings, what it needs to begin, and what it begins as.

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::Backbone;
use inarch_core::text::Template;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::analytic::Analytic;
use crate::error::Result;
use crate::learner::Learner;
use crate::parameters::Parameters;

/// The settings of a method, which is all that a recipe and an artifact say about it.
///
/// `Default` gives the paper's settings. An implementation is one file; one line in `adapter.rs` makes it known.
pub trait Method: Clone + Debug + PartialEq + Default + Serialize + DeserializeOwned {
    /// What it trains.
    type Adapter: Learner + Module;

    /// A fresh adapter.
    ///
    /// # Errors
    /// A setting outside its domain, named.
    fn init(&self, start: &Start<'_>) -> Result<Self::Adapter>;

    /// Number of trained values by the documented formula, for so many classes and training images.
    fn trainable(&self, backbone: &Backbone, classes: usize, images: usize) -> usize;

    /// Whether a fresh adapter scores as zero-shot with the method's templates.
    fn starts_as_zero_shot(&self) -> bool {
        true
    }

    /// Whether the adapter has a row for each class, so that it answers for its own classes only.
    fn bound_to_classes(&self) -> bool {
        false
    }

    /// Whether the adapter has a row for each of its classes and answers for any other one too; those are marked by
    /// [`Pass::OTHER`](inarch_core::backbone::Pass::OTHER).
    fn open_to_classes(&self) -> bool {
        false
    }

    /// The method as a function of sums over samples, if it is one.
    fn analytic(&self) -> Option<&dyn Analytic> {
        None
    }

    /// The prompts that this method brings along, in place of the run's templates; empty for none.
    ///
    /// # Errors
    /// A setting that gives no valid prompt.
    fn templates(&self) -> Result<Vec<Template>> {
        Ok(Vec::new())
    }

    /// Whether it needs [`Pass::prior`](inarch_core::backbone::Pass::prior), and from which templates.
    fn prior(&self) -> Prior {
        Prior::None
    }

    /// What it needs of words: whether it works on an image tower alone, whose classes have names and no text features.
    fn words(&self) -> Words {
        Words::Needed
    }

    /// Where it can stand among other adapters.
    fn stacking(&self) -> Stacking {
        Stacking::Anywhere
    }

    /// The same settings with everything that they refer to and that is not in them, before a run: what is recorded.
    ///
    /// # Errors
    /// Something that cannot be read.
    fn resolved(&self, backbone: &Backbone) -> Result<Self> {
        let _ = backbone;
        Ok(self.clone())
    }

    /// Whether features alone suffice: it enters at pooled features or at scores, so that a closed model will do.
    fn black_box(&self) -> bool {
        false
    }

    /// Whether it works beside a text tower alone too: it changes layers, in whichever tower has them.
    fn either_tower(&self) -> bool {
        false
    }

    /// Whether it stands in the transformer blocks of the image tower, so that a convolutional tower will not do.
    fn image_blocks(&self) -> bool {
        false
    }

    /// Whether it works where images and texts meet before there is a score: it changes layers, tokens or scores, and asks for no
    /// feature of either.
    fn crosses(&self) -> bool {
        false
    }

    /// Whether [`init`](Self::init) learns from the training images ([`Start::support`]).
    fn needs_support(&self) -> bool {
        false
    }
}

/// What a method needs of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// A text tower, or text features of the classes.
    Needed,
    /// Nothing: beside a method that learns the classes it works on an image tower alone.
    Unneeded,
    /// Nothing, because it learns the classes itself.
    Replaced,
}

/// Where a method can stand in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacking {
    /// Beside any other.
    Anywhere,
    /// It adds tokens at the end of the image tower's stream and replaces the last ones later: one of a stack at most.
    AddsImageTokens,
    /// It returns more keys and values than tokens: those that change keys and values must come before it.
    AddsKeys,
}

/// Which frozen text features a method holds on to: for each class the mean over templates of features that are not
/// normalised, `[classes, dim]`, where nothing else is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Prior {
    /// None.
    None,
    /// Those of the run's templates.
    Run,
    /// Those of its own templates.
    Own(Vec<Template>),
    /// Those of each of the run's templates, `[classes, templates, dim]`, normalised, and no mean.
    Each,
}

/// What a fresh adapter is made from.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The frozen backbone.
    pub backbone: &'a Backbone,
    /// Zero-shot text features of the classes, `[classes, dim]`.
    pub class_features: &'a Tensor<2>,
    /// Decides every draw.
    pub seed: Seed,
    /// Where the adapter lives; an autodiff device when it is going to be trained.
    pub device: &'a Device,
    /// The training images; given in a fit to methods that ask for them, never when an artifact is read.
    pub support: Option<&'a Support<'a>>,
    /// The tensors that are going to replace the fresh ones, when an artifact is read: their shapes tell what the
    /// settings do not, such as the number of stored keys.
    pub saved: Option<&'a Parameters>,
}

impl<'a> Start<'a> {
    /// A start without data.
    pub fn new(backbone: &'a Backbone, class_features: &'a Tensor<2>, seed: Seed, device: &'a Device) -> Self {
        Self { backbone, class_features, seed, device, support: None, saved: None }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.class_features.dims()[0]
    }

    /// The shape of a saved tensor, when an artifact is read.
    pub fn saved_shape(&self, name: &str) -> Option<&'a [usize]> {
        Some(self.saved?.get(name)?.shape.as_slice())
    }
}

/// Visits the pixels `[images, 3, size, size]` of the training images in batches.
pub type VisitPixels<'a> = dyn Fn(&mut dyn FnMut(Tensor<4>)) -> inarch_core::Result<()> + 'a;

/// The training images as a method's initialisation sees them.
pub struct Support<'a> {
    /// Frozen image features `[images * views, dim]`, image-major, not normalised.
    pub features: Tensor<2>,
    /// Augmented views of each image.
    pub views: usize,
    /// The class of each image.
    pub labels: &'a [usize],
    /// The images themselves; absent for a data set of features.
    pub pixels: Option<&'a VisitPixels<'a>>,
}

impl Support<'_> {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// The class of each row of [`features`](Self::features).
    pub fn row_labels(&self) -> Vec<usize> {
        self.labels.iter().flat_map(|label| std::iter::repeat_n(*label, self.views)).collect()
    }
}
