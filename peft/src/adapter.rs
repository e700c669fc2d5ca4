//! Every method, in one closed list: the only one in this crate.

mod sites;

use std::any::Any;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use inarch_core::backbone::{Backbone, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::analytic::*;
use crate::branch::*;
use crate::compose::*;
use crate::error::Result;
use crate::feature::*;
use crate::learner::Learner;
use crate::linear::*;
use crate::logits::*;
use crate::method::{Method, Prior, Stacking, Start, Words};
use crate::norm::*;
use crate::temporal::*;
use crate::tokens::*;

/// Writes the two enums and every exhaustive match over them.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident($config:ident => $adapter:ident): $name:literal,)*) => {
        /// A method and its settings, as written in recipes and artifacts.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name")]
        pub enum MethodConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config),)*
        }

        /// The names of all methods.
        pub const METHODS: &[&str] = &[$($name),*];

        impl MethodConfig {
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

            /// The settings, where they are of this kind.
            pub fn settings<M: 'static>(&self) -> Option<&M> {
                let settings: &dyn Any = match self { $(Self::$variant(config) => config,)* };
                settings.downcast_ref()
            }

            /// See [`Method::bound_to_classes`].
            pub fn bound_to_classes(&self) -> bool {
                match self { $(Self::$variant(config) => config.bound_to_classes(),)* }
            }

            /// See [`Method::open_to_classes`].
            pub fn open_to_classes(&self) -> bool {
                match self { $(Self::$variant(config) => config.open_to_classes(),)* }
            }

            /// See [`Method::analytic`].
            pub fn analytic(&self) -> Option<&dyn Analytic> {
                match self { $(Self::$variant(config) => config.analytic(),)* }
            }

            /// See [`Method::starts_as_zero_shot`].
            pub fn starts_as_zero_shot(&self) -> bool {
                match self { $(Self::$variant(config) => config.starts_as_zero_shot(),)* }
            }

            /// See [`Method::templates`].
            ///
            /// # Errors
            /// A setting that gives no valid prompt.
            pub fn templates(&self) -> Result<Vec<Template>> {
                match self { $(Self::$variant(config) => config.templates(),)* }
            }

            /// See [`Method::prior`].
            pub fn prior(&self) -> Prior {
                match self { $(Self::$variant(config) => config.prior(),)* }
            }

            /// See [`Method::words`].
            pub fn words(&self) -> Words {
                match self { $(Self::$variant(config) => config.words(),)* }
            }

            /// See [`Method::stacking`].
            pub fn stacking(&self) -> Stacking {
                match self { $(Self::$variant(config) => config.stacking(),)* }
            }

            /// See [`Method::needs_support`].
            pub fn needs_support(&self) -> bool {
                match self { $(Self::$variant(config) => config.needs_support(),)* }
            }

            /// See [`Method::resolved`]. Where words have no features, a method that learns no classes gets trained class
            /// prototypes at its side.
            ///
            /// # Errors
            /// Something outside of the settings that cannot be read.
            pub fn resolved(&self, backbone: &Backbone) -> Result<Self> {
                let resolved = match self { $(Self::$variant(config) => Self::$variant(config.resolved(backbone)?),)* };
                Ok(match backbone.has_words() || resolved.words() != Words::Unneeded {
                    true => resolved,
                    false => Self::Stack(StackConfig::with_prototypes(resolved)),
                })
            }

            /// See [`Method::black_box`].
            pub fn black_box(&self) -> bool {
                match self { $(Self::$variant(config) => config.black_box(),)* }
            }

            /// See [`Method::either_tower`].
            pub fn either_tower(&self) -> bool {
                match self { $(Self::$variant(config) => config.either_tower(),)* }
            }

            /// See [`Method::image_blocks`].
            pub fn image_blocks(&self) -> bool {
                match self { $(Self::$variant(config) => config.image_blocks(),)* }
            }

            /// See [`Method::crosses`].
            pub fn crosses(&self) -> bool {
                match self { $(Self::$variant(config) => config.crosses(),)* }
            }

            /// See [`Method::trainable`].
            pub fn trainable(&self, backbone: &Backbone, classes: usize, images: usize) -> usize {
                match self { $(Self::$variant(config) => config.trainable(backbone, classes, images),)* }
            }

            /// A fresh adapter.
            ///
            /// # Errors
            /// A setting outside its domain, or a method that enters a tower, or needs words, for a backbone without them.
            pub fn init(&self, start: &Start<'_>) -> Result<Adapter> {
                let what = || format!("method `{}`", self.name());
                if !self.crosses() {
                    start.backbone.need_features(&what())?;
                }
                if self.either_tower() {
                    start.backbone.need_towers(&what())?;
                } else if !self.black_box() {
                    start.backbone.need(Tower::Image, &what())?;
                }
                if self.image_blocks() {
                    start.backbone.need_blocks(Tower::Image, &what())?;
                }
                if self.words() == Words::Needed {
                    start.backbone.need_words(&what())?;
                }
                Ok(match self { $(Self::$variant(config) => Adapter::$variant(config.init(start)?),)* })
            }
        }

        /// A trained or fresh adapter of any method.
        #[derive(Module, Debug)]
        #[expect(
            clippy::large_enum_variant,
            reason = "an adapter is moved a few times in a run, and a burn module cannot be boxed"
        )]
        pub enum Adapter {
            $($(#[$doc])* $variant($adapter),)*
        }

        impl Adapter {
            /// The adapter as the training loop sees it.
            pub fn learner(&self) -> &dyn Learner {
                match self { $(Self::$variant(adapter) => adapter,)* }
            }

            /// The same, to be changed at the start of a stage.
            pub fn learner_mut(&mut self) -> &mut dyn Learner {
                match self { $(Self::$variant(adapter) => adapter,)* }
            }

            /// Visits the parameters under the method's own paths, without the variant's name.
            pub fn visit_parameters<V: ModuleVisitor>(&self, visitor: &mut V) {
                match self { $(Self::$variant(adapter) => adapter.visit(visitor),)* }
            }

            /// Maps the parameters under the method's own paths, without the variant's name.
            #[must_use]
            pub fn map_parameters<M: ModuleMapper>(self, mapper: &mut M) -> Self {
                match self { $(Self::$variant(adapter) => Self::$variant(adapter.map(mapper)),)* }
            }
        }
    };
}
methods! {
    /// One prototype for each class.
    LinearProbe(LinearProbeConfig => LinearProbe): "linear-probe",
    /// Learned context tokens.
    Coop(CoopConfig => Coop): "coop",
    /// Learned context tokens that depend on the image.
    CoCoop(CoCoopConfig => CoCoop): "cocoop",
    /// Learned context tokens, held to the frozen class features.
    KgCoop(KgCoopConfig => KgCoop): "kgcoop",
    /// Learned context tokens, with gradients that agree with zero-shot.
    ProGrad(ProGradConfig => ProGrad): "prograd",
    /// Learned context tokens, held to descriptions of the classes and taught by them.
    BiomedCoop(BiomedCoopConfig => BiomedCoop): "biomedcoop",
    /// A distribution of learned contexts.
    ProDa(ProDaConfig => ProDa): "proda",
    /// Prompts made of the class's text feature.
    Tcp(TcpConfig => Tcp): "tcp",
    /// Learned tokens before the first block of the image tower.
    VptShallow(VptShallowConfig => Vpt): "vpt-shallow",
    /// Learned tokens in the blocks of the image tower.
    VptDeep(VptDeepConfig => Vpt): "vpt-deep",
    /// Image prompts from a pool, chosen by the image.
    L2p(L2pConfig => L2p): "l2p",
    /// Image prompts that are sums of components, weighted by the image.
    CodaPrompt(CodaPromptConfig => CodaPrompt): "coda-prompt",
    /// Keys and values that all images share, and some that the image chooses.
    DualPrompt(DualPromptConfig => DualPrompt): "dual-prompt",
    /// Image prompts of several experiences, chosen by the image.
    SPrompts(SPromptsConfig => SPrompts): "s-prompts",
    /// Independent prompts in both towers.
    Ivlp(IvlpConfig => Ivlp): "ivlp",
    /// Coupled prompts in both towers.
    Maple(MapleConfig => Maple): "maple",
    /// Prompts in both towers that regulate themselves.
    PromptSrc(PromptSrcConfig => PromptSrc): "promptsrc",
    /// Learned keys and values.
    PrefixTuning(PrefixTuningConfig => PrefixTuning): "prefix-tuning",
    /// Low-rank updates of linear layers.
    Lora(LoraConfig => Lora): "lora",
    /// Low-rank updates of several experiences, with trained magnitudes.
    SdLora(SdLoraConfig => SdLora): "sd-lora",
    /// Low-rank updates of direction, and trained lengths.
    Dora(DoraConfig => Dora): "dora",
    /// Trained vectors around shared random matrices.
    Vera(VeraConfig => Vera): "vera",
    /// Gains of keys, values and hidden units.
    Ia3(Ia3Config => Ia3): "ia3",
    /// Offsets of linear layers and normalisations.
    BitFit(BitFitConfig => BitFit): "bitfit",
    /// Gains and offsets of normalisations.
    LnTuning(LnTuningConfig => LnTuning): "ln-tuning",
    /// A scale and shift behind every layer.
    Ssf(SsfConfig => Ssf): "ssf",
    /// Elementwise products of low-rank matrices.
    LoHa(LoHaConfig => LoHa): "loha",
    /// Kronecker products.
    LoKr(LoKrConfig => LoKr): "lokr",
    /// Rotations of the inputs of linear layers.
    Oft(OftConfig => Oft): "oft",
    /// Rotations of the inputs as products of sparse ones.
    Boft(BoftConfig => Boft): "boft",
    /// Updates by few Fourier coefficients.
    FourierFt(FourierFtConfig => FourierFt): "fourierft",
    /// Bottlenecks behind attention and MLP.
    Houlsby(HoulsbyConfig => Behind): "houlsby",
    /// Bottlenecks behind the MLP.
    Pfeiffer(PfeifferConfig => Behind): "pfeiffer",
    /// Bottlenecks beside the MLP.
    AdaptFormer(AdaptFormerConfig => Beside): "adaptformer",
    /// Bottlenecks of Kronecker products.
    Compacter(CompacterConfig => Compacter): "compacter",
    /// Bottlenecks of which a router of an experience takes a few.
    MoeAdapters(MoeAdaptersConfig => MoeAdapters): "moe-adapters",
    /// Bottlenecks that couple the towers.
    Mma(MmaConfig => Mma): "mma",
    /// Bottlenecks with a convolution over time.
    StAdapter(StAdapterConfig => StAdapter): "st-adapter",
    /// The frozen attention over frames too, and adapters around it.
    Aim(AimConfig => Aim): "aim",
    /// Channels from the frames before and after.
    TemporalShift(TemporalShiftConfig => TemporalShift): "temporal-shift",
    /// Prompts of the image tower that know the frames of a clip.
    VitaClip(VitaClipConfig => VitaClip): "vita-clip",
    /// Learned questions to the frames of a clip.
    AttentionPool(AttentionPoolConfig => AttentionPool): "attention-pool",
    /// Learned weights of the tiles of a slide.
    GatedPool(GatedPoolConfig => GatedPool): "gated-pool",
    /// A convolution over the features of frames.
    TemporalConv(TemporalConvConfig => TemporalConv): "temporal-conv",
    /// A transformer over the features of frames.
    TemporalTransformer(TemporalTransformerConfig => TemporalTransformer): "temporal-transformer",
    /// Class prototypes held to the text features.
    Clap(ClapConfig => Clap): "clap",
    /// A bottleneck on pooled features.
    ClipAdapter(ClipAdapterConfig => ClipAdapter): "clip-adapter",
    /// A linear head trained on images and texts.
    CrossModal(CrossModalConfig => CrossModal): "cross-modal",
    /// A linear probe blended with the text features.
    LpPlusPlus(LpPlusPlusConfig => LpPlusPlus): "lp-plus-plus",
    /// A tuned image projection.
    ProLip(ProLipConfig => ProLip): "prolip",
    /// Normalisations, then a head.
    TwoStage(TwoStageConfig => TwoStage): "2sfs",
    /// A residual on each class's text feature.
    TaskRes(TaskResConfig => TaskRes): "taskres",
    /// One factor on all scores.
    Temperature(TemperatureConfig => Temperature): "temperature",
    /// A factor and an offset on the score of each class.
    VectorScaling(VectorScalingConfig => VectorScaling): "vector-scaling",
    /// A dense layer on image features.
    LinearHead(LinearHeadConfig => LinearHead): "linear-head",
    /// A cache of training images.
    TipAdapter(TipAdapterConfig => TipAdapter): "tip-adapter",
    /// A cache of training images with trained keys.
    TipAdapterF(TipAdapterFConfig => TipAdapterF): "tip-adapter-f",
    /// Class means.
    SimpleCil(SimpleCilConfig => LinearProbe): "simple-cil",
    /// A ridge over random features.
    RanPac(RanPacConfig => Ridge): "ranpac",
    /// A ridge over random features, of given weight.
    Acil(AcilConfig => Ridge): "acil",
    /// A ridge that holds on to zero-shot and leaves other classes to it.
    Rail(RailConfig => Ridge): "rail",
    /// A kernel ridge over stored features.
    RailDual(RailDualConfig => KernelRidge): "rail-dual",
    /// Distances under class covariances.
    Fecam(FecamConfig => Fecam): "fecam",
    /// Several adapters at once.
    Stack(StackConfig => Stack): "stack",
    /// A learned mixture of several adapters.
    Fusion(FusionConfig => Fusion): "fusion",
}

impl Adapter {
    /// The adapter as the towers see it.
    pub fn sites(&self) -> &dyn Sites {
        self.learner()
    }
}
