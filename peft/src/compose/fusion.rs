//! Fusion: several adapters beside each other, and a learned mixture of what they do (after AdapterFusion: Pfeiffer et al.,
//! 2021, arXiv 2005.00247).
//!
//! At every site (input tokens, linear layers, normalisations, branches, sublayers, features) `y = y0 + sum_i w_i (y_i - y0)`,
//! where `y0` is the frozen output, `y_i` that of member `i` alone, and `w = softmax(m)` over the members with one trained row
//! `m` `[members]` for each block of each tower, and one behind the last block (final norm, projection, feature, scores). Rows
//! start at zero: equal shares. With `sources`, trained adapters, the members are stored and stand still, and only the mixture is
//! trained; without, the members are fresh and trained with it. Count: `(image depth + text depth + 2) * members`, and the
//! members' where they are trained. Sites: those of the members.
//!
//! In training the loss is the cross entropy plus what the own loss of each trained member adds to it.
//!
//! A member runs the frozen layers that it changes for itself, so such a layer costs one more pass for each of its members.
//!
//! Unlike the paper, weights depend on the block and not on the token, so that they can be read: which adapter is used where.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use inarch_core::backbone::{
    Backbone, BlockSite, BranchSite, Entry, LinearBase, LinearChange, LinearSite, Mode, NormBase, NormSite, Pass,
    PoolBase, Scores, Sites, SublayerBase, Touched, Tower,
};
use serde::{Deserialize, Serialize};

use super::stack::{joint_loss, joint_stages, member_parameters, words_of};
use crate::adapter::{Adapter, MethodConfig};
use crate::artifact::Artifact;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::linear::LoraConfig;
use crate::method::{Method, Prior, Stacking, Start, Words};

/// More members than anyone mixes; a manifest must not nest without end.
const MOST_MEMBERS: usize = 16;

/// Settings of a fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// The members; those of `sources`, where there are any.
    pub members: Vec<MethodConfig>,
    /// Folders of trained adapters of this backbone, which stand still.
    pub sources: Vec<PathBuf>,
}

impl Default for FusionConfig {
    /// Low-rank updates of queries and keys, and of values.
    fn default() -> Self {
        let lora = |targets: &[&str]| {
            let targets = targets.iter().map(ToString::to_string).collect();
            MethodConfig::Lora(LoraConfig { targets, ..LoraConfig::default() })
        };
        Self { members: vec![lora(&["*.q_proj", "*.k_proj"]), lora(&["*.v_proj"])], sources: Vec::new() }
    }
}

impl FusionConfig {
    /// Whether these members can be mixed.
    fn check(&self) -> Result<()> {
        if let Some(bound) = self
            .members
            .iter()
            .find(|member| !self.sources.is_empty() && (member.bound_to_classes() || member.open_to_classes()))
        {
            let reason = format!("`{}` has a row for each class; stack it behind the fusion instead", bound.name());
            return Err(Error::Setting { setting: "sources", reason });
        }
        let mixable = |member: &&MethodConfig| {
            !matches!(member, MethodConfig::Stack(_) | MethodConfig::Fusion(_))
                && member.stacking() == Stacking::Anywhere
                && member.prior() == Prior::None
                && member.templates().is_ok_and(|own| own.is_empty())
        };
        let reason = match self.members.iter().find(|member| !mixable(member)) {
            _ if self.members.len() < 2 || self.members.len() > MOST_MEMBERS => {
                format!("2 to {MOST_MEMBERS} members are needed, found {}", self.members.len())
            }
            Some(member) => format!(
                "`{}` brings prompts, tokens or frozen text features of its own, or members; those cannot be mixed",
                member.name()
            ),
            None => return Ok(()),
        };
        Err(Error::Setting { setting: "members", reason })
    }

    /// The trained adapters.
    fn load(&self, backbone: &Backbone) -> Result<Vec<Artifact>> {
        self.sources.iter().map(|source| Artifact::load(source, backbone)).collect()
    }
}

/// Several adapters and their mixture.
#[derive(Module, Debug)]
pub struct Fusion {
    /// Trained with the mixture.
    members: Vec<Adapter>,
    /// Trained before.
    fixed: Vec<Adapter>,
    /// `[image depth + 1, members]`.
    image: Param<Tensor<2>>,
    /// `[text depth + 1, members]`.
    text: Param<Tensor<2>>,
}

impl Method for FusionConfig {
    type Adapter = Fusion;

