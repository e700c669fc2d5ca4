//! The golden test of an artifact: a few made-up inputs and the scores that they must give.

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Frames, Pass, Tower, normalise, values};
use inarch_core::data::ClipConfig;
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, MethodConfig};
use crate::classifier::Classifier;
use crate::error::{Error, Result};

/// What the golden test of an adapter without classes scores.
const TEXTS: [&str; 2] = ["photo", "drawing"];
/// Classes that are scored at most.
const CLASSES: usize = 8;
/// Images, clips or features that are scored.
const COUNT: usize = 2;
/// Frames of a golden clip at most.
const FRAMES: usize = 4;
const TOLERANCE: f32 = 1e-2;

/// A few inputs and the scores they must give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// How many of the artifact's classes are scored.
    pub classes: usize,
    /// What is scored; `None` in artifacts of before it was written down, whose inputs are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<ProbeInputs>,
    /// Scores (logits) of the two inputs, row-major, `[2, texts]`.
    pub logits: Vec<f32>,
    /// Allowed absolute difference.
    pub tolerance: f32,
}

/// Golden inputs, told so that any program can make them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeInputs {
    /// What their values are.
    pub formula: ProbeFormula,
    /// Their axes: `[images, 3, size, size]` of pixels, `[2, dim]` of features.
    pub shape: Vec<usize>,
    /// How many images in a row are the frames of one clip; 1 for still images.
    pub frames: usize,
    /// The class names that they are scored for, through the artifact's templates.
    pub texts: Vec<String>,
}

/// How the value at a place of golden inputs follows from the place, counted from 0 along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeFormula {
    /// `sin(2 pi (row (image + 1) + column (channel + 1)) / size)` at `[image, channel, row, column]`, in place of pixels that
    /// are prepared, mean and deviation included.
    PixelWaves,
    /// `sin(2 pi column (row + 1) / dim) + 0.1` at `[row, column]`, in place of pooled features of images.
    FeatureWaves,
}

/// What is tested: an adapter with what its scores depend on.
pub(crate) struct Subject<'a> {
    pub(crate) adapter: &'a Adapter,
    pub(crate) method: &'a MethodConfig,
    pub(crate) classes: &'a [String],
    pub(crate) templates: &'a [Template],
    pub(crate) clips: Option<&'a ClipConfig>,
}

impl SelfTest {
    /// The scores of an adapter as it is now.
    ///
    /// # Errors
    /// A class name the tokenizer refuses.
    pub(crate) fn new(backbone: &Backbone, subject: &Subject<'_>) -> Result<Self> {
        let classes = subject.classes.len().min(CLASSES);
        let inputs = ProbeInputs::new(backbone, subject, classes);
        let logits = subject.scores(backbone, &inputs)?;
        Ok(Self { classes, inputs: Some(inputs), logits, tolerance: TOLERANCE })
    }

    /// Scores the inputs again and compares.
    ///
    /// # Errors
    /// [`Error::SelfTest`] with the first score that differs; inputs that are not those of this artifact.
    pub(crate) fn check(&self, backbone: &Backbone, subject: &Subject<'_>) -> Result<()> {
        let own = ProbeInputs::new(backbone, subject, self.classes);
        if let Some(told) = self.inputs.as_ref().filter(|told| **told != own) {
            let text = |inputs: &ProbeInputs| serde_json::to_string(inputs).unwrap_or_default();
            let what = format!("inputs of the self-test of `{}`", subject.method.name());
            return Err(inarch_core::Error::mismatch(what, text(&own), text(told)).into());
        }
        let found = subject.scores(backbone, &own)?;
        let worst = self.logits.iter().zip(&found).find(|(expected, found)| {
            let difference = (*expected - *found).abs();
            difference.is_nan() || difference > self.tolerance
        });
        match worst {
            None if found.len() == self.logits.len() => Ok(()),
            pair => Err(Error::SelfTest {
                artifact: subject.method.name().into(),
                expected: pair.map_or(f32::NAN, |(expected, _)| *expected),
                found: pair.map_or(f32::NAN, |(_, found)| *found),
                tolerance: self.tolerance,
            }),
        }
    }
}

impl ProbeInputs {
    /// The inputs for the first `count` classes; features where no tower takes images, and clips of as many frames as in
    /// training, as far as a short test goes.
    fn new(backbone: &Backbone, subject: &Subject<'_>, count: usize) -> Self {
        let frames = subject.clips.map_or(1, |clips| clips.frames.clamp(1, FRAMES));
        let spec = backbone.spec();
        let (formula, shape) = match backbone.has(Tower::Image) {
            true => (ProbeFormula::PixelWaves, vec![COUNT * frames, 3, spec.image.size, spec.image.size]),
            false => (ProbeFormula::FeatureWaves, vec![COUNT, spec.dim]),
        };
        let texts = match subject.classes {
            [] => TEXTS.map(String::from).to_vec(),
            classes => classes[..count.min(classes.len())].to_vec(),
        };
        Self { formula, shape, frames, texts }
    }
}

impl Subject<'_> {
    /// Scores of the inputs, row-major.
    fn scores(&self, backbone: &Backbone, inputs: &ProbeInputs) -> Result<Vec<f32>> {
        let Self { adapter, method, classes, templates, .. } = *self;
        let classifier = Classifier::adapted(backbone, method, classes, &inputs.texts, templates)?;
        let sites = adapter.sites();
        let frames = Frames::of(inputs.frames);
        let pass = Pass { frames, ..Pass::evaluate() };
        let image = match inputs.formula {
            ProbeFormula::PixelWaves => backbone.encode_image(pixels(backbone, COUNT * frames.count())?, sites, &pass),
            ProbeFormula::FeatureWaves => sites.feature(Tower::Image, features(backbone), &pass),
        };
        let condition = normalise(image.clone());
        let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..pass };
        let text = classifier.text(classifier.start(sites), sites, &pass);
        Ok(values(classifier.logits(&image, &text, sites, &pass)))
    }
}

/// [`ProbeFormula::PixelWaves`], `[count, 3, size, size]`.
fn pixels(backbone: &Backbone, count: usize) -> Result<Tensor<4>> {
    let size = backbone.spec().image.size;
    let mut data = Vec::with_capacity(count * 3 * size * size);
    for image in 0..count {
        for channel in 0..3 {
            for row in 0..size {
                for column in 0..size {
                    let phase = (row * (image + 1) + column * (channel + 1)) as f32 / size as f32;
                    data.push((phase * std::f32::consts::TAU).sin());
                }
            }
        }
    }
    Ok(backbone.pixels(data, [count, 3, size, size])?)
}

/// [`ProbeFormula::FeatureWaves`], `[2, dim]`.
fn features(backbone: &Backbone) -> Tensor<2> {
    let dim = backbone.spec().dim;
    let value = |at: usize| ((at % dim * (1 + at / dim)) as f32 / dim as f32 * std::f32::consts::TAU).sin() + 0.1;
    let data = (0..COUNT * dim).map(value).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(data, [COUNT, dim]), backbone.device())
}
