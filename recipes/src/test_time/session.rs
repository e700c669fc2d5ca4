//! Test-time adaptation over the test images of a data set.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Frozen, Sites};
use inarch_core::data::{Example, Source};
use inarch_core::image::{BadImage, ImageList, OnBadImage, RgbImage};
use inarch_core::metrics::{MeanStd, Metrics, accuracy, confusion, predictions};
use inarch_core::text::Template;
use inarch_peft::{Artifact, Classifier};
use serde::Serialize;

use super::config::TestTimeConfig;
use super::episode::Episode;
use super::outcome::{AuditLine, Outcome, TestTimeTiming};
use super::snapshot::Snapshot;
use super::stream::TestTime;
use super::world::Model;
use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::report_head::{peak_memory_bytes, reset_peak_memory};
use crate::session::Session;

/// Bytes of episodes that are kept for another order of the stream or another method.
const HELD_BYTES: usize = 1 << 30;
/// How often the stream of a method with a state is shuffled, unless the user says otherwise.
const ORDERS: usize = 3;

/// Views, features and scores of images that several evaluations share: another order of the stream, another method.
#[derive(Default)]
pub struct EpisodeStore {
    kinds: HashMap<String, Held>,
    bytes: usize,
}

/// Episodes of one kind of views.
#[derive(Default)]
struct Held {
    /// By the image's place among the examples.
    episodes: HashMap<usize, Episode>,
    /// Seconds that making them took: views and image tower.
    seconds: (f64, f64),
}

/// What an evaluation with adaptation at test time found. Accuracy and its kin are those of the first order.
#[derive(Debug, Clone)]
pub struct TestTimeEvaluation {
    /// With adaptation.
    pub evaluation: Evaluation,
    /// What belongs to the adaptation.
    pub report: TestTimeReport,
    /// What the memory took in, in the first order.
    pub audit: Vec<AuditLine>,
    /// The state behind the first order.
    pub snapshot: Snapshot,
}

/// The part of a report that belongs to adaptation at test time.
#[derive(Debug, Clone, Serialize)]
pub struct TestTimeReport {
    /// The method's name.
    pub method: String,
    /// All settings.
    pub settings: TestTimeConfig,
    /// Views of each image.
    pub views: usize,
    /// Mean seconds of an image, from the decoded image to the answer.
    pub seconds_per_image: f64,
    /// Share of that time spent on making views.
    pub views_share: f64,
    /// Share of that time spent in the frozen image tower.
    pub encode_share: f64,
    /// Images that the method's memory took in; one that enters two memories counts twice.
    pub admitted: usize,
    /// Images that got their unadapted answer.
    pub fell_back: usize,
    /// Images whose answer was withheld.
    pub abstained: usize,
    /// Accuracy of the answers that were given; `None` when there are none.
    pub accuracy_of_answered: Option<f64>,
    /// Accuracy and calibration before adaptation.
    pub unadapted: Unadapted,
    /// Accuracy over the orders of the stream.
    pub order_accuracy: Option<MeanStd>,
    /// Accuracy in each order.
    pub orders: Vec<f64>,
    /// Bytes of the method's memory at the end of the first order.
    pub memory_bytes: usize,
    /// Most bytes that it can come to hold.
    pub most_memory_bytes: usize,
    /// Greatest memory of the process, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// What the model does without adaptation, on the same images.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Unadapted {
    /// Share of right answers.
    pub accuracy: f64,
    /// Expected calibration error.
    pub ece: f64,
}

