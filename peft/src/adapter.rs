//! Every method, in one closed enum: the only list of methods in this crate.

use burn::module::{Module, ModuleVisitor};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{
    Backbone, BlockSite, BranchSite, Entry, LinearBase, LinearSite, NormBase, Pass, Scores, Sites, Tower,
};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::coop::{Coop, CoopConfig};
use crate::error::Result;
use crate::linear_probe::{LinearProbe, LinearProbeConfig};
use crate::lora::{Lora, LoraConfig};

/// A method and its settings, as written in recipes and artifacts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum MethodConfig {
    /// One prototype for each class.
    LinearProbe(LinearProbeConfig),
    /// Learned context tokens.
    Coop(CoopConfig),
    /// Low-rank updates of linear layers.
    Lora(LoraConfig),
}

/// The names of all methods.
pub const METHODS: [&str; 3] = ["linear-probe", "coop", "lora"];

impl MethodConfig {
    /// The method of this name with its paper's settings, or `None`.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "linear-probe" => Some(Self::LinearProbe(LinearProbeConfig::default())),
            "coop" => Some(Self::Coop(CoopConfig::default())),
            "lora" => Some(Self::Lora(LoraConfig::default())),
            _ => None,
        }
    }

    /// The method's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LinearProbe(_) => "linear-probe",
            Self::Coop(_) => "coop",
            Self::Lora(_) => "lora",
        }
    }

    /// Whether the adapter has a row for each class, so that it answers for its own classes only.
    pub fn bound_to_classes(&self) -> bool {
        match self {
            Self::LinearProbe(_) => true,
            Self::Coop(_) | Self::Lora(_) => false,
        }
    }

    /// The prompt this method brings along, in place of the recipe's templates.
    ///
    /// # Errors
    /// A setting that gives no valid prompt.
    pub fn template(&self) -> Result<Option<Template>> {
        match self {
            Self::Coop(config) => Coop::template(config).map(Some),
            Self::LinearProbe(_) | Self::Lora(_) => Ok(None),
        }
    }

    /// A fresh adapter on `device`. `class_features` are the zero-shot text features, `[classes, dim]`.
    ///
    /// # Errors
    /// A setting outside its domain.
    pub fn init(
        &self,
        backbone: &Backbone,
        class_features: &Tensor<2>,
        seed: Seed,
        device: &Device,
    ) -> Result<Adapter> {
        Ok(match self {
            Self::LinearProbe(_) => Adapter::LinearProbe(LinearProbe::init(class_features.clone(), device)),
            Self::Coop(config) => Adapter::Coop(Coop::init(config, backbone, seed, device)?),
            Self::Lora(config) => Adapter::Lora(Lora::init(config, backbone, seed, device)?),
        })
    }
}

/// A trained or fresh adapter of any method.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "an adapter is moved a few times in a run, and a burn module cannot be boxed"
)]
pub enum Adapter {
    /// See [`LinearProbe`].
    LinearProbe(LinearProbe),
    /// See [`Coop`].
    Coop(Coop),
    /// See [`Lora`].
    Lora(Lora),
}

impl Adapter {
    /// The adapter as the towers see it.
    pub fn sites(&self) -> &dyn Sites {
        match self {
            Self::LinearProbe(adapter) => adapter,
            Self::Coop(adapter) => adapter,
            Self::Lora(adapter) => adapter,
        }
    }

    /// Visits the parameters under the method's own paths, without the variant's name.
    pub fn visit_parameters<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::LinearProbe(adapter) => adapter.visit(visitor),
            Self::Coop(adapter) => adapter.visit(visitor),
            Self::Lora(adapter) => adapter.visit(visitor),
        }
    }

    /// Maps the parameters under the method's own paths, without the variant's name.
    #[must_use]
    pub fn map_parameters<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::LinearProbe(adapter) => Self::LinearProbe(adapter.map(mapper)),
            Self::Coop(adapter) => Self::Coop(adapter.map(mapper)),
            Self::Lora(adapter) => Self::Lora(adapter.map(mapper)),
        }
    }
}

impl Sites for Adapter {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites().entry(tower)
    }

    fn conditions_text(&self) -> bool {
        self.sites().conditions_text()
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().tokens(at, tokens, pass)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().linear(base, input, pass)
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().norm(base, input, pass)
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().branch(at, input, output, pass)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().feature(tower, feature, pass)
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().logits(scores, pass)
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.sites().needs_all_tokens(tower)
    }

    fn folds(&self) -> bool {
        self.sites().folds()
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        self.sites().fold(at, layer)
    }
}
