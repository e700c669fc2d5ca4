//! Test-time adaptation at work: from images to answers, one by one, in batches or as a stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, Pass, Tower, normalise};
use inarch_core::image::{RgbImage, TestViews, decode_image};
use inarch_core::parallel;
use inarch_core::{Seed, file};

use super::confidence::{greatest, softmax};
use super::config::TestTimeConfig;
use super::episode::{Answer, Episode, Stream};
use super::guard::{FallBack, Guard};
use super::judge::Judge;
use super::method::{Adapt, Needs};
use super::outcome::{Outcome, TestTimeTiming};
use super::rows::Rows;
use super::snapshot::{Snapshot, SnapshotHead};
use super::world::{Model, World};
use crate::error::{Error, Result};

/// Bytes of pixels that are held at once.
const PIXEL_BYTES: usize = 128 << 20;
/// Views in one pass through the image tower.
const ROWS: usize = 32;

/// A method at work beside a model.
pub struct TestTime<'a> {
    model: Model<'a>,
    config: TestTimeConfig,
    needs: Needs,
    views: TestViews,
    judge: Option<Judge<'a>>,
    /// Class features, where they are the same for all images.
    text: Option<Arc<Rows>>,
    method: Box<dyn Adapt>,
    guard: Guard,
    position: u64,
    timing: TestTimeTiming,
}

/// What a method sees.
fn world<'w>(model: &'w Model<'_>, judge: Option<&'w Judge<'_>>) -> World<'w> {
    World {
        score: model,
        device: model.backbone.device(),
        classes: model.classifier.classes().len(),
        dim: model.backbone.spec().dim,
        model: Some(*model),
        judge: judge.map(|judge| &judge.texts),
    }
}

impl<'a> TestTime<'a> {
    /// A method at the beginning of a stream; `length` is the number of images in it, where that is known.
    ///
    /// # Errors
    /// A model that the method cannot work with, or a memory that could outgrow its bound.
    pub fn new(
        model: Model<'a>,
        config: &TestTimeConfig,
        judge: Option<&'a Backbone>,
        length: Option<usize>,
    ) -> Result<Self> {
        model.backbone.need_features(&format!("test-time method `{}`", config.method.name()))?;
        let needs = config.needs(model.backbone);
        let views = config.views(&needs);
        views.validate()?;
        let (classes, dim) = (model.classifier.classes().len(), model.backbone.spec().dim);
        let (most, bound) = (config.method.most_bytes(classes, dim), config.stream.memory_mib << 20);
        let refuse = |what: &str, reason: String| -> Result<Self> {
            Err(inarch_core::Error::invalid(format!("test-time method `{}`: {what}", config.method.name()), reason)
                .into())
        };
        if most > bound {
            let reason = format!(
                "it can come to hold {most} bytes for {classes} classes of {dim} values, the bound is {bound}; \
                 lower `test-time.capacity` or raise `test-time.memory_mib`"
            );
            return refuse("memory", reason);
        }
        let conditions = model.sites.conditions_text();
        if conditions && needs.fixed_text {
            let reason = "it holds on to class features, and this adapter makes them anew for each image";
            return refuse("adapter", reason.into());
        }
        let text = (!conditions).then(|| {
            let features = model.classifier.features(model.sites);
            Arc::new(Rows::from_tensor(normalise(features)))
        });
        let judge = judge.map(|judge| Judge::new(judge, &model)).transpose()?;
        if needs.judge.is_some() && judge.is_none() {
            return refuse("judge", "a second backbone is needed".into());
        }
        let method = config.method.begin(&world(&model, judge.as_ref()), length)?;
        let guard = Guard::new(if needs.online { config.stream.window } else { 0 }, config.stream.margin);
        let (config, timing) = (config.clone(), TestTimeTiming::default());
        Ok(Self { model, config, needs, views, judge, text, method, guard, position: 0, timing })
    }

    /// What the method asks for.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The views of each image.
    pub fn views(&self) -> &TestViews {
        &self.views
    }

    /// Where the time went so far.
    pub fn timing(&self) -> TestTimeTiming {
        self.timing
    }

    /// Bytes of the method's memory now.
    pub fn bytes(&self) -> usize {
        self.method.bytes()
    }

    /// Images seen since the beginning of the stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Answers for some images, given with names that stay the same wherever the files lie.
    ///
    /// # Errors
    /// As [`episodes`](Self::episodes) and [`adapt`](Self::adapt).
    pub fn classify(&mut self, images: &[(&str, &RgbImage)]) -> Result<Vec<Outcome>> {
        let episodes = self.episodes(images)?;
        self.adapt(&episodes)
    }

