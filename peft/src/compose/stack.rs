//! A stack: several adapters of any kind at once, trained together or each before.
//!
//! Each member sees the frozen backbone as those before it have changed it (`inarch_core::backbone::Stack`), so the first
//! is closest to the frozen layers. A member that reads frozen weights, such as DoRA, belongs first. Parameters:
//! `members.<i>.<variant>.<path of the member>`. Count: the sum over the members. It starts as zero-shot when all members
//! do.
//!
//! In training the loss is the cross entropy plus what each member's own loss adds to it.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use inarch_core::backbone::{
    self, Backbone, BlockSite, BranchSite, Entry, LinearBase, LinearChange, LinearSite, Mode, NormBase, NormSite, Pass,
    PoolBase, Scores, Sites, SublayerBase, Touched, Tower,
};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, MethodConfig};
use crate::error::{Error, Result};
use crate::feature::LinearProbeConfig;
use crate::learner::{Averaging, Learner, Loss, Step};
use crate::linear::LoraConfig;
use crate::method::{Method, Prior, Stacking, Start, Words};

/// More members than anyone stacks; a manifest must not nest without end.
const MOST_MEMBERS: usize = 16;

/// Settings of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StackConfig {
    /// The members, the one closest to the frozen layers first.
    pub members: Vec<MethodConfig>,
}

impl Default for StackConfig {
    /// Low-rank updates of the image tower, then trained class prototypes in place of the text tower.
    fn default() -> Self {
        let targets = ["image.*.q_proj", "image.*.k_proj", "image.*.v_proj"].map(String::from).to_vec();
        let lora = MethodConfig::Lora(LoraConfig { targets, ..LoraConfig::default() });
        Self { members: vec![lora, MethodConfig::LinearProbe(LinearProbeConfig::default())] }
    }
}

/// Several adapters at once.
#[derive(Module, Debug)]
pub struct Stack {
    members: Vec<Adapter>,
}

impl StackConfig {
    /// The places of the members of a kind.
    fn places(&self, kind: Stacking) -> impl Iterator<Item = usize> {
        let of_kind = move |(place, member): (usize, &MethodConfig)| (member.stacking() == kind).then_some(place);
        self.members.iter().enumerate().filter_map(of_kind)
    }

    /// Whether these members can be stacked, without looking at a backbone.
    pub(crate) fn check(&self) -> Result<()> {
        let reason = if self.members.is_empty() || self.members.len() > MOST_MEMBERS {
            format!("1 to {MOST_MEMBERS} members are needed, found {}", self.members.len())
        } else if self.members.iter().any(|member| matches!(member, MethodConfig::Stack(_))) {
            "a stack cannot be a member of a stack; list its members".into()
        } else if self.places(Stacking::AddsImageTokens).count() > 1 {
            "two members add tokens to the image tower and would overwrite each other's".into()
        } else if self
            .places(Stacking::AddsKeys)
            .any(|place| self.members[place..].iter().any(|member| member.stacking() != Stacking::AddsKeys))
        {
            "a member that adds keys and values must be behind all others".into()
        } else {
            return Ok(());
        };
        Err(Error::Setting { setting: "members", reason })
    }
}

/// What adapters together need of words: whatever one of them needs; and one that learns the classes does so for all.
pub(super) fn words_of(members: &[MethodConfig]) -> Words {
    let any = |words| members.iter().any(|member| member.words() == words);
    match (any(Words::Needed), any(Words::Replaced)) {
        (true, _) => Words::Needed,
        (false, true) => Words::Replaced,
        (false, false) => Words::Unneeded,
    }
}

impl StackConfig {
    /// A method beside trained class prototypes, for backbones whose words have no features.
    pub(crate) fn with_prototypes(method: MethodConfig) -> Self {
        let mut members = match method {
            MethodConfig::Stack(stack) => stack.members,
            other => vec![other],
        };
        // In front, since a member that adds keys must be behind all others.
        members.insert(0, MethodConfig::LinearProbe(LinearProbeConfig::default()));
        Self { members }
    }
}