    /// [`Error::Setting`] for members that cannot be mixed or that are not those of the sources.
    fn init(&self, start: &Start<'_>) -> Result<Fusion> {
        self.check()?;
        let fresh = |list: &str| {
            let member = |(index, config): (usize, &MethodConfig)| {
                let saved = start.saved.map(|saved| member_parameters(saved, list, index));
                config.init(&Start { seed: start.seed.split(index), saved: saved.as_ref(), ..*start })
            };
            self.members.iter().enumerate().map(member).collect::<Result<Vec<_>>>()
        };
        let (members, fixed) = match (self.sources.is_empty(), start.saved) {
            (true, _) => (fresh("members")?, Vec::new()),
            // The values are in the artifact; the sources may be gone.
            (false, Some(_)) => (Vec::new(), fresh("fixed")?),
            (false, None) => {
                let sources = self.load(start.backbone)?;
                if !sources.iter().map(|source| &source.manifest.method).eq(&self.members) {
                    let reason = "must be the methods of the sources; leave them out to take those".into();
                    return Err(Error::Setting { setting: "members", reason });
                }
                (Vec::new(), sources.into_iter().map(|source| source.adapter.without_autodiff()).collect())
            }
        };
        let mixture = |tower| {
            let shape = [start.backbone.depth(tower) + 1, self.members.len()];
            Param::from_tensor(Tensor::zeros(shape, start.device))
        };
        Ok(Fusion { members, fixed, image: mixture(Tower::Image), text: mixture(Tower::Text) })
    }

    fn resolved(&self, backbone: &Backbone) -> Result<Self> {
        if self.sources.is_empty() {
            return Ok(self.clone());
        }
        let members = self.load(backbone)?.into_iter().map(|source| source.manifest.method).collect();
        Ok(Self { members, ..self.clone() })
    }

    fn words(&self) -> Words {
        words_of(&self.members)
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, images: usize) -> usize {
        let rows = backbone.depth(Tower::Image) + backbone.depth(Tower::Text) + 2;
        let members: usize = match self.sources.is_empty() {
            true => self.members.iter().map(|member| member.trainable(backbone, classes, images)).sum(),
            false => 0,
        };
        rows * self.members.len() + members
    }

    fn starts_as_zero_shot(&self) -> bool {
        self.sources.is_empty() && self.members.iter().all(MethodConfig::starts_as_zero_shot)
    }

    fn bound_to_classes(&self) -> bool {
        self.members.iter().any(MethodConfig::bound_to_classes)
    }

    fn open_to_classes(&self) -> bool {
        !self.bound_to_classes() && self.members.iter().any(MethodConfig::open_to_classes)
    }

    fn needs_support(&self) -> bool {
        self.sources.is_empty() && self.members.iter().any(MethodConfig::needs_support)
    }

    fn black_box(&self) -> bool {
        self.members.iter().all(MethodConfig::black_box)
    }
}

impl Fusion {
    fn parts(&self) -> impl Iterator<Item = &Adapter> {
        self.members.iter().chain(&self.fixed)
    }

    fn learners(&self) -> impl Iterator<Item = &dyn Learner> {
        self.members.iter().map(Adapter::learner)
    }

    /// `frozen` and the weighted differences from it of the outputs of the members that act there, at a row of a tower.
    fn mix<const D: usize>(
        &self,
        tower: Tower,
        row: Option<usize>,
        frozen: Tensor<D>,
        acts: impl Fn(&Adapter) -> bool,
        output: impl Fn(&Adapter) -> Tensor<D>,
    ) -> Tensor<D> {
        let mixture = match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        };
        let [rows, members] = mixture.val().dims();
        let row = row.unwrap_or(rows - 1);
        let weights = softmax(mixture.val().narrow(0, row, 1), 1);
        let mut sum = frozen.clone();
        for (index, member) in self.parts().enumerate().take(members) {
            if acts(member) {
                let weight = weights.clone().narrow(1, index, 1).reshape([1; D]);
                sum = sum + (output(member) - frozen.clone()) * weight;
            }
        }
        sum
    }
}

/// The row of a block's mixture; `None` behind the last block.
fn row_of(at: LinearSite) -> Option<usize> {
    match at {
        // A trunk stands before the first block and shares its row.
        LinearSite::Trunk(_) => Some(0),
        LinearSite::Block(BlockSite { block, .. }, _) => Some(block),
        LinearSite::Head(_) => None,
    }
}

fn norm_row_of(at: NormSite) -> Option<usize> {
    match at {
        NormSite::Input(_) => Some(0),
        NormSite::Attention(at) | NormSite::Cross(at) | NormSite::Mlp(at) => Some(at.block),
        NormSite::Output(_) => None,
    }
}

impl Learner for Fusion {
    fn loss(&self, step: &Step<'_>) -> Loss {
        joint_loss(self.learners(), step)
    }

