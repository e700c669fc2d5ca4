//! The backbone as everyone else sees it: a value that never changes.

mod fold;
mod needs;
mod passes;
mod words;

use std::path::Path;

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::class_head::ClassHead;
use super::dual_encoder::DualEncoder;
use super::embeddings::{Embeddings, TextFeatures};
use super::pass::Pass;
use super::place::{BlockSite, Entry, LinearSite, NormSite, Tower};
use super::site::{Scores, Sites};
use super::spec::BackboneSpec;
use super::state_dict::{self, StateDict, values};
use super::trunk::TrunkSpec;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Preprocess;
use crate::text::Tokenizer;

const NO_TOWERS: &str = "a backbone with towers";

/// The factor between cosine similarity and logit for a single tower, whose classes are learned vectors in its own space.
const LONE_SCALE: f32 = 30.0;

/// A frozen dual encoder, or one of its towers, with everything that belongs to it: weights, tokenizer, preprocessing, identity.
///
/// Share it as `Arc<Backbone>`. No method takes `&mut self`; adapters are passed in.
#[derive(Debug)]
pub struct Backbone {
    name: String,
    spec: BackboneSpec,
    source: Source,
    logit_scale: f32,
    logit_bias: Option<f32>,
    head: Option<ClassHead>,
    tokenizer: Tokenizer,
    preprocess: Preprocess,
    digest: Digest,
    device: Device,
}

/// Where features come from.
#[derive(Debug)]
enum Source {
    /// From its towers.
    Towers(Box<DualEncoder>),
    /// From elsewhere.
    Embeddings(Box<Embeddings>),
}

impl Backbone {
    /// A backbone without towers: text features are given here, image features by data sets of features.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a text that is there twice; [`Error::Mismatch`] when sizes disagree.
    pub fn from_text_features(
        name: impl Into<String>,
        features: &TextFeatures,
        path: &Path,
        device: &Device,
    ) -> Result<Self> {
        let TextFeatures { texts, values, dim, logit_scale, .. } = features;
        if texts.is_empty() || *dim == 0 || Some(values.len()) != texts.len().checked_mul(*dim) {
            let expected = format!("one row of {dim} values for each of {} texts", texts.len());
            return Err(Error::mismatch(format!("text features of `{}`", path.display()), expected, values.len()));
        }
        if !(logit_scale.is_finite() && *logit_scale > 0.0) {
            return Err(Error::invalid("logit_scale", format!("must be above 0, found {logit_scale}")));
        }
        let tokenizer = Tokenizer::of_texts(texts, path)?;
        let embeddings = Embeddings::new(features, device);
        Ok(Self {
            name: name.into(),
            spec: BackboneSpec::without_towers(*dim),
            digest: embeddings.digest(&tokenizer, *logit_scale),
            source: Source::Embeddings(Box::new(embeddings)),
            logit_scale: *logit_scale,
            logit_bias: None,
            head: None,
            tokenizer,
            preprocess: Preprocess::clip(224),
            device: device.clone(),
        })
    }

    /// Builds a backbone from canonical tensors. `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor that does not fit, [`Error::Mismatch`] when tokenizer, preprocessing and
    /// specification disagree.
    pub fn new(
        name: impl Into<String>,
        spec: BackboneSpec,
        tensors: StateDict,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        path: &Path,
        device: &Device,
    ) -> Result<Self> {
        let mut tensors = tensors;
        for name in ["logit_scale", "logit_bias"] {
            if let Some(number) = tensors.get_mut(name).filter(|number| number.data.len() == 1) {
                // Written as a scalar by some tools and as one element by others; one backbone has one digest.
                number.shape.clear();
            }
        }
        spec.check()?;
        if spec.has(Tower::Text) {
            tokenizer.check_vocabulary(spec.text.vocabulary)?;
        }
        let crop = preprocess.crop;
        if spec.has(Tower::Image) && [crop.height, crop.width].map(|side| side as usize) != [spec.image.size; 2] {
            return Err(Error::mismatch(
                format!("image size after preprocessing for `{}`", path.display()),
                format!("{0} x {0} (config.json)", spec.image.size),
                format!("{} x {} (preprocessor_config.json)", crop.height, crop.width),
            ));
        }
        let (model, digest) = DualEncoder::identified(&spec, tensors, path, device)?;
        let number = |param: &Option<Param<Tensor<1>>>| param.as_ref().map(|param| values(param.val())[0]);
        let unscaled = if spec.crossing.is_some() { 1.0 } else { LONE_SCALE };
        let logit_scale = number(&model.logit_scale).map_or(unscaled, f32::exp);
        if !(logit_scale.is_finite() && logit_scale > 0.0) {
            return Err(Error::Tensor {
                path: path.to_path_buf(),
                name: "logit_scale".into(),
                expected: "the natural logarithm of a scale".into(),
                found: format!("a scale of {logit_scale}; where it is the scale itself, store its logarithm"),
            });
        }
        let logit_bias = number(&model.logit_bias);
        let (name, device, source) = (name.into(), device.clone(), Source::Towers(Box::new(model)));
        let head = None;
        Ok(Self { name, spec, source, logit_scale, logit_bias, head, tokenizer, preprocess, digest, device })
    }

    /// The same backbone with the classes that its checkpoint tells apart.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a head of another width.
    pub fn with_head(self, head: Option<ClassHead>) -> Result<Self> {
        head.iter().try_for_each(|head| head.check(self.spec.dim))?;
        Ok(Self { head, ..self })
    }

    /// The towers, where there are any.
    pub(super) fn towers(&self) -> Option<&DualEncoder> {
        match &self.source {
            Source::Towers(model) => Some(model),
            Source::Embeddings(_) => None,
        }
    }