impl Method for StackConfig {
    type Adapter = Stack;

    /// [`Error::Setting`] for no members, too many, a stack among them, or two that bring their own prompts or priors.
    fn init(&self, start: &Start<'_>) -> Result<Stack> {
        self.check()?;
        self.templates()?;
        let mut priors = self.members.iter().map(MethodConfig::prior).filter(|prior| *prior != Prior::None);
        if let (Some(first), Some(other)) = (priors.next(), priors.next())
            && first != other
        {
            let reason = "two members hold on to features of different templates; use them one after the other".into();
            return Err(Error::Setting { setting: "members", reason });
        }
        let member = |(index, config): (usize, &MethodConfig)| {
            let saved = start.saved.map(|saved| member_parameters(saved, "members", index));
            config.init(&Start { seed: start.seed.split(index), saved: saved.as_ref(), ..*start })
        };
        Ok(Stack { members: self.members.iter().enumerate().map(member).collect::<Result<_>>()? })
    }

    fn black_box(&self) -> bool {
        self.members.iter().all(MethodConfig::black_box)
    }

    fn words(&self) -> Words {
        words_of(&self.members)
    }

    fn crosses(&self) -> bool {
        self.members.iter().all(MethodConfig::crosses)
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, images: usize) -> usize {
        self.members.iter().map(|member| member.trainable(backbone, classes, images)).sum()
    }

    fn starts_as_zero_shot(&self) -> bool {
        self.members.iter().all(MethodConfig::starts_as_zero_shot)
    }

    fn bound_to_classes(&self) -> bool {
        self.members.iter().any(MethodConfig::bound_to_classes)
    }

    fn open_to_classes(&self) -> bool {
        !self.bound_to_classes() && self.members.iter().any(MethodConfig::open_to_classes)
    }

    /// Those of the one member that has its own.
    fn templates(&self) -> Result<Vec<Template>> {
        let mut own = Vec::new();
        for member in &self.members {
            let templates = member.templates()?;
            if !(own.is_empty() || templates.is_empty()) {
                let reason = format!("`{}` is the second member with a prompt of its own", member.name());
                return Err(Error::Setting { setting: "members", reason });
            }
            own.extend(templates);
        }
        Ok(own)
    }

    fn prior(&self) -> Prior {
        self.members.iter().map(MethodConfig::prior).find(|prior| *prior != Prior::None).unwrap_or(Prior::None)
    }

    fn needs_support(&self) -> bool {
        self.members.iter().any(MethodConfig::needs_support)
    }
}

impl MethodConfig {
    /// Whether a parameter, by its path, belongs to an adapter with rows for classes: a head, and not the representation under it.
    pub fn holds_classes(&self, parameter: &str) -> bool {
        match self {
            Self::Stack(stack) => {
                let member =
                    parameter.split('.').nth(1).and_then(|index| stack.members.get(index.parse::<usize>().ok()?));
                member.is_some_and(Self::bound_to_classes)
            }
            _ => self.bound_to_classes(),
        }
    }
}

/// The saved tensors of one member of a list, under its own paths.
pub(super) fn member_parameters(saved: &crate::Parameters, list: &str, index: usize) -> crate::Parameters {
    let prefix = format!("{list}.{index}.");
    let own = |name: &str| Some(name.strip_prefix(&prefix)?.split_once('.')?.1.to_string());
    saved.iter().filter_map(|(name, tensor)| Some((own(name)?, tensor.clone()))).collect()
}