    fn rate(&self, parameter: &str) -> f64 {
        let mut parts = parameter.splitn(4, '.');
        let (list, index, _, own) = (parts.next(), parts.next(), parts.next(), parts.next());
        let index = index.filter(|_| list == Some("members")).and_then(|index| index.parse::<usize>().ok());
        let member = index.and_then(|index| self.members.get(index));
        member.zip(own).map_or(1.0, |(member, own)| member.learner().rate(own))
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

impl Sites for Fusion {
    fn entry(&self, tower: Tower) -> Entry {
        self.parts().map(|member| member.entry(tower)).min().unwrap_or(Entry::Never)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.parts().all(|member| member.shares_beginnings(mode))
    }

    fn queries_image(&self) -> bool {
        self.parts().any(Sites::queries_image)
    }

    fn touched(&self) -> Touched {
        self.parts().fold(Touched::NONE, |touched, member| touched.or(member.touched()))
    }

    fn linear_change(&self, at: LinearSite) -> LinearChange {
        let acts = self.parts().any(|member| !matches!(member.linear_change(at), LinearChange::None));
        if acts { LinearChange::Any } else { LinearChange::None }
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.parts().any(|member| member.needs_all_tokens(tower))
    }

    /// No member changes the number of tokens.
    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let acts = |member: &Adapter| member.touched().tokens;
        self.mix(at.tower, Some(at.block), tokens.clone(), acts, |member| member.tokens(at, tokens.clone(), pass))
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let frozen = base.forward(input.clone());
        let next = |input| base.forward(input);
        let acts = |member: &Adapter| !matches!(member.linear_change(base.at), LinearChange::None);
        self.mix(base.at.tower(), row_of(base.at), frozen, acts, |member| {
            member.linear(LinearBase::new(base.at, base.layer, &next), input.clone(), pass)
        })
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let frozen = base.forward(input.clone());
        let next = |input| base.forward(input);
        let acts = |member: &Adapter| member.touched().norm;
        self.mix(base.at.tower(), norm_row_of(base.at), frozen, acts, |member| {
            member.norm(NormBase::new(base.at, base.layer, &next), input.clone(), pass)
        })
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let BlockSite { tower, block } = at.block();
        let acts = |member: &Adapter| member.touched().branch;
        self.mix(tower, Some(block), output.clone(), acts, |member| member.branch(at, input, output.clone(), pass))
    }

    fn wraps_sublayers(&self, tower: Tower) -> bool {
        self.parts().any(|member| member.wraps_sublayers(tower))
    }

    fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let BlockSite { tower, block } = base.at().block();
        let acts = |member: &Adapter| member.wraps_sublayers(tower);
        let below = base.forward(stream.clone());
        self.mix(tower, Some(block), below, acts, |member| member.sublayer(base, stream.clone(), pass))
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
        let frozen = base.forward(frames.clone());
        let next = |frames| base.forward(frames);
        let acts = |member: &Adapter| member.entry(Tower::Image) <= Entry::Pool;
        self.mix(Tower::Image, None, frozen, acts, |member| member.pool(PoolBase::new(&next), frames.clone(), pass))
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let acts = |member: &Adapter| member.entry(tower) != Entry::Never;
        self.mix(tower, None, feature.clone(), acts, |member| member.feature(tower, feature.clone(), pass))
    }

    /// Members that act on scores enter no tower, so all of them are mixed, by the image tower's last row.
    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let Scores { feature, image, text, logits, scale, offset } = scores;
        let weights = softmax(self.image.val(), 1);
        let [rows, _] = weights.dims();
        let mut sum = logits.clone();
        for (index, member) in self.parts().enumerate() {
            let own = member.logits(Scores { feature, image, text, logits: logits.clone(), scale, offset }, pass);
            sum = sum + (own - logits.clone()) * weights.clone().narrow(0, rows - 1, 1).narrow(1, index, 1);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::FusionConfig;
    use crate::adapter::MethodConfig;

    #[test]
    fn members_that_cannot_be_mixed_are_refused() {
        let named = |names: &[&str]| FusionConfig {
            members: names.iter().filter_map(|name| MethodConfig::preset(name)).collect(),
            sources: Vec::new(),
        };
        assert!(named(&["lora", "tip-adapter", "houlsby"]).check().is_ok());
        for (names, word) in [
            (&["lora"][..], "2 to 16"),
            (&["lora", "coop"], "`coop`"),
            (&["lora", "vpt-deep"], "`vpt-deep`"),
            (&["lora", "stack"], "`stack`"),
            (&["lora", "fusion"], "`fusion`"),
            (&["lora", "prefix-tuning"], "`prefix-tuning`"),
        ] {
            let message = named(names).check().expect_err("refused").to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