    /// Views, features and scores of some images: all that can be computed before any adaptation.
    ///
    /// # Errors
    /// An image without pixels, or a view from a file that cannot be read.
    pub fn episodes(&mut self, images: &[(&str, &RgbImage)]) -> Result<Vec<Episode>> {
        let preprocess = self.model.backbone.preprocess();
        let size = preprocess.values_per_image();
        let group = (PIXEL_BYTES / (4 * size * self.views.count)).max(1);
        let mut episodes = Vec::with_capacity(images.len());
        for images in images.chunks(group) {
            let started = Instant::now();
            let seed = Seed::new(self.config.stream.seed);
            let mut pixels = self.views.batch(images, preprocess, seed)?;
            let mut from_files = vec![0; images.len()];
            for (image, (id, _)) in images.iter().enumerate() {
                let mut files = self.files_of(id)?;
                files.truncate(self.views.count - 1);
                for (view, path) in files.iter().enumerate() {
                    let at = (image * self.views.count + 1 + view) * size;
                    pixels[at..at + size].copy_from_slice(&preprocess.pixels(&decode_image(path)?)?);
                }
                from_files[image] = files.len();
            }
            self.timing.views += started.elapsed().as_secs_f64();

            let started = Instant::now();
            let (features, stream) = self.encode(&pixels)?;
            let ids: Vec<&str> = images.iter().map(|(id, _)| *id).collect();
            let mut found = self.scored(&ids, features, self.views.count);
            for (image, episode) in found.iter_mut().enumerate() {
                let rows = image * self.views.count;
                episode.from_files = from_files[image];
                episode.stream = stream.as_ref().map(|Stream { entry, tokens }| Stream {
                    entry: *entry,
                    tokens: tokens.clone().narrow(0, rows, self.views.count),
                });
                if let (Some(judge), Some(share)) = (&self.judge, self.needs.judge) {
                    let own = &pixels[rows * size..(rows + self.views.count) * size];
                    judge.look(episode, own, preprocess, share)?;
                }
            }
            self.timing.encode += started.elapsed().as_secs_f64();
            episodes.extend(found);
        }
        Ok(episodes)
    }

    /// Episodes of features `[images, dim]` from elsewhere, as the frozen backbone gives them.
    ///
    /// # Errors
    /// A method or an adapter that needs the images themselves.
    pub fn episodes_of_features(&mut self, ids: &[&str], features: Tensor<2>) -> Result<Vec<Episode>> {
        let refuse = |reason: String| Err(inarch_core::Error::invalid("features in place of images", reason).into());
        let name = self.config.method.name();
        if self.views.count > 1 {
            let views = self.views.count;
            return refuse(format!(
                "`{name}` looks at {views} views of an image; `tda`, `dmn-weak` and `onzeta` at one"
            ));
        }
        if self.needs.entry < Entry::Feature {
            return refuse(format!("`{name}` changes the image tower and needs images"));
        }
        if self.model.sites.entry(Tower::Image) < Entry::Feature {
            return refuse("this adapter changes the image tower and needs images".into());
        }
        let features = self.model.sites.feature(Tower::Image, features, &Pass::evaluate());
        Ok(self.scored(ids, Rows::from_tensor(normalise(features)), 1))
    }

    /// The views from files of one image.
    fn files_of(&self, id: &str) -> Result<Vec<PathBuf>> {
        let Some(folder) = &self.config.stream.views_from else { return Ok(Vec::new()) };
        let folder = folder.join(id).with_extension("");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let files = file::list(&folder)?;
        Ok(files.into_iter().filter(|path| path.is_file() && inarch_core::data::is_image_name(path)).collect())
    }

    /// Normalised features of pixels, and, where the method enters the image tower, the stream there.
    fn encode(&self, pixels: &[f32]) -> Result<(Rows, Option<Stream>)> {
        let Model { backbone, sites, .. } = self.model;
        let size = backbone.preprocess().values_per_image();
        let side = backbone.spec().image.size;
        let keep = self.needs.entry < Entry::Feature;
        let entry = sites.entry(Tower::Image).min(self.needs.entry).min(Entry::Feature);
        let chunks: Vec<&[f32]> = pixels.chunks(ROWS * size).collect();
        let one = |chunk: &&[f32]| -> Result<(Tensor<2>, Option<Tensor<3>>)> {
            let pixels = backbone.pixels(chunk.to_vec(), [chunk.len() / size, 3, side, side])?;
            let partial = backbone.start_image(pixels, entry);
            let stream = partial.stream().filter(|_| keep);
            Ok((backbone.finish(Tower::Image, partial, sites, &Pass::evaluate()), stream))
        };
        let found: Result<Vec<_>> = parallel::map(&chunks, one).into_iter().collect();
        let (features, streams): (Vec<_>, Vec<_>) = found?.into_iter().unzip();
        let streams: Option<Vec<Tensor<3>>> = streams.into_iter().collect();
        let stream = streams.map(|streams| Stream { entry, tokens: Tensor::cat(streams, 0) });
        Ok((Rows::from_tensor(normalise(Tensor::cat(features, 0))), stream))
    }

