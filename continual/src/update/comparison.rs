//! What the gate judges by: how the versions before and after answer for the same samples.

use std::collections::HashSet;

use inarch_core::Digest;
use inarch_core::backbone::Backbone;
use inarch_core::data::Dataset;
use inarch_peft::Artifact;
use inarch_recipes::{Control, Session, Subset};

use super::assess::{probe_answers, zero_shot_accuracy};
use super::gate::{Evidence, listed};
use super::intake::Intake;
use super::run::UpdateRequest;
use crate::error::{Error, Result};
use crate::memory::{Content, Precision, Sample};

/// Refuses a probe that would judge nothing, for the version before knows none of its classes: before anything is learned.
pub(super) fn check_probes(probes: &[Dataset], known: &[String]) -> Result<()> {
    let judges = |probe: &Dataset| probe.classes.iter().any(|class| known.contains(class));
    let Some(probe) = probes.iter().find(|probe| !judges(probe)) else { return Ok(()) };
    let known: Vec<&String> = known.iter().collect();
    let reason = format!(
        "the version before knows none of its classes, so that it judges nothing; give images of {}, or of other classes by \
         `--zero-shot`",
        listed(&known)
    );
    Err(Error::setting(format!("probe `{}`", probe.name), reason))
}

/// Two versions that are asked the same.
pub(super) struct Comparison<'a> {
    old: &'a Artifact,
    new: &'a Artifact,
    /// What images are told by: their latents in this precision. An image judges once, whatever it is called; as two it would
    /// make the verdict surer than it is.
    precision: Precision,
    judged: HashSet<Digest>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(old: &'a Artifact, new: &'a Artifact, precision: Precision) -> Self {
        Self { old, new, precision, judged: HashSet::new() }
    }

    /// On samples that both can be asked about.
    pub(super) fn on_samples(
        &mut self,
        session: &Session<'_>,
        samples: &[&Sample],
        evidence: &mut Evidence,
    ) -> Result<()> {
        let before = probe_answers(session, self.old, samples)?;
        let after = probe_answers(session, self.new, samples)?;
        for ((sample, before), after) in samples.iter().zip(before).zip(after) {
            if let (Some(before), Some(after)) = (before, after)
                && self.judged.insert(Digest::of_values(&self.precision.rounded(&sample.latent)))
            {
                evidence.answers.push((sample.class.clone(), before, after));
            }
        }
        Ok(())
    }

    /// On given probes, as far as their classes are known, and zero-shot on other classes.
    pub(super) fn on_others(
        &mut self,
        backbone: &Backbone,
        request: &UpdateRequest<'_>,
        control: Control<'_>,
        evidence: &mut Evidence,
    ) -> Result<()> {
        for dataset in request.probes {
            let is_known = |class: &&String| self.old.manifest.classes.contains(class);
            let known: Vec<String> = dataset.classes.iter().filter(is_known).cloned().collect();
            let dataset = dataset.restrict(&known)?;
            let session = Session::new(backbone, &dataset, Subset::All, request.policy, control)?;
            let intake = Intake { session: &session, dataset: &dataset, time: request.time, named: Precision::F32 };
            let samples = intake.samples(&dataset.test, Precision::F32, Content::Images)?;
            let samples: Vec<&Sample> = samples.iter().collect();
            self.on_samples(&session, &samples, evidence)?;
        }
        for dataset in request.zero_shot {
            let session = Session::new(backbone, dataset, Subset::All, request.policy, control)?;
            let (before, after) = (zero_shot_accuracy(&session, self.old)?, zero_shot_accuracy(&session, self.new)?);
            evidence.zero_shot.push((dataset.name.clone(), before, after));
        }
        Ok(())
    }
}