impl Session<'_> {
    /// An adapter, or zero-shot with `templates`, over the test images, adapted at test time. `state` is where the stream
    /// goes on from; it is then gone through once. `store` keeps what another call over the same model can use.
    ///
    /// # Errors
    /// No test image, one that cannot be read, or a model that the method cannot work with.
    pub fn evaluate_test_time(
        &self,
        artifact: Option<&Artifact>,
        templates: &[Template],
        config: &TestTimeConfig,
        judge: Option<&Backbone>,
        state: Option<&Snapshot>,
        store: &mut EpisodeStore,
    ) -> Result<TestTimeEvaluation> {
        if self.dataset.clips.is_some() {
            let reason = "adaptation at test time looks at still images, and it holds clips; evaluate it without";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", self.dataset.name), reason).into());
        }
        if self.dataset.test.is_empty() {
            let reason = "it has no test images; add a `test` folder or a `test` split";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", self.dataset.name), reason).into());
        }
        self.dataset.need_single_labels("adaptation at test time")?;
        self.need_frozen()?;
        let classes = &self.dataset.classes;
        let (classifier, sites): (Classifier<'_>, &dyn Sites) = match artifact {
            Some(artifact) => (artifact.classifier(self.backbone, Some(classes))?, artifact.adapter.sites()),
            None => (Classifier::zero_shot(self.backbone, classes, templates)?, &Frozen),
        };
        let model = Model { backbone: self.backbone, classifier: &classifier, sites };
        let examples = &self.dataset.test;
        let tester = TestTime::new(model, config, judge, Some(examples.len()))?;
        let kind = kind_of(config, &tester);
        let mut run = Run { session: self, features: self.features_at_hand()?, tester, store, kind, bad: Vec::new() };
        let online = run.tester.needs().online;
        let orders = match (state, config.stream.orders) {
            (Some(_), _) => 1,
            (None, Some(orders)) => orders,
            (None, None) => {
                if online {
                    ORDERS
                } else {
                    1
                }
            }
        };
        let mut first: Option<Pass> = None;
        let mut accuracies = Vec::with_capacity(orders);
        reset_peak_memory();
        for order in 0..orders {
            run.tester.reset();
            if let Some(state) = state {
                run.tester.restore(state)?;
            }
            let seed = Seed::new(config.stream.seed).split("order").split(order);
            let outcomes = run.pass(&seed.order(examples.len()), config.stream.batch)?;
            let labels: Vec<usize> = outcomes.iter().map(|(example, _)| examples[*example].label).collect();
            let rows: Vec<f32> = outcomes.iter().flat_map(|(_, outcome)| outcome.scores.iter().copied()).collect();
            accuracies.push(accuracy(&predictions(&rows, classes.len(), &labels)?, &labels));
            if first.is_none() {
                let (views, encode) = run.store.kinds.get(&run.kind).map_or((0.0, 0.0), |held| held.seconds);
                first = Some(Pass {
                    outcomes,
                    timing: TestTimeTiming { views, encode, ..run.tester.timing() },
                    bytes: run.tester.bytes(),
                    snapshot: run.tester.snapshot(),
                });
            }
        }
        let sizes = (run.tester.views().count, self.backbone.spec().dim);
        let Some(first) = first else { unreachable!("there is at least one order") };
        first.summarise(config, examples, classes, &run.bad, accuracies, sizes)
    }

    /// The features of a data set that has no images.
    fn features_at_hand(&self) -> Result<Option<ImageFeatures>> {
        if self.dataset.features.is_none() {
            return Ok(None);
        }
        let Self { backbone, dataset, policy, control, .. } = self;
        encode_images(backbone, &Frozen, dataset, &dataset.test, &Views::Centre, *policy, *control).map(Some)
    }
}

/// One way through the stream.
struct Pass {
    /// By the image's place among the examples.
    outcomes: Vec<(usize, Outcome)>,
    timing: TestTimeTiming,
    bytes: usize,
    snapshot: Snapshot,
}

