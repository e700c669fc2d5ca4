//! One row of the accuracy matrix.

use inarch_core::backbone::Frozen;
use inarch_core::data::Example;
use inarch_core::text::Template;
use inarch_peft::{Artifact, Classifier};
use inarch_recipes::{ImageFeatures, Session, score};

use crate::error::Result;
use crate::stream::{LabelSpace, Stream};

/// What one evaluation found.
pub(super) struct Row {
    /// Accuracy on each experience; `None` where the model cannot answer.
    pub(super) accuracies: Vec<Option<f64>>,
    /// For each experience that was learned, whether each test image was answered right.
    pub(super) right: Vec<Vec<bool>>,
}

impl Row {
    /// Accuracy over all test images of the experiences that were learned.
    pub(super) fn seen(&self) -> f64 {
        let all = self.right.iter().flatten();
        let count = all.clone().count().max(1);
        all.filter(|right| **right).count() as f64 / count as f64
    }
}

/// Measures an adapter after experience `step`.
pub(super) fn evaluate_step(session: &Session<'_>, artifact: &Artifact, stream: &Stream, step: usize) -> Result<Row> {
    let bound = artifact.manifest.method.bound_to_classes();
    let classifier =
        |classes: &[String]| -> Result<Classifier<'_>> { Ok(artifact.classifier(session.backbone(), Some(classes))?) };
    let known = stream.known(step);
    let mut row = Row { accuracies: vec![None; stream.experiences.len()], right: vec![Vec::new(); step + 1] };
    for (index, experience) in stream.experiences.iter().enumerate() {
        let ahead = index > step && experience.classes.iter().any(|class| *class >= known.len());
        if ahead && bound {
            continue;
        }
        let names: Vec<String> = match stream.labels {
            LabelSpace::Task => experience.classes.iter().map(|class| stream.classes[*class].clone()).collect(),
            LabelSpace::Seen if !ahead => known.to_vec(),
            LabelSpace::All if bound => known.to_vec(),
            LabelSpace::Seen | LabelSpace::All => stream.classes.clone(),
        };
        let features = session.adapted_features(&artifact.adapter, &experience.test)?;
        let logits = score(session.backbone(), &classifier(&names)?, artifact.adapter.sites(), &features);
        let right = answers(&logits, &names, &features, &experience.test, stream);
        row.accuracies[index] = Some(share(&right));
        if index <= step {
            row.right[index] = right;
        }
    }
    Ok(row)
}

/// Zero-shot on each experience, among the classes that an answer is chosen from before it has come.
pub(super) fn zero_shot(session: &Session<'_>, stream: &Stream, templates: &[Template]) -> Result<Vec<f64>> {
    let mut accuracies = Vec::new();
    for experience in &stream.experiences {
        let names: Vec<String> = match stream.labels {
            LabelSpace::Task => experience.classes.iter().map(|class| stream.classes[*class].clone()).collect(),
            LabelSpace::Seen | LabelSpace::All => stream.classes.clone(),
        };
        let classifier = Classifier::zero_shot(session.backbone(), &names, templates)?;
        let features = session.features(&experience.test)?;
        let logits = score(session.backbone(), &classifier, &Frozen, &features);
        accuracies.push(share(&answers(&logits, &names, &features, &experience.test, stream)));
    }
    Ok(accuracies)
}

fn answers(logits: &[f32], names: &[String], features: &ImageFeatures, test: &[Example], stream: &Stream) -> Vec<bool> {
    let best = |row: &[f32]| (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    let rows = logits.chunks_exact(names.len()).zip(&features.kept);
    rows.map(|(row, position)| names[best(row)] == stream.classes[test[*position].label]).collect()
}

fn share(right: &[bool]) -> f64 {
    right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64
}
