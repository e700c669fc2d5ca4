//! Class names to scores: the one path that zero-shot, training and evaluation share.

use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, BackboneHandle, Frozen, Partial, Pass, Scores, Sites, Tower, normalise};
use inarch_core::text::Template;

use crate::adapter::MethodConfig;
use crate::class_parts::ClassParts;
use crate::error::{Error, Result};
use crate::method::Prior;

/// Rows of frozen texts in one batch.
const ROWS: usize = 4096;

/// Some classes, tokenised for a backbone and a method.
///
/// A class with several templates is represented by the mean of its normalised text features (Radford et al., 2021,
/// section 3.1.4).
#[derive(Debug, Clone)]
pub struct Classifier<'a> {
    backbone: BackboneHandle<'a>,
    classes: Vec<String>,
    templates: Vec<Template>,
    rows: Vec<Vec<u32>>,
    known: Option<Vec<usize>>,
    prior: Option<Tensor<2>>,
    described: Option<Arc<Described>>,
}

/// The prompts of the run's templates for a method that holds on to each of them. Only a training asks for their features.
#[derive(Debug)]
struct Described {
    rows: Vec<Vec<u32>>,
    features: OnceLock<Tensor<3>>,
}

/// Class features as one pass through the text tower gives them.
pub struct ClassText {
    /// `[classes, dim]`; with an image-conditioned prompt `[images * classes, dim]`, image-major. Not normalised.
    pub features: Tensor<2>,
    /// With several prompts a class: their features before the mean, `[classes, prompts, dim]`, normalised.
    pub prompts: Option<Tensor<3>>,
}

impl<'a> Classifier<'a> {
    /// A zero-shot classifier over `classes`.
    ///
    /// # Errors
    /// No class, no template, a prompt that does not fit into the backbone's context, or a backbone whose words have no features.
    pub fn zero_shot(
        backbone: impl Into<BackboneHandle<'a>>,
        classes: &[String],
        templates: &[Template],
    ) -> Result<Self> {
        let backbone = backbone.into();
        backbone.need_words("zero-shot classification")?;
        Self::of(backbone, classes, templates)
    }

    /// A classifier over classes whose names may have no features.
    fn of(backbone: BackboneHandle<'a>, classes: &[String], templates: &[Template]) -> Result<Self> {
        if classes.is_empty() || templates.is_empty() {
            return Err(inarch_core::Error::invalid("classes and templates", "at least one of each is needed").into());
        }
        let rows = backbone.prompts(classes, templates)?;
        let (classes, templates) = (classes.to_vec(), templates.to_vec());
        Ok(Self { backbone, classes, templates, rows, known: None, prior: None, described: None })
    }

    /// A classifier over `classes` for an adapter that was trained over `trained`. The method's own prompt, if it has
    /// one, takes the place of `templates`.
    ///
    /// # Errors
    /// [`Error::UnknownClass`] when the adapter has a row for each class and not for this one.
    pub fn adapted(
        backbone: impl Into<BackboneHandle<'a>>,
        config: &MethodConfig,
        trained: &[String],
        classes: &[String],
        templates: &[Template],
    ) -> Result<Self> {
        let (backbone, own) = (backbone.into(), config.templates()?);
        let mut classifier = Self::of(backbone.clone(), classes, if own.is_empty() { templates } else { &own })?;
        let prior = config.prior();
        if prior == Prior::Each {
            let rows = Self::zero_shot(backbone.clone(), classes, templates)?.rows;
            classifier.described = Some(Arc::new(Described { rows, features: OnceLock::new() }));
        }
        classifier.prior = match prior {
            Prior::None | Prior::Each => None,
            Prior::Run => Some(Self::zero_shot(backbone.clone(), classes, templates)?.mean_features()),
            Prior::Own(own) => Some(Self::zero_shot(backbone, classes, &own)?.mean_features()),
        };
        if config.bound_to_classes() {
            let row = |class: &String| {
                trained.iter().position(|known| known == class).ok_or_else(|| Error::UnknownClass {
                    class: class.clone(),
                    method: config.name(),
                    known: trained.len(),
                    candidates: trained.to_vec(),
                })
            };
            classifier.known = Some(classes.iter().map(row).collect::<Result<_>>()?);
        } else if config.open_to_classes() {
            let row = |class: &String| trained.iter().position(|known| known == class).unwrap_or(Pass::OTHER);
            classifier.known = Some(classes.iter().map(row).collect());
        }
        Ok(classifier)
    }

    /// The classes, in the order of the logits.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The templates in use.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// The frozen part of the text side, to be computed once.
    pub fn start(&self, sites: &dyn Sites) -> Partial {
        self.backbone.start_text(&self.rows, sites.entry(Tower::Text))
    }

    /// The same in at most `count` parts, to be run apart.
    pub fn parts(&self, sites: &dyn Sites, count: usize) -> ClassParts {
        ClassParts::new(self, sites, count)
    }

    pub(crate) fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Token rows, class-major.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// The adapter's row of each class, where it has any.
    pub(crate) fn known(&self) -> Option<&[usize]> {
        self.known.as_deref()
    }

    /// Frozen text features that the method holds on to, `[classes, dim]`, if it asks for them.
    pub fn prior(&self) -> Option<&Tensor<2>> {
        self.prior.as_ref()
    }

