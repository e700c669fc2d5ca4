//! How adapters answer for samples that were held out, and how long they take for it.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Entry, Pass, Sites as _, Tower, normalise, values};
use inarch_core::data::{Example, Source};
use inarch_peft::{Artifact, Classifier};
use inarch_recipes::Session;

use crate::error::Result;
use crate::memory::{Memory, Sample};

/// Samples that a time is measured over, at most.
const TIMED: usize = 64;

/// The class of a sample among an adapter's own.
fn label(artifact: &Artifact, sample: &Sample) -> Option<usize> {
    artifact.manifest.classes.iter().position(|class| *class == sample.class)
}

/// Whether a latent does not do, because the adapter changes what makes it.
fn needs_images(artifact: &Artifact) -> bool {
    artifact.adapter.entry(Tower::Image) < Entry::Feature
}

/// Positions of the samples that an adapter can be asked about.
fn askable(artifact: &Artifact, samples: &[&Sample]) -> Vec<usize> {
    let images = needs_images(artifact);
    let known = |at: &usize| label(artifact, samples[*at]).is_some() && (!images || samples[*at].image.is_some());
    (0..samples.len()).filter(known).collect()
}

/// An adapter that is asked about samples, with its classes' side done.
struct Judge<'a> {
    session: &'a Session<'a>,
    artifact: &'a Artifact,
    classifier: Classifier<'a>,
    /// `[classes, dim]`; `None` where it depends on the image.
    text: Option<Tensor<2>>,
}

impl<'a> Judge<'a> {
    fn new(session: &'a Session<'a>, artifact: &'a Artifact) -> Result<Self> {
        let classifier = artifact.classifier(session.backbone(), None)?;
        let sites = artifact.adapter.sites();
        let text =
            (!sites.conditions_text()).then(|| classifier.text(classifier.start(sites), sites, &Pass::evaluate()));
        Ok(Self { session, artifact, classifier, text })
    }

    /// The best class for each of some samples.
    fn answers(&self, samples: &[&Sample]) -> Result<Vec<usize>> {
        let Self { session, artifact, classifier, text } = self;
        let (backbone, pass) = (session.backbone(), Pass::evaluate());
        let features = if needs_images(artifact) {
            // In memory, and nowhere else: a probe may be encrypted.
            let example = |sample: &&Sample| {
                let Sample { id, image, .. } = sample;
                let bytes = image.as_deref().unwrap_or_default();
                Example::new(id.clone(), Source::Bytes(id.into(), bytes.into()), 0)
            };
            let examples: Vec<Example> = samples.iter().map(example).collect();
            session.adapted_features(&artifact.adapter, &examples)?.all(backbone)
        } else {
            let latents: Vec<f32> = samples.iter().flat_map(|sample| sample.latent.iter().copied()).collect();
            let latents = TensorData::new(latents, [samples.len(), backbone.spec().dim]);
            let latents = Tensor::<2>::from_data(latents, backbone.device());
            artifact.adapter.feature(Tower::Image, latents, &pass)
        };
        let sites = artifact.adapter.sites();
        let logits = match text {
            Some(text) => values(classifier.logits(&features, text, sites, &pass)),
            None => {
                let [rows, _] = features.dims();
                let of = |row: usize| {
                    let image = features.clone().narrow(0, row, 1);
                    let condition = normalise(image.clone());
                    let pass = Pass { condition: Some(&condition), ..pass };
                    let text = classifier.text(classifier.start(sites), sites, &pass);
                    values(classifier.logits(&image, &text, sites, &pass))
                };
                (0..rows).flat_map(of).collect()
            }
        };
        let best = |row: &[f32]| (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        Ok(logits.chunks_exact(classifier.classes().len()).map(best).collect())
    }
}

/// Whether an adapter answers each sample right, among its own classes; `None` for samples it cannot be asked about: of a
/// class it does not know, or with a latent only where it changes the image tower.
pub(crate) fn probe_answers(
    session: &Session<'_>,
    artifact: &Artifact,
    probe: &[&Sample],
) -> Result<Vec<Option<bool>>> {
    let mut answers = vec![None; probe.len()];
    let asked = askable(artifact, probe);
    if asked.is_empty() {
        return Ok(answers);
    }
    let samples: Vec<&Sample> = asked.iter().map(|at| probe[*at]).collect();
    for (at, best) in asked.iter().zip(Judge::new(session, artifact)?.answers(&samples)?) {
        answers[*at] = Some(label(artifact, probe[*at]) == Some(best));
    }
    Ok(answers)
}

/// Milliseconds for an image, with the classes' side done: behind the backbone, but for an adapter that changes the image tower, whose
/// images go through it. Over the first of the samples that it can be asked about; `None` where there are none.
pub(crate) fn milliseconds(session: &Session<'_>, artifact: &Artifact, samples: &[&Sample]) -> Result<Option<f64>> {
    let timed: Vec<&Sample> = askable(artifact, samples).into_iter().take(TIMED).map(|at| samples[at]).collect();
    if timed.is_empty() {
        return Ok(None);
    }
    let judge = Judge::new(session, artifact)?;
    let started = Instant::now();
    judge.answers(&timed)?;
    Ok(Some(started.elapsed().as_secs_f64() * 1e3 / timed.len() as f64))
}

/// Share of right answers among those that could be asked.
pub(crate) fn accuracy_on(session: &Session<'_>, artifact: &Artifact, probe: &Memory) -> Result<Option<f64>> {
    let samples: Vec<&Sample> = probe.samples().collect();
    let answers = probe_answers(session, artifact, &samples)?;
    let asked = answers.iter().flatten().count();
    let right = answers.iter().flatten().filter(|right| **right).count();
    Ok((asked > 0).then(|| right as f64 / asked as f64))
}

/// Accuracy on the test images of a session, among the classes of its data. An adapter that answers for its own classes only
/// leaves zero-shot as it is.
pub(crate) fn zero_shot_accuracy(session: &Session<'_>, artifact: &Artifact) -> Result<f64> {
    if artifact.manifest.method.bound_to_classes() {
        return Ok(session.zero_shot(&artifact.templates()?)?.metrics.accuracy);
    }
    Ok(session.evaluate(artifact)?.metrics.accuracy)
}