impl Pass {
    fn summarise(
        mut self,
        config: &TestTimeConfig,
        examples: &[Example],
        classes: &[String],
        bad: &[BadImage],
        orders: Vec<f64>,
        (views, dim): (usize, usize),
    ) -> Result<TestTimeEvaluation> {
        let audit = self.outcomes.iter().flat_map(|(_, outcome)| outcome.audit()).collect();
        // Reports go by the order of the data set, whatever that of the stream was.
        self.outcomes.sort_by_key(|(example, _)| *example);
        let labels: Vec<usize> = self.outcomes.iter().map(|(example, _)| examples[*example].label).collect();
        let gather = |of: fn(&Outcome) -> &Vec<f32>| -> Vec<f32> {
            self.outcomes.iter().flat_map(|(_, outcome)| of(outcome).iter().copied()).collect()
        };
        let (adapted, before) = (gather(|outcome| &outcome.scores), gather(|outcome| &outcome.unadapted));
        let predicted = predictions(&adapted, classes.len(), &labels)?;
        let metrics = Metrics::from_logits(&adapted, classes.len(), &labels)?;
        let unadapted = Metrics::from_logits(&before, classes.len(), &labels)?;
        let count = |of: fn(&Outcome) -> usize| self.outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<usize>();
        let answered: Vec<bool> = self.outcomes.iter().map(|(_, outcome)| !outcome.abstained).collect();
        let given = answered.iter().filter(|answered| **answered).count();
        let right =
            predicted.iter().zip(&labels).zip(&answered).filter(|((own, label), given)| **given && own == label);
        let TestTimeTiming { views: views_seconds, encode, adapt } = self.timing;
        let seconds = (views_seconds + encode + adapt).max(f64::MIN_POSITIVE);
        let report = TestTimeReport {
            method: config.method.name().into(),
            settings: config.clone(),
            views,
            seconds_per_image: seconds / self.outcomes.len().max(1) as f64,
            views_share: views_seconds / seconds,
            encode_share: encode / seconds,
            admitted: count(|outcome| outcome.admitted.len()),
            fell_back: count(|outcome| usize::from(outcome.fell_back.is_some())),
            abstained: self.outcomes.len() - given,
            accuracy_of_answered: (given > 0).then(|| right.count() as f64 / given as f64),
            unadapted: Unadapted { accuracy: unadapted.accuracy, ece: unadapted.ece },
            order_accuracy: (orders.len() > 1).then(|| MeanStd::of(&orders)).flatten(),
            orders,
            memory_bytes: self.bytes,
            most_memory_bytes: config.method.most_bytes(classes.len(), dim),
            peak_memory_bytes: peak_memory_bytes(),
        };
        let evaluation = Evaluation {
            metrics,
            detail: None,
            confusion: confusion(&predicted, &labels, classes.len()),
            classes: classes.to_vec(),
            predicted: self.outcomes.iter().map(|(example, _)| *example).zip(predicted).collect(),
            skipped: bad.iter().map(|bad| bad.path.display().to_string()).collect(),
        };
        Ok(TestTimeEvaluation { evaluation, report, audit, snapshot: self.snapshot })
    }
}

/// All ways through one stream.
struct Run<'s, 'a> {
    session: &'s Session<'s>,
    features: Option<ImageFeatures>,
    tester: TestTime<'a>,
    store: &'s mut EpisodeStore,
    /// Which episodes of the store are this method's.
    kind: String,
    bad: Vec<BadImage>,
}

/// Everything that decides an episode beside the model and the image.
fn kind_of(config: &TestTimeConfig, tester: &TestTime<'_>) -> String {
    let (needs, stream) = (tester.needs(), &config.stream);
    let judge = needs.judge.map(|share| (share, &stream.judge));
    format!("{:?} {} {:?} {:?} {judge:?}", tester.views(), stream.seed, stream.views_from, needs.entry)
}