    /// Frozen features of each of the run's templates, `[classes, templates, dim]`, normalised, if the method asks for them.
    pub fn described(&self) -> Option<&Tensor<3>> {
        let described = self.described.as_ref()?;
        Some(described.features.get_or_init(|| {
            let features = normalise(self.frozen(&described.rows));
            let ([rows, dim], classes) = (features.dims(), self.classes.len());
            features.reshape([classes, rows / classes, dim])
        }))
    }

    /// Class features `[classes, dim]`; with an image-conditioned prompt `[images * classes, dim]`, image-major.
    ///
    /// # Panics
    /// When prompts depend on the image and `pass` carries no image features.
    pub fn text(&self, start: Partial, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        self.encode(start, sites, pass).features
    }

    /// As [`text`](Self::text), with the features of the single prompts.
    ///
    /// # Panics
    /// When prompts depend on the image and `pass` carries no image features.
    pub fn encode(&self, start: Partial, sites: &dyn Sites, pass: &Pass<'_>) -> ClassText {
        assert!(
            !sites.conditions_text() || pass.condition.is_some(),
            "this adapter's prompts depend on the image: the pass must carry image features"
        );
        let output = self.backbone.output(Tower::Text, start, sites, &self.pass(pass));
        self.class_text(output, sites, pass)
    }

    /// As [`encode`](Self::encode), from what the parts gave, in their order.
    pub fn join(&self, parts: &ClassParts, outputs: Vec<Tensor<2>>, sites: &dyn Sites, pass: &Pass<'_>) -> ClassText {
        self.class_text(parts.join(outputs), sites, pass)
    }

    /// The mean over templates, through the feature site.
    fn class_text(&self, output: Tensor<2>, sites: &dyn Sites, pass: &Pass<'_>) -> ClassText {
        let pass = self.pass(pass);
        let count = self.templates.len();
        let (output, prompts) = if count == 1 {
            (output, None)
        } else {
            let [rows, dim] = output.dims();
            let prompts = normalise(output).reshape([rows / count, count, dim]);
            (prompts.clone().mean_dim(1).reshape([rows / count, dim]), Some(prompts))
        };
        ClassText { features: sites.feature(Tower::Text, output, &pass), prompts }
    }

    /// The pass with what is known about the classes.
    fn pass<'b>(&'b self, pass: &Pass<'b>) -> Pass<'b> {
        Pass { classes: self.known.as_deref(), prior: self.prior.as_ref(), ..*pass }
    }

    /// For each class the mean of its templates' frozen features, not normalised before or after, `[classes, dim]`.
    fn mean_features(&self) -> Tensor<2> {
        let features = self.frozen(&self.rows);
        let ([rows, dim], count) = (features.dims(), self.templates.len());
        features.reshape([rows / count, count, dim]).mean_dim(1).reshape([rows / count, dim])
    }

    /// Frozen features of token rows, `[rows, dim]`.
    fn frozen(&self, rows: &[Vec<u32>]) -> Tensor<2> {
        let part = |rows: &[Vec<u32>]| self.backbone.encode_text(rows, &Frozen, &Pass::evaluate());
        Tensor::cat(rows.chunks(ROWS).map(part).collect(), 0)
    }

    /// Whether scores are those of pairs that meet before there is one.
    pub fn crosses(&self) -> bool {
        self.backbone.crosses()
    }

    /// Scores `[images, classes]` of image features `[images, dim]` and class features of [`text`](Self::text).
    pub fn logits(&self, image: &Tensor<2>, text: &Tensor<2>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let pass = self.pass(pass);
        if self.backbone.crosses() {
            return self.pairs(image, sites, &pass);
        }
        if !sites.conditions_text() {
            return self.backbone.similarity(image, text, sites, &pass);
        }
        let [images, dim] = image.dims();
        let classes = self.classes.len();
        let feature = image;
        let (image, text) = (normalise(image.clone()), normalise(text.clone()));
        let scale = self.backbone.logit_scale();
        let own = text.clone().reshape([images, classes, dim]).swap_dims(1, 2);
        let logits = image.clone().reshape([images, 1, dim]).matmul(own).reshape([images, classes]) * scale;
        sites.logits(Scores { feature, image: &image, text: &text, logits, scale, offset: 0.0 }, &pass)
    }

    /// Scores of images and texts that meet before there is one, `[images, classes]`: the mean over the templates of a class.
    ///
    /// # Panics
    /// Where they have features of their own; see [`crosses`](Self::crosses).
    pub fn pairs(&self, image: &Tensor<2>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let pass = &self.pass(pass);
        let text = &Tensor::zeros([self.classes.len(), self.backbone.spec().dim], self.backbone.device());
        let logits = self.backbone.cross(image, &self.rows, sites, pass);
        let ([images, rows], count) = (logits.dims(), self.templates.len());
        let logits = logits.reshape([images, rows / count, count]).mean_dim(2).reshape([images, rows / count]);
        let scale = self.backbone.logit_scale();
        sites.logits(Scores { feature: image, image, text, logits, scale, offset: 0.0 }, pass)
    }

    /// Tokens of all texts, each as long as the longest.
    pub fn padded_tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0) * self.rows.len()
    }

    /// Class features in an evaluation pass without image condition.
    pub fn features(&self, sites: &dyn Sites) -> Tensor<2> {
        self.text(self.start(sites), sites, &Pass::evaluate())
    }
}
