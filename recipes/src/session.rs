//! One backbone, one data set, and the frozen work that all runs over them share.

use std::cell::{OnceCell, RefCell};

use inarch_core::backbone::{Backbone, Frozen, Sites};
use inarch_core::data::{Dataset, Example, base_new};
use inarch_core::image::OnBadImage;
use inarch_core::metrics::DetailConfig;
use inarch_core::text::{Template, check_described};
use inarch_peft::{Artifact, Classifier};

use crate::clips::check_crops;
use crate::control::Control;
use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, Scored, evaluate, evaluate_labels, of_scores, scored, shares_image_features};
use crate::recipe::Subset;
use crate::shared::SharedFeatures;

/// A backbone beside a data set. Features of the test images are computed once, by whoever needs them first.
pub struct Session<'a> {
    pub(crate) backbone: &'a Backbone,
    pub(crate) dataset: Dataset,
    pub(crate) policy: OnBadImage,
    pub(crate) control: Control<'a>,
    pub(crate) shared: RefCell<SharedFeatures>,
    test: OnceCell<ImageFeatures>,
    measures: DetailConfig,
}

impl<'a> Session<'a> {
    /// A session over the classes of `subset`.
    ///
    /// # Errors
    /// A data set with too few classes to be halved, or crops of clips that would all be the same.
    pub fn new(
        backbone: &'a Backbone,
        dataset: &Dataset,
        subset: Subset,
        policy: OnBadImage,
        control: Control<'a>,
    ) -> Result<Self> {
        check_crops(backbone, dataset)?;
        let dataset = match subset {
            Subset::All => dataset.clone(),
            Subset::Base => base_new(dataset)?.0,
            Subset::New => base_new(dataset)?.1,
        };
        Ok(Self {
            backbone,
            dataset,
            policy,
            control,
            shared: RefCell::default(),
            test: OnceCell::new(),
            measures: DetailConfig::default(),
        })
    }

    /// Sets how the measures of its evaluations are taken.
    #[must_use]
    pub fn with_measures(self, measures: DetailConfig) -> Self {
        Self { measures, ..self }
    }

    /// The data set, restricted to the subset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The backbone.
    pub fn backbone(&self) -> &'a Backbone {
        self.backbone
    }

    /// Where it reports, and how it is stopped.
    pub fn control(&self) -> Control<'a> {
        self.control
    }

    /// Refuses features that an adapter made, for what adapts or learns.
    pub(crate) fn need_frozen(&self) -> Result<()> {
        let Some(file) = &self.dataset.features else { return Ok(()) };
        Ok(file.need_frozen(&self.dataset.name)?)
    }

    fn frozen_test(&self) -> Result<&ImageFeatures> {
        if let Some(features) = self.test.get() {
            return Ok(features);
        }
        let features = self.encode_test(&Frozen)?;
        Ok(self.test.get_or_init(|| features))
    }

    fn encode_test(&self, sites: &dyn Sites) -> Result<ImageFeatures> {
        let Self { backbone, dataset, policy, control, .. } = self;
        encode_images(backbone, sites, dataset, &dataset.test, &Views::Centre, *policy, *control)
    }

    /// Zero-shot over the test images.
    ///
    /// # Errors
    /// No test image, or one that cannot be read.
    pub fn zero_shot(&self, templates: &[Template]) -> Result<Evaluation> {
        self.need_test()?;
        check_described(templates, &self.dataset.classes)?;
        let classifier = Classifier::zero_shot(self.backbone, &self.dataset.classes, templates)?;
        if self.backbone.crosses() {
            return self.of_pairs(&classifier, &Frozen, None);
        }
        self.measure(&classifier, &Frozen, self.frozen_test()?, None)
    }

    /// What there is without any training over the test images: zero-shot, or where words have no features the classes that the
    /// checkpoint itself tells apart, if they are those of the data set.
    ///
    /// # Errors
    /// As [`zero_shot`](Self::zero_shot).
    pub fn unadapted(&self, templates: &[Template]) -> Result<Option<Evaluation>> {
        if self.backbone.has_words() {
            return Ok(Some(self.zero_shot(templates)?));
        }
        let own = Artifact::of_head(self.backbone)?;
        let known =
            |artifact: &Artifact| self.dataset.classes.iter().all(|class| artifact.manifest.classes.contains(class));
        own.filter(known).map(|artifact| self.evaluate(&artifact)).transpose()
    }

    /// An adapter over the test images.
    ///
    /// # Errors
    /// No test image, one that cannot be read, a class the adapter does not know, or a data set of features for an
    /// adapter that changes the image tower, or of features that an adapter made.
    pub fn evaluate(&self, artifact: &Artifact) -> Result<Evaluation> {
        self.need_test()?;
        self.need_frozen()?;
        let classifier = artifact.classifier(self.backbone, Some(&self.dataset.classes))?;
        let sites = artifact.adapter.sites();
        let offsets = if self.dataset.multi_label { artifact.offsets(&self.dataset.classes)? } else { None };
        if self.backbone.crosses() {
            return self.of_pairs(&classifier, sites, offsets.as_deref());
        }
        if shares_image_features(sites) {
            let features = self.frozen_test()?.through(sites, self.backbone);
            return self.measure(&classifier, sites, &features, offsets.as_deref());
        }
        if self.dataset.features.is_some() {
            let what = format!("adapter of method `{}`", artifact.manifest.method.name());
            let reason = format!("it changes the image tower and needs images; `{}` holds features", self.dataset.name);
            return Err(inarch_core::Error::invalid(what, reason).into());
        }
        let features = self.encode_test(sites)?;
        self.measure(&classifier, sites, &features, offsets.as_deref())
    }

    /// Measures features of the test images.
    fn measure(
        &self,
        classifier: &Classifier<'_>,
        sites: &dyn Sites,
        features: &ImageFeatures,
        offsets: Option<&[f32]>,
    ) -> Result<Evaluation> {
        self.of_scores(&Scored::new(self.backbone, classifier, sites, features), classifier, offsets)
    }

    /// Measures scores of the test images with the texts that they meet.
    fn of_pairs(&self, classifier: &Classifier<'_>, sites: &dyn Sites, offsets: Option<&[f32]>) -> Result<Evaluation> {
        let Self { backbone, dataset, policy, control, .. } = self;
        let scored = scored(backbone, classifier, sites, dataset, &dataset.test, (*policy, *control))?;
        self.of_scores(&scored, classifier, offsets)
    }

    fn of_scores(&self, scored: &Scored, classifier: &Classifier<'_>, offsets: Option<&[f32]>) -> Result<Evaluation> {
        let (examples, measures) = (&self.dataset.test, self.measures);
        if self.dataset.multi_label {
            return evaluate_labels(scored, classifier, examples, (offsets, measures));
        }
        of_scores(scored, classifier, examples, Some(measures))
    }

    /// An adapter over some images that settings are chosen on.
    pub(crate) fn validate(&self, artifact: &Artifact, examples: &[Example]) -> Result<Evaluation> {
        self.need_frozen()?;
        let Self { backbone, dataset, policy, control, .. } = self;
        let classifier = artifact.classifier(*backbone, Some(&dataset.classes))?;
        dataset.need_single_labels("a choice of settings")?;
        evaluate(backbone, &classifier, artifact.adapter.sites(), dataset, examples, *policy, *control)
    }

    fn need_test(&self) -> Result<()> {
        if self.dataset.test.is_empty() {
            return Err(Error::Core(inarch_core::Error::invalid(
                format!("data set `{}`", self.dataset.name),
                "it has no test images; add a `test` folder or a `test` split",
            )));
        }
        Ok(())
    }
}