impl<'s> Run<'s, '_> {
    fn pass(&mut self, order: &[usize], batch: usize) -> Result<Vec<(usize, Outcome)>> {
        let control = self.session.control;
        let mut outcomes = Vec::with_capacity(order.len());
        control.progress.start("adapt", order.len() as u64);
        let mut images = self.to_read(order);
        for batch in order.chunks(batch) {
            if control.stopped() {
                return Err(Error::Stopped { what: "images", done: outcomes.len(), total: order.len() });
            }
            let (places, episodes): (Vec<usize>, Vec<Episode>) = self.episodes(batch, &mut images)?.into_iter().unzip();
            outcomes.extend(places.into_iter().zip(self.tester.adapt(&episodes)?));
            control.progress.advance(batch.len() as u64, "");
        }
        control.progress.finish();
        Ok(outcomes)
    }

    /// The images that a pass has to read, in its order: those of which no episode is kept.
    fn to_read(&self, order: &[usize]) -> ImageList<'s> {
        let session = self.session;
        let held = self.store.kinds.get(&self.kind);
        let missing = order.iter().filter(|place| held.is_none_or(|held| !held.episodes.contains_key(*place)));
        ImageList::new(missing.filter_map(|place| path_of(&session.dataset.test[*place])).collect())
    }

    /// The episodes of some examples, in their order, without images that cannot be read. `images` are those of the pass, read as far
    /// as the examples before these.
    fn episodes(&mut self, places: &[usize], images: &mut ImageList<'_>) -> Result<Vec<(usize, Episode)>> {
        let held = self.store.kinds.entry(self.kind.clone()).or_default();
        let missing: Vec<usize> = places.iter().copied().filter(|place| !held.episodes.contains_key(place)).collect();
        let before = self.tester.timing();
        let mut fresh: HashMap<usize, Episode> = self.fresh(&missing, images)?.into_iter().collect();
        let after = self.tester.timing();
        let EpisodeStore { kinds, bytes } = &mut *self.store;
        let held = kinds.entry(self.kind.clone()).or_default();
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            if let Some(episode) = fresh.remove(place) {
                if *bytes + bytes_of(&episode) <= HELD_BYTES {
                    *bytes += bytes_of(&episode);
                    held.episodes.insert(*place, episode.clone());
                }
                found.push((*place, episode));
            } else if let Some(episode) = held.episodes.get(place) {
                found.push((*place, episode.clone()));
            }
        }
        held.seconds.0 += after.views - before.views;
        held.seconds.1 += after.encode - before.encode;
        Ok(found)
    }

    fn fresh(&mut self, places: &[usize], list: &mut ImageList<'_>) -> Result<Vec<(usize, Episode)>> {
        let examples = &self.session.dataset.test;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(features) = &self.features {
            let ids: Vec<&str> = places.iter().map(|place| examples[*place].id.as_str()).collect();
            let rows = features.gather(places.iter().map(|place| (*place, 0)), self.session.backbone);
            let episodes = self.tester.episodes_of_features(&ids, rows)?;
            return Ok(places.iter().copied().zip(episodes).collect());
        }
        let pictures: Vec<usize> =
            places.iter().copied().filter(|place| path_of(&examples[*place]).is_some()).collect();
        let mut images: Vec<(usize, RgbImage)> = Vec::with_capacity(pictures.len());
        let decoded = list.decode(pictures.len());
        for (place, (path, image)) in pictures.into_iter().zip(decoded) {
            assert_eq!(path_of(&examples[place]), Some(path), "a pass comes to each of its images once");
            match image {
                Ok(image) => images.push((place, image)),
                Err(error) if self.session.policy == OnBadImage::Skip => {
                    if !self.bad.iter().any(|bad| bad.path == path) {
                        self.bad.push(BadImage { path: path.into(), reason: error.to_string() });
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let named: Vec<(&str, &RgbImage)> =
            images.iter().map(|(place, image)| (examples[*place].id.as_str(), image)).collect();
        let episodes = self.tester.episodes(&named)?;
        Ok(images.iter().map(|(place, _)| *place).zip(episodes).collect())
    }
}

/// The file of an example that is one image.
fn path_of(example: &Example) -> Option<&Path> {
    match &example.source {
        Source::Image(path) => Some(path),
        Source::Bytes(..) | Source::Row(_) | Source::Clip(_) => None,
    }
}

fn bytes_of(episode: &Episode) -> usize {
    let judged = episode.judged.as_ref().map_or(0, |rows| rows.values().len());
    let stream = episode.stream.as_ref().map_or(0, |stream| stream.tokens.dims().iter().product());
    // Class features that all images share are held once; those of a prompt that depends on the image by the image alone.
    let text = if Arc::strong_count(&episode.text) == 1 { episode.text.values().len() } else { 0 };
    4 * (episode.features.values().len() + episode.logits.values().len() + judged + stream + text) + episode.id.len()
}