    /// Whether features that say this about their maker are features of this backbone. Features from elsewhere may name
    /// their maker by any text; the digest of another backbone is a mistake.
    pub fn made(&self, maker: &str) -> bool {
        match &self.source {
            Source::Towers(_) => !maker.starts_with("sha256:") || maker == self.digest.to_string(),
            Source::Embeddings(embeddings) => maker == embeddings.maker,
        }
    }

    /// What [`made`](Self::made) expects.
    pub fn maker(&self) -> String {
        match &self.source {
            Source::Towers(_) => self.digest.to_string(),
            Source::Embeddings(embeddings) => embeddings.maker.clone(),
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape.
    pub fn spec(&self) -> &BackboneSpec {
        &self.spec
    }

    /// Its identity.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The device its weights live on; plain, never an autodiff device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How images are brought to its input size.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The factor between cosine similarity and logit.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// What is added to all scores, where it was trained with such an offset (SigLIP).
    pub fn logit_bias(&self) -> Option<f32> {
        self.logit_bias
    }

    /// The classes that its checkpoint itself tells apart.
    pub fn head(&self) -> Option<&ClassHead> {
        self.head.as_ref()
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        use burn::module::Module as _;
        self.towers().map_or(0, DualEncoder::num_params)
    }

    /// Number of blocks of a tower.
    pub fn depth(&self, tower: Tower) -> usize {
        match tower {
            Tower::Image => self.spec.image.transformer.depth,
            Tower::Text => self.spec.text.transformer.depth,
        }
    }

    /// Number of blocks of the image tower's convolutional trunk; 0 without one.
    pub fn trunk_depth(&self) -> usize {
        self.spec.image.style.trunk.as_ref().map_or(0, TrunkSpec::blocks)
    }

    /// Where a tower begins: no entry comes earlier.
    pub fn beginning(&self, tower: Tower) -> Entry {
        if tower == Tower::Image && self.trunk_depth() > 0 { Entry::Trunk(0) } else { Entry::Tokens }
    }

    /// Token width of a tower.
    pub fn width(&self, tower: Tower) -> usize {
        match tower {
            Tower::Image => self.spec.image.transformer.width,
            Tower::Text => self.spec.text.transformer.width,
        }
    }

    /// Width of the queries, keys and values of a tower.
    pub fn attention_width(&self, tower: Tower) -> usize {
        match tower {
            Tower::Image => self.spec.image.transformer.attention_width(),
            Tower::Text => self.spec.text.transformer.attention_width(),
        }
    }

    /// The frozen linear layer at a site. Its weights are the backbone's own; those of a pointwise convolution are seen as a matrix.
    pub fn linear(&self, at: LinearSite) -> Option<Linear> {
        let model = self.towers()?;
        match at {
            LinearSite::Trunk(at) => Some(model.image.as_ref()?.embedding.pointwise(at)?.as_linear()),
            LinearSite::Block(BlockSite { tower, block }, projection) => {
                model.blocks(tower).get(block)?.projection(projection).cloned()
            }
            LinearSite::Head(tower) => model.projection(tower).cloned(),
        }
    }

    /// Every frozen normalisation, in the order in which data meets them: image tower, then text tower.
    pub fn norms(&self) -> Vec<(NormSite, &LayerNorm)> {
        self.towers().map_or_else(Vec::new, DualEncoder::norms)
    }

    /// Scaled cosine similarities `[images, classes]`, through the logits site. Where images and texts meet before the score, that is
    /// [`cross`](Self::cross).
    pub fn similarity(&self, image: &Tensor<2>, text: &Tensor<2>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let feature = image;
        let image = normalise(image.clone());
        let text = normalise(text.clone());
        let logits = image.clone().matmul(text.clone().transpose()) * self.logit_scale;
        let (logits, offset) = match self.logit_bias {
            Some(bias) => (logits + bias, bias),
            None => (logits, 0.0),
        };
        sites.logits(Scores { feature, image: &image, text: &text, logits, scale: self.logit_scale, offset }, pass)
    }

    /// The canonical tensors, e.g. to write a checkpoint; none without towers.
    pub fn state_dict(&self) -> StateDict {
        self.towers().map_or_else(StateDict::new, |model| model.state_dict(&self.spec))
    }

    /// Recomputes the digest from the weights in memory; equal to [`digest`](Self::digest) for ever.
    pub fn verify(&self) -> bool {
        match &self.source {
            Source::Towers(_) => state_dict::digest(&self.spec, &self.state_dict()) == self.digest,
            Source::Embeddings(embeddings) => embeddings.digest(&self.tokenizer, self.logit_scale) == self.digest,
        }
    }
}

/// Rows scaled to Euclidean length 1.
pub fn normalise(features: Tensor<2>) -> Tensor<2> {
    // The square of 256 is beyond the range of such floats, and what keeps a length from being 0 below it.
    if features.dtype() == DType::F16 {
        return normalise(features.cast(FloatDType::F32)).cast(FloatDType::F16);
    }
    let norm = features.clone().powf_scalar(2.0).sum_dim(1).sqrt();
    features / norm.clamp_min(1e-12)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, FloatDType, Tensor};

    use super::{normalise, values};

    #[test]
    fn long_and_empty_features_of_16_bits_are_normalised() {
        let features = Tensor::<2>::from_data([[300.0f32, 400.0], [0.0, 0.0]], &Device::flex());
        let found = normalise(features.cast(FloatDType::F16));
        assert_eq!(found.dtype(), DType::F16);
        for (found, expected) in values(found).into_iter().zip([0.6, 0.8, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-3, "{found}");
        }
    }
}
