//! Every method of test-time adaptation, in one closed list: the only one.

use std::collections::BTreeMap;

use inarch_core::backbone::{Backbone, Entry, StateDict};
use inarch_core::image::ViewRecipe;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::boost_adapter::BoostAdapterConfig;
use super::diff_tpt::DiffTptConfig;
use super::dmn::{DmnConfig, DmnWeakConfig};
use super::dpe::DpeConfig;
use super::episode::{Answer, Episode};
use super::mta::MtaConfig;
use super::onzeta::OnZetaConfig;
use super::rlcf::RlcfConfig;
use super::sar::SarConfig;
use super::swap_prompt::SwapPromptConfig;
use super::tda::TdaConfig;
use super::tent::TentConfig;
use super::tps::TpsConfig;
use super::tpt::{CTptConfig, TptConfig};
use super::ttl::TtlConfig;
use super::world::World;
use super::zero::ZeroConfig;
use crate::error::Result;

/// What a method asks of those who prepare its images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Views of an image, when the user does not say; 1 is the centre view alone.
    pub views: usize,
    /// How random views are made, when the user does not say.
    pub recipe: ViewRecipe,
    /// Where it enters the image tower; [`Entry::Never`] for methods that only read features.
    pub entry: Entry,
    /// Whether it keeps a state from image to image.
    pub online: bool,
    /// Whether it holds on to class features, which must then not depend on the image.
    pub fixed_text: bool,
    /// Whether it runs the text tower itself.
    pub text_tower: bool,
    /// The share of surest views that a second backbone judges.
    pub judge: Option<f64>,
}

impl Needs {
    /// Features of the centre view.
    pub(super) const CENTRE: Self = Self {
        views: 1,
        recipe: ViewRecipe::Augmix,
        entry: Entry::Never,
        online: false,
        fixed_text: false,
        text_tower: false,
        judge: None,
    };
    /// Features of the centre view and 63 random ones.
    pub(super) const VIEWS: Self = Self { views: 64, ..Self::CENTRE };
}

/// What a method remembers, to be written and read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MethodState {
    /// Tensors by name.
    pub tensors: StateDict,
    /// Everything else.
    pub values: BTreeMap<String, Value>,
}

/// A method at work.
pub trait Adapt: Send {
    /// Answers for some images, in their order. A method with a state goes through them one after the other, or, where
    /// its paper does, in one step for all.
    ///
    /// # Errors
    /// A model, an adapter or an image that the method cannot work with.
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>>;

    /// Forgets everything.
    fn reset(&mut self) {}

    /// Everything it remembers.
    fn state(&self) -> MethodState {
        MethodState::default()
    }

    /// Goes on from what it remembered.
    ///
    /// # Errors
    /// What does not fit, in words.
    fn restore(&mut self, state: MethodState) -> std::result::Result<(), String> {
        let _ = state;
        Ok(())
    }

    /// Bytes of its memory now.
    fn bytes(&self) -> usize {
        0
    }
}

/// The settings of a method.
pub(super) trait MethodSettings: Default {
    /// What it asks for.
    fn needs(&self, backbone: Option<&Backbone>) -> Needs;

    /// Checks every setting; `Err` names it.
    fn check(&self) -> std::result::Result<(), String>;

    /// Most bytes that its memory can come to hold for so many classes and features of this width.
    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        let _ = (classes, dim);
        0
    }

    /// The method at the beginning of a stream of `length` images, where that is known.
    fn begin(&self, world: &World<'_>, length: Option<usize>) -> Result<Box<dyn Adapt>>;
}

/// Writes the enum and every exhaustive match over it.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident($config:ident): $name:literal,)*) => {
        /// A method and its settings.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name")]
        pub enum TestTimeMethod {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config),)*
        }

        /// The names of all methods of test-time adaptation.
        pub const TEST_TIME_METHODS: &[&str] = &[$($name),*];

        impl TestTimeMethod {
            /// The method of this name with its paper's settings, or `None`.
            pub fn preset(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant($config::default())),)*
                    _ => None,
                }
            }

            /// The method's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// What it asks of those who prepare its images.
            pub fn needs(&self, backbone: Option<&Backbone>) -> Needs {
                match self { $(Self::$variant(config) => config.needs(backbone),)* }
            }

            /// Checks every setting; `Err` names it.
            pub(super) fn check(&self) -> std::result::Result<(), String> {
                match self { $(Self::$variant(config) => config.check(),)* }
            }

            /// Most bytes that its memory can come to hold.
            pub fn most_bytes(&self, classes: usize, dim: usize) -> usize {
                match self { $(Self::$variant(config) => config.most_bytes(classes, dim),)* }
            }

            /// The method at the beginning of a stream of `length` images, where that is known.
            ///
            /// # Errors
            /// A world without what it needs.
            pub fn begin(&self, world: &World<'_>, length: Option<usize>) -> Result<Box<dyn Adapt>> {
                match self { $(Self::$variant(config) => config.begin(world, length),)* }
            }
        }
    };
}
methods! {
    /// The prompt's context is adapted to each image.
    Tpt(TptConfig): "tpt",
    /// The same, with texts kept apart for calibration.
    CTpt(CTptConfig): "c-tpt",
    /// The same, with views from files, such as those of a generator.
    DiffTpt(DiffTptConfig): "diff-tpt",
    /// The prompt is adapted by the reward of a second backbone.
    Rlcf(RlcfConfig): "rlcf",
    /// Low-rank updates of the image tower are adapted to each image.
    Ttl(TtlConfig): "ttl",
    /// A shift of each class feature is adapted to each image.
    Tps(TpsConfig): "tps",
    /// The mode of the views' features.
    Mta(MtaConfig): "mta",
    /// A vote of the surest views.
    Zero(ZeroConfig): "zero",
    /// Caches of sure and unsure images.
    Tda(TdaConfig): "tda",
    /// A memory of sure images, read by attention, with views.
    Dmn(DmnConfig): "dmn",
    /// The same from centre views alone.
    DmnWeak(DmnWeakConfig): "dmn-weak",
    /// A cache joined by the image's own sure views.
    BoostAdapter(BoostAdapterConfig): "boost-adapter",
    /// Prototypes of both sides that evolve.
    Dpe(DpeConfig): "dpe",
    /// Online labels and class vectors.
    OnZeta(OnZetaConfig): "onzeta",
    /// Normalisations follow the entropy.
    Tent(TentConfig): "tent",
    /// The same, towards flat minima, on reliable images.
    Sar(SarConfig): "sar",
    /// A prompt that learns from its own average.
    SwapPrompt(SwapPromptConfig): "swap-prompt",
}

/// `Err` with the setting's name unless the value is in `range`.
pub(super) fn within(name: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> std::result::Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("`{name}` must be {} to {}, found {value}", range.start(), range.end()))
}