    /// Episodes of features `[images * views, dim]`, with their scores.
    fn scored(&self, ids: &[&str], features: Rows, views: usize) -> Vec<Episode> {
        let world = world(&self.model, self.judge.as_ref());
        let shared = self.text.as_ref().map(|text| world.logits(&features, text));
        let episode = |(image, id): (usize, &&str)| {
            let rows: Vec<usize> = (image * views..(image + 1) * views).collect();
            let features = features.select(&rows);
            let (text, logits) = match (&self.text, &shared) {
                (Some(text), Some(logits)) => (Arc::clone(text), logits.select(&rows)),
                _ => {
                    let text = Arc::new(self.text_of(&features));
                    let logits = world.logits(&features, &text);
                    (text, logits)
                }
            };
            Episode { id: (*id).to_string(), features, logits, text, from_files: 0, stream: None, judged: None }
        };
        ids.iter().enumerate().map(episode).collect()
    }

    /// Class features under a prompt that depends on the image: its centre view.
    fn text_of(&self, features: &Rows) -> Rows {
        let Model { backbone, classifier, sites } = self.model;
        let condition = features.select(&[0]).tensor(backbone.device());
        let pass = Pass { condition: Some(&condition), ..Pass::evaluate() };
        Rows::from_tensor(normalise(classifier.text(classifier.start(sites), sites, &pass)))
    }

    /// Adapts to some episodes, in their order, and answers. What cannot be trusted falls back to the unadapted answer,
    /// and the method starts anew.
    ///
    /// # Errors
    /// An episode that the method cannot work with.
    pub fn adapt(&mut self, episodes: &[Episode]) -> Result<Vec<Outcome>> {
        let started = Instant::now();
        let answers = self.method.adapt(&world(&self.model, self.judge.as_ref()), episodes)?;
        let mut outcomes = Vec::with_capacity(episodes.len());
        let mut trusted = None;
        for (episode, Answer { scores, admitted, .. }) in episodes.iter().zip(answers) {
            let unadapted = episode.logits.row(0).to_vec();
            // After a collapse the other answers of the batch come from the same collapsed state.
            let fell_back = trusted.or_else(|| self.guard.check(&unadapted, &scores));
            if fell_back == Some(FallBack::Collapse) || (self.needs.online && fell_back.is_some()) {
                trusted = fell_back;
            }
            let scores = if fell_back.is_some() { unadapted.clone() } else { scores };
            let probabilities = softmax(&scores);
            let abstained = f64::from(probabilities[greatest(&probabilities)]) < self.config.stream.abstain;
            let position = self.position;
            self.position += 1;
            outcomes.push(Outcome {
                id: episode.id.clone(),
                position,
                scores,
                unadapted,
                fell_back,
                abstained,
                admitted,
            });
        }
        if trusted.is_some() {
            self.method.reset();
            self.guard.reset();
        }
        self.timing.adapt += started.elapsed().as_secs_f64();
        Ok(outcomes)
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.method.reset();
        self.guard.reset();
        self.position = 0;
    }

    /// Everything that the stream remembers.
    pub fn snapshot(&self) -> Snapshot {
        let backbone = self.model.backbone.digest().clone();
        let classes = self.model.classifier.classes().to_vec();
        let method = self.config.method.clone();
        let head = SnapshotHead::new(method, backbone, self.texts(), classes, self.position, self.guard.clone());
        Snapshot::new(head, self.method.state())
    }

    /// Goes on from a snapshot.
    ///
    /// # Errors
    /// [`inarch_core::Error::Refused`] for one of another method, backbone, adapter or list of classes.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        let refuse = |what: &str, expected: String, found: String| -> Result<()> {
            Err(inarch_core::Error::Refused { what: format!("{what} of the test-time state"), expected, found }.into())
        };
        let head = &snapshot.head;
        let (own, found) = (&self.config.method, &head.method);
        if own != found {
            let text = |method| serde_json::to_string(method).unwrap_or_default();
            return refuse("method", text(own), text(found));
        }
        let backbone = self.model.backbone.digest();
        if *backbone != head.backbone {
            return refuse("backbone", backbone.to_string(), head.backbone.to_string());
        }
        let classes = self.model.classifier.classes();
        if classes != head.classes {
            return refuse("classes", classes.join(", "), head.classes.join(", "));
        }
        let own = self.texts();
        // Other devices and numbers of cores round in another way.
        let near = |(own, found): (&f32, &f32)| (own - found).abs() < 1e-3;
        if own.len() != head.texts.len() || !own.iter().zip(&head.texts).all(near) {
            return refuse("adapter or templates", "those of now".into(), "others".into());
        }
        let fault = |reason| Error::Core(inarch_core::Error::invalid("test-time state", reason));
        self.method.restore(snapshot.state()).map_err(fault)?;
        self.position = head.position;
        self.guard.go_on_from(&head.guard);
        Ok(())
    }

    /// The mean of the class features: another one means other names, prompts or another adapter.
    fn texts(&self) -> Vec<f32> {
        self.text.as_ref().map(|text| text.mean()).unwrap_or_default()
    }
}