/// Adapters of one backbone and of the same classes as one, the one closest to the frozen layers first. A stack among them is
/// opened, so that stacks never nest.
///
/// # Errors
/// [`Error::Setting`] for adapters that cannot be stacked.
pub fn stacked(parts: impl IntoIterator<Item = (MethodConfig, Adapter)>) -> Result<(MethodConfig, Adapter)> {
    let (mut configs, mut members) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            (MethodConfig::Stack(config), Adapter::Stack(stack)) => {
                configs.extend(config.members);
                members.extend(stack.members);
            }
            (config, adapter) => {
                configs.push(config);
                members.push(adapter);
            }
        }
    }
    let config = StackConfig { members: configs };
    config.check()?;
    config.templates()?;
    Ok((MethodConfig::Stack(config), Adapter::Stack(Stack { members })))
}

/// Cross entropy, and what each learner's own loss adds to it.
pub(super) fn joint_loss<'a>(learners: impl Iterator<Item = &'a dyn Learner>, step: &Step<'_>) -> Loss {
    let mut losses = learners.map(|learner| learner.loss(step));
    let Some(Loss { mut task, mut guide }) = losses.next() else { return Loss::plain(step.cross_entropy()) };
    for loss in losses {
        task = task + loss.task - step.cross_entropy();
        guide = guide.or(loss.guide);
    }
    Loss { task, guide }
}

/// Every stage of every learner: when it begins, whose it is, its number there.
pub(super) fn joint_stages<'a>(learners: impl Iterator<Item = &'a dyn Learner>) -> Vec<(f64, usize, usize)> {
    let of_member = |(member, learner): (usize, &dyn Learner)| {
        let stages = learner.stages();
        (0..stages.len()).map(move |stage| (stages[stage], member, stage + 1)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = learners.enumerate().flat_map(of_member).collect();
    all.sort_by(|left, right| left.0.total_cmp(&right.0));
    all
}

impl Stack {
    /// The members, the one closest to the frozen layers first.
    pub fn members(&self) -> &[Adapter] {
        &self.members
    }

    fn sites(&self) -> backbone::Stack<'_> {
        backbone::Stack(self.members.iter().map(Adapter::sites).collect())
    }

    fn learners(&self) -> impl Iterator<Item = &dyn Learner> {
        self.members.iter().map(Adapter::learner)
    }
}

impl Learner for Stack {
    fn loss(&self, step: &Step<'_>) -> Loss {
        joint_loss(self.learners(), step)
    }

    fn needs_frozen_image(&self) -> bool {
        self.learners().any(Learner::needs_frozen_image)
    }

    fn rate(&self, parameter: &str) -> f64 {
        let mut parts = parameter.splitn(4, '.');
        let (_, index, _, own) = (parts.next(), parts.next(), parts.next(), parts.next());
        let member = index.and_then(|index| self.members.get(index.parse::<usize>().ok()?));
        member.zip(own).map_or(1.0, |(member, own)| member.learner().rate(own))
    }

    fn averaging(&self) -> Option<Averaging> {
        self.learners().find_map(Learner::averaging)
    }

    fn stages(&self) -> Vec<f64> {
        joint_stages(self.learners()).into_iter().map(|(begins, _, _)| begins).collect()
    }

    fn enter_stage(&mut self, stage: usize) {
        if let Some((_, member, own)) = joint_stages(self.learners()).get(stage - 1) {
            self.members[*member].learner_mut().enter_stage(*own);
        }
    }
}

impl Sites for Stack {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites().entry(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.sites().shares_beginnings(mode)
    }

    fn conditions_text(&self) -> bool {
        self.sites().conditions_text()
    }

    fn queries_image(&self) -> bool {
        self.sites().queries_image()
    }

    fn touched(&self) -> Touched {
        self.sites().touched()
    }

    fn linear_change(&self, at: LinearSite) -> LinearChange {
        self.sites().linear_change(at)
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.sites().needs_all_tokens(tower)
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

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        self.sites().wraps_sublayers(tower)
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.sites().sublayer(base, stream, pass)
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().pool(base, frames, pass)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().feature(tower, feature, pass)
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.sites().logits(scores, pass)
    }

    fn folds(&self) -> bool {
        self.sites().folds()
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        self.sites().fold(at, layer)
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        self.sites().fold_norm(at, layer)
    }
}
