//! Scores and metrics of an adapter over some examples.

use std::collections::HashMap;

use inarch_core::backbone::{Backbone, Pass, Sites, Tower, normalise, values};
use inarch_core::data::{Dataset, Example};
use inarch_core::image::OnBadImage;
use inarch_core::metrics::{Detail, DetailConfig, Metrics, confusion, likeliest_factor, predictions};
use inarch_peft::Classifier;
use serde::Serialize;

use crate::control::Control;
use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::Result;
use crate::multi_label;

/// Examples that are encoded and scored together where an image is all its tokens.
const PART: usize = 128;

/// What an evaluation found.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Accuracy, calibration and their kin; over decisions class by class where images have several labels.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Ranking, balance and abstention, where they were asked for.
    #[serde(flatten)]
    pub detail: Option<Detail>,
    /// Class names, in the order of `per_class` and of both axes of `confusion`.
    pub classes: Vec<String>,
    /// Counts, `[true class][predicted class]`; empty where images have several labels.
    pub confusion: Vec<Vec<usize>>,
    /// The predicted class of each example, by its position in the list that was evaluated.
    #[serde(skip)]
    pub predicted: Vec<(usize, usize)>,
    /// Examples left out because their image could not be read.
    pub skipped: Vec<String>,
}

/// Scores `[rows, classes]`, row-major, of image features under a classifier.
pub fn score(
    backbone: &Backbone,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    features: &ImageFeatures,
) -> Vec<f32> {
    let pass = Pass::evaluate();
    let start = classifier.start(sites);
    if !sites.conditions_text() {
        let text = classifier.text(start, sites, &pass);
        return values(classifier.logits(&features.all(backbone), &text, sites, &pass));
    }
    // A prompt that depends on the image costs one run of the text tower for each image.
    let mut logits = Vec::new();
    for example in 0..features.kept.len() {
        let image = features.gather([(example, 0)].into_iter(), backbone);
        let condition = normalise(image.clone());
        let pass = Pass { condition: Some(&condition), ..pass };
        let text = classifier.text(start.clone(), sites, &pass);
        logits.extend(values(classifier.logits(&image, &text, sites, &pass)));
    }
    logits
}

/// Evaluates features that are already there.
///
/// # Errors
/// No example.
pub fn evaluate_features(
    backbone: &Backbone,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    features: &ImageFeatures,
    examples: &[Example],
) -> Result<Evaluation> {
    of_scores(&Scored::new(backbone, classifier, sites, features), classifier, examples, None)
}

/// Scores of some examples.
pub(crate) struct Scored {
    /// `[kept, classes]`, row-major.
    logits: Vec<f32>,
    /// The examples that are in, as positions in the list that was given.
    kept: Vec<usize>,
    /// Those whose image could not be read.
    skipped: Vec<String>,
}

impl Scored {
    pub(crate) fn new(
        backbone: &Backbone,
        classifier: &Classifier<'_>,
        sites: &dyn Sites,
        features: &ImageFeatures,
    ) -> Self {
        let skipped = features.bad.iter().map(|bad| bad.path.display().to_string()).collect();
        Self { logits: score(backbone, classifier, sites, features), kept: features.kept.clone(), skipped }
    }

    /// The factor on the scores under which the labels of the examples are likeliest.
    pub(crate) fn likeliest_factor(&self, classes: usize, examples: &[Example]) -> Result<f64> {
        let labels: Vec<usize> = self.kept.iter().map(|position| examples[*position].label).collect();
        Ok(likeliest_factor(&self.logits, classes, &labels)?)
    }

    /// Adds those of the examples from `first` on.
    fn extend(&mut self, first: usize, other: Self) {
        self.logits.extend(other.logits);
        self.kept.extend(other.kept.into_iter().map(|position| first + position));
        self.skipped.extend(other.skipped);
    }
}

/// Encodes and scores examples; where an image is all its tokens a part of them at a time, since those of all would fill the
/// memory.
pub(crate) fn scored(
    backbone: &Backbone,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    dataset: &Dataset,
    examples: &[Example],
    (policy, control): (OnBadImage, Control<'_>),
) -> Result<Scored> {
    let part = if backbone.crosses() { PART } else { examples.len().max(1) };
    let mut all = Scored { logits: Vec::new(), kept: Vec::new(), skipped: Vec::new() };
    for (index, examples) in examples.chunks(part).enumerate() {
        let features = encode_images(backbone, sites, dataset, examples, &Views::Centre, policy, control)?;
        all.extend(index * part, Scored::new(backbone, classifier, sites, &features));
    }
    Ok(all)
}

/// Measures scores.
pub(crate) fn of_scores(
    scored: &Scored,
    classifier: &Classifier<'_>,
    examples: &[Example],
    detail: Option<DetailConfig>,
) -> Result<Evaluation> {
    let Scored { logits, kept, skipped } = scored;
    let labels: Vec<usize> = kept.iter().map(|position| examples[*position].label).collect();
    let classes = classifier.classes().to_vec();
    let predicted = predictions(logits, classes.len(), &labels)?;
    let groups = groups(kept.iter().map(|position| &examples[*position]));
    let detail = detail.map(|config| Detail::from_logits(logits, classes.len(), &labels, Some(&groups), config));
    let detail = detail.transpose()?;
    Ok(Evaluation {
        metrics: Metrics::from_logits(logits, classes.len(), &labels)?,
        detail,
        confusion: confusion(&predicted, &labels, classes.len()),
        classes,
        predicted: kept.iter().copied().zip(predicted).collect(),
        skipped: skipped.clone(),
    })
}

/// The number of each example's group, by which the intervals of a report draw.
pub(crate) fn groups<'a>(examples: impl Iterator<Item = &'a Example>) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let number = |example: &'a Example| {
        let next = numbers.len();
        *numbers.entry(example.unit()).or_insert(next)
    };
    examples.map(number).collect()
}

/// Measures scores of images with any number of labels; `offsets` are the scores at which classes are as likely as not.
pub(crate) fn evaluate_labels(
    scored: &Scored,
    classifier: &Classifier<'_>,
    examples: &[Example],
    (offsets, detail): (Option<&[f32]>, DetailConfig),
) -> Result<Evaluation> {
    let Scored { logits, kept, skipped } = scored;
    let kept: Vec<&Example> = kept.iter().map(|position| &examples[*position]).collect();
    let classes = classifier.classes().to_vec();
    let (metrics, detail) = multi_label::measure(logits, classes.len(), &kept, offsets, detail)?;
    let (confusion, predicted) = (Vec::new(), Vec::new());
    Ok(Evaluation { metrics, detail: Some(detail), confusion, classes, predicted, skipped: skipped.clone() })
}

/// Encodes and evaluates examples.
///
/// # Errors
/// As [`encode_images`] and [`evaluate_features`].
pub fn evaluate(
    backbone: &Backbone,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    dataset: &Dataset,
    examples: &[Example],
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<Evaluation> {
    let scored = scored(backbone, classifier, sites, dataset, examples, (policy, control))?;
    of_scores(&scored, classifier, examples, None)
}

/// Whether the image features of an adapter are those of the frozen backbone, short of its feature site.
pub(crate) fn shares_image_features(sites: &dyn Sites) -> bool {
    sites.entry(Tower::Image) >= inarch_core::backbone::Entry::Feature
}
