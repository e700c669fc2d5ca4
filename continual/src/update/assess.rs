//! How adapters answer for samples that were held out.

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Pass, Sites as _, Tower, values};
use inarch_core::data::{Example, Source};
use inarch_peft::Artifact;
use inarch_recipes::Session;

use crate::error::Result;
use crate::memory::{Memory, Sample};

/// Whether an adapter answers each sample right, among its own classes; `None` for samples it cannot be asked about: of a
/// class it does not know, or with a latent only where it changes the image tower.
pub(crate) fn probe_answers(
    session: &Session<'_>,
    artifact: &Artifact,
    probe: &[&Sample],
) -> Result<Vec<Option<bool>>> {
    let backbone = session.backbone();
    let classes = &artifact.manifest.classes;
    let label = |sample: &Sample| classes.iter().position(|class| *class == sample.class);
    let whole = artifact.adapter.entry(Tower::Image) < inarch_core::backbone::Entry::Feature;
    let asked: Vec<usize> =
        (0..probe.len()).filter(|at| label(probe[*at]).is_some() && (!whole || probe[*at].image.is_some())).collect();
    let mut answers = vec![None; probe.len()];
    if asked.is_empty() {
        return Ok(answers);
    }
    let features = if whole {
        // In memory, and nowhere else: a probe may be encrypted.
        let example = |at: &usize| {
            let Sample { id, image, .. } = probe[*at];
            let bytes = image.as_deref().unwrap_or_default();
            Example::new(id.clone(), Source::Bytes(id.into(), bytes.into()), 0)
        };
        let examples: Vec<Example> = asked.iter().map(example).collect();
        let features = session.adapted_features(&artifact.adapter, &examples)?;
        features.all(backbone)
    } else {
        let latents: Vec<f32> = asked.iter().flat_map(|at| probe[*at].latent.iter().copied()).collect();
        let dim = backbone.spec().dim;
        let latents = Tensor::<2>::from_data(TensorData::new(latents, [asked.len(), dim]), backbone.device());
        artifact.adapter.feature(Tower::Image, latents, &Pass::evaluate())
    };
    let best = best_classes(backbone, artifact, &features)?;
    for (at, best) in asked.iter().zip(best) {
        answers[*at] = Some(label(probe[*at]) == Some(best));
    }
    Ok(answers)
}

/// The best class of each feature, among the adapter's own.
fn best_classes(backbone: &Backbone, artifact: &Artifact, features: &Tensor<2>) -> Result<Vec<usize>> {
    let classifier = artifact.classifier(backbone, None)?;
    let sites = artifact.adapter.sites();
    let pass = Pass::evaluate();
    let [rows, _] = features.dims();
    let mut logits = Vec::new();
    if sites.conditions_text() {
        for row in 0..rows {
            let image = features.clone().narrow(0, row, 1);
            let condition = inarch_core::backbone::normalise(image.clone());
            let pass = Pass { condition: Some(&condition), ..pass };
            let text = classifier.text(classifier.start(sites), sites, &pass);
            logits.extend(values(classifier.logits(&image, &text, sites, &pass)));
        }
    } else {
        let text = classifier.text(classifier.start(sites), sites, &pass);
        logits = values(classifier.logits(features, &text, sites, &pass));
    }
    let best = |row: &[f32]| (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    Ok(logits.chunks_exact(classifier.classes().len()).map(best).collect())
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
