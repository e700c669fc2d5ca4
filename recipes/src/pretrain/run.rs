//! Contrastive pre-training from scratch: pairs to a backbone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module as _;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, MuonConfig};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, BackboneSpec, DualEncoder, normalise};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors, write_backbone};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};
use inarch_core::text::{Tokenizer, reduce_vocabulary};
use inarch_core::{Digest, DigestBuilder, Seed, file};
use serde::Serialize;

use super::init::initial_weights;
use super::pairs::PairSet;
use super::recipe::PretrainRecipe;
use crate::contrastive::{PairLoss, Pairs};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::saved_run::{SAVE_SECONDS, SavedRun, load_optimizer, save_optimizer};
use crate::shards::{Shard, ShardCounts, ShardFeatures, Shards, sharded_gradients};

/// Images in a shard: small enough for the activations to stay in cache.
const SHARD: usize = 32;
/// The logit scale is not let grow beyond this, as in CLIP.
const SCALE_LIMIT: f32 = 100.0;
/// Images from which the patch filters are taken.
const SAMPLE: usize = 4000;
/// Bytes of decoded images that are kept in memory.
const CACHE_BYTES: usize = 1 << 30;

/// One line for each epoch.
const LOG: &str = "log.jsonl";

/// What a finished run has made.
#[derive(Debug)]
pub struct Pretrained {
    /// The backbone, read back from disk.
    pub folder: PathBuf,
    /// Steps done.
    pub steps: usize,
    /// Mean loss of the last epoch.
    pub loss: f32,
    /// Wall-clock seconds of this process.
    pub seconds: f64,
}

#[derive(Serialize)]
struct LogLine {
    epoch: usize,
    loss: f32,
    logit_scale: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit_bias: Option<f32>,
    seconds: f64,
}

struct Trainer<'a> {
    recipe: &'a PretrainRecipe,
    spec: BackboneSpec,
    tokenizer: Tokenizer,
    pairs: &'a PairSet,
    device: &'a Device,
    model: DualEncoder,
    rest: ModuleOptimizer,
    matrices: ModuleOptimizer,
    seed: Seed,
    steps: usize,
}

/// Trains a backbone into `folder`, in the Hugging Face layout. An unfinished run in `folder` is continued.
///
/// # Errors
/// Faults of the data, a diverged loss, or [`Error::Interrupted`] after the state was saved.
pub fn pretrain(
    recipe: &PretrainRecipe,
    pairs: &PairSet,
    tokenizer: &Path,
    folder: &Path,
    device: &Device,
    control: Control<'_>,
) -> Result<Pretrained> {
    let started = Instant::now();
    check(recipe, pairs)?;
    let bytes = file::read(tokenizer)?;
    // Read whole first, since its faults name the file.
    Tokenizer::from_bytes(&bytes, tokenizer, recipe.model.context)?;
    let bytes = if recipe.merges > 0 { reduce_vocabulary(&bytes, recipe.merges)? } else { bytes };
    let tokenizer = Tokenizer::from_bytes(&bytes, tokenizer, recipe.model.context)?;
    let spec = recipe.spec(tokenizer.vocab_size());
    spec.check()?;

    let run = SavedRun::new(folder, identity(recipe, pairs, &tokenizer));
    let saved = run.load()?;
    // Before any work, so that a folder that cannot be written is found at once.
    file::create_folder(folder)?;

    let seed = Seed::new(recipe.seed);
    let loader = Loader::new(recipe.preprocess.clone())?
        .with_batch_size(recipe.train.batch)
        .with_prefetch(2)
        .with_cache_bytes(CACHE_BYTES);
    let weights = match &saved {
        Some((_, state)) => read_safetensors(&state.join("model.safetensors"))?.0,
        None => {
            control.progress.say("measuring pixel statistics");
            let sample = sample_pixels(&loader, pairs, seed.split("sample"))?;
            initial_weights(&spec, &sample, seed.split("init"))
        }
    };
    let model = DualEncoder::from_state_dict(&spec, weights, folder, device)?;
    let steps_per_epoch = pairs.len() / recipe.train.batch;
    let decay = recipe.train.weight_decay;
    let mut trainer = Trainer {
        recipe,
        tokenizer,
        pairs,
        device,
        model: inarch_peft::identified(model.fork(&device.clone().autodiff()).train()),
        rest: AdamWConfig::new().with_beta_2(0.98).with_epsilon(1e-8).with_weight_decay(0.0).init(),
        matrices: MuonConfig::new().with_weight_decay(Some(burn::optim::decay::WeightDecayConfig::new(decay))).init(),
        seed,
        steps: recipe.train.epochs * steps_per_epoch,
        spec,
    };
    let mut step = 0;
    if let Some((saved_step, state)) = &saved {
        trainer.rest = load_optimizer(trainer.rest, &state.join("rest.bin"))?;
        trainer.matrices = load_optimizer(trainer.matrices, &state.join("matrices.bin"))?;
        step = *saved_step;
        control.progress.say(&format!("going on from step {step} of {}", trainer.steps));
    }

    keep_log(folder, step / steps_per_epoch)?;
    control.progress.start("pretrain", trainer.steps as u64);
    control.progress.resume(step as u64);
    let mut last_saved = Instant::now();
    let mut epoch_loss = 0.0f32;
    while step < trainer.steps {
        let epoch = step / steps_per_epoch;
        let jobs = trainer.jobs(epoch, steps_per_epoch, step);
        let (first, epoch_started) = (step, Instant::now());
        let mut losses = Vec::new();
        loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
            let loss = trainer.step(step, batch)?;
            losses.push(loss);
            step += 1;
            control.progress.advance(1, &format!("epoch {} loss {loss:.3}", epoch + 1));
            let stop = control.stopped();
            if stop || last_saved.elapsed().as_secs() >= SAVE_SECONDS {
                run.save(step, |into| trainer.save(into))?;
                last_saved = Instant::now();
            }
            if stop { Err(Error::Interrupted { step, steps: trainer.steps }) } else { Ok(()) }
        })?;
        epoch_loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        let line = LogLine {
            epoch: epoch + 1,
            loss: epoch_loss,
            logit_scale: trainer.logit_scale(),
            logit_bias: trainer.model.logit_bias.as_ref().map(|bias| bias.val().into_scalar::<f32>()),
            seconds: started.elapsed().as_secs_f64(),
        };
        log(folder, &line)?;
        control.progress.say(&format!(
            "epoch {} of {}: loss {epoch_loss:.4}, {:.0} images/s",
            epoch + 1,
            recipe.train.epochs,
            ((step - first) * recipe.train.batch) as f64 / epoch_started.elapsed().as_secs_f64().max(1e-9)
        ));
    }
    control.progress.finish();
    let name = recipe.name.clone();
    let tensors = trainer.model.state_dict(&trainer.spec);
    let Trainer { spec, tokenizer, steps, .. } = trainer;
    let backbone = Backbone::new(name, spec, tensors, tokenizer, recipe.preprocess.clone(), folder, device)?;
    write_backbone(&backbone, folder, Precision::F16)?;
    run.clear()?;
    Ok(Pretrained { folder: folder.to_path_buf(), steps, loss: epoch_loss, seconds: started.elapsed().as_secs_f64() })
}

fn check(recipe: &PretrainRecipe, pairs: &PairSet) -> Result<()> {
    let train = &recipe.train;
    let fault = |origin: &str, reason: String| Error::Recipe { origin: origin.into(), reason };
    if train.batch < 2 || train.batch > pairs.len() {
        let reason = format!("must be 2 to {} (the number of pairs), found {}", pairs.len(), train.batch);
        return Err(fault("train.batch", reason));
    }
    if train.pair_loss == PairLoss::Sigmoid && train.smoothing != 0.0 {
        let reason = "there is none in the sigmoid loss, which has a target for each image and text: set it to 0";
        return Err(fault("train.smoothing", reason.into()));
    }
    if train.epochs == 0 {
        return Err(fault("train.epochs", "must be at least 1".into()));
    }
    for (name, value) in [("train.lr", train.lr), ("train.matrix_lr", train.matrix_lr)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(fault(name, format!("must be above 0, found {value}")));
        }
    }
    recipe.augment.validate()?;
    check_model(recipe)
}

/// What the shape of a model must be beside what every backbone's is.
fn check_model(recipe: &PretrainRecipe) -> Result<()> {
    let fault = |origin: &str, reason: String| Err(Error::Recipe { origin: origin.into(), reason });
    let crop = recipe.preprocess.crop;
    if crop.height != crop.width {
        return fault("preprocess.crop", format!("must be a square, found {} x {}", crop.height, crop.width));
    }
    // Positions start in a subspace of their own.
    let width = recipe.model.image.width;
    if width < 8 {
        return fault("model.image.width", format!("must be at least 8, found {width}"));
    }
    Ok(())
}

fn identity(recipe: &PretrainRecipe, pairs: &PairSet, tokenizer: &Tokenizer) -> Digest {
    let mut builder = DigestBuilder::default();
    builder.piece(serde_json::to_string(recipe).unwrap_or_default().as_bytes());
    builder.piece(pairs.digest().to_string().as_bytes());
    builder.piece(tokenizer.digest().to_string().as_bytes());
    builder.finish()
}

fn sample_pixels(loader: &Loader, pairs: &PairSet, seed: Seed) -> Result<Vec<f32>> {
    let jobs: Vec<ImageJob> = seed
        .order(pairs.len())
        .into_iter()
        .take(SAMPLE)
        .map(|index| ImageJob { index, path: pairs.path(index).clone(), frame: None, bytes: None, view: View::Centre })
        .collect();
    let mut pixels = Vec::new();
    loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
        pixels.extend(batch.pixels);
        Ok(())
    })?;
    Ok(pixels)
}

impl Trainer<'_> {
    fn jobs(&self, epoch: usize, steps_per_epoch: usize, step: usize) -> Vec<ImageJob> {
        let batch = self.recipe.train.batch;
        let order = self.seed.split("order").split(epoch).order(self.pairs.len());
        let plain_from = (self.steps as f64 * (1.0 - self.recipe.train.plain_share)) as usize;
        let augment = Arc::new(self.recipe.augment.clone());
        let seed = self.seed.split("augment").split(epoch);
        let skip = (step % steps_per_epoch) * batch;
        order
            .into_iter()
            .take(steps_per_epoch * batch)
            .enumerate()
            .skip(skip)
            .map(|(position, index)| {
                let at = epoch * steps_per_epoch + position / batch;
                let view = if at >= plain_from {
                    View::Centre
                } else {
                    View::Augmented { augment: augment.clone(), seed: seed.split(index) }
                };
                ImageJob { index, path: self.pairs.path(index).clone(), frame: None, bytes: None, view }
            })
            .collect()
    }

    /// One step; returns the loss.
    fn step(&mut self, step: usize, batch: ImageBatch) -> Result<f32> {
        let draw = self.seed.split("caption").split(step);
        let pairs = Pairs::new(batch.indices.iter().map(|index| self.pairs.caption(*index, draw)));
        let rows: Vec<Vec<u32>> = self.tokenizer.encode(&pairs.texts)?.into_iter().map(|tokens| tokens.ids).collect();
        let (spec, device, model) = (&self.spec, self.device, &self.model);
        let smoothing = self.recipe.train.smoothing;
        let shards = Shards::new(&batch, SHARD, device);
        let forward = |model: &DualEncoder, shard: Shard| match shard {
            Shard::Image(shard) => model.image_features(spec, shards.pixels(shard)),
            Shard::Text(_) => unreachable!("the texts of pairs are not cut"),
        };
        let loss = |features: ShardFeatures| {
            let image = Tensor::cat(features.images, 0);
            let text = normalise(model.text_features(spec, &rows, device));
            let scale = log_scale(model).clamp_max(SCALE_LIMIT.ln()).exp();
            let image = normalise(image);
            let loss = match &model.logit_bias {
                None => pairs.loss(image, text, scale, smoothing),
                Some(bias) => pairs.sigmoid_loss(image, text, scale, bias.val()),
            };
            (loss, ())
        };
        let (mut gradients, loss, ()) =
            sharded_gradients(model, ShardCounts { images: shards.count(), texts: 0, recompute: false }, forward, loss);
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let rate = schedule(step, self.steps, self.recipe.train.warmup);
        let model = self.model.clone();
        let mut chosen = GradientsParams::new();
        let mut split = Matrices { gradients: &mut gradients, chosen: &mut chosen, path: Vec::new() };
        model.visit(&mut split);
        let model = self.matrices.step(self.recipe.train.matrix_lr * rate, model, chosen);
        self.model = self.rest.step(self.recipe.train.lr * rate, model, gradients);
        Ok(loss)
    }

    fn logit_scale(&self) -> f32 {
        log_scale(&self.model).into_scalar::<f32>().exp()
    }

    fn save(&self, into: &Path) -> Result<()> {
        let tensors = self.model.state_dict(&self.spec);
        let bytes = encode_safetensors(&tensors, Default::default(), Precision::F32)?;
        file::write(&into.join("model.safetensors"), &bytes)?;
        save_optimizer(&self.rest, &into.join("rest.bin"))?;
        save_optimizer(&self.matrices, &into.join("matrices.bin"))
    }
}

/// Drops the lines of the epochs that are trained again, and those of an earlier run.
fn keep_log(folder: &Path, epochs: usize) -> Result<()> {
    let path = folder.join(LOG);
    if !path.is_file() {
        return Ok(());
    }
    let text = file::read_text(&path)?;
    let kept: String = text.split_inclusive('\n').take(epochs).collect();
    Ok(if kept.is_empty() { file::remove(&path) } else { file::write(&path, kept.as_bytes()) }?)
}

fn log(folder: &Path, line: &LogLine) -> Result<()> {
    let path = folder.join(LOG);
    let mut text = if path.is_file() { file::read_text(&path)? } else { String::new() };
    text.push_str(&serde_json::to_string(line).unwrap_or_default());
    text.push('\n');
    Ok(file::write(&path, text.as_bytes())?)
}

/// Linear rise, then linear fall to zero.
fn schedule(step: usize, steps: usize, warmup: f64) -> f64 {
    let rise = (warmup * steps as f64).max(1.0);
    let step = step as f64;
    if step < rise { (step + 1.0) / rise } else { (steps as f64 - step) / (steps as f64 - rise).max(1.0) }
}

/// Takes the gradients of the matrices inside the blocks out of `gradients`.
struct Matrices<'a> {
    gradients: &'a mut GradientsParams,
    chosen: &'a mut GradientsParams,
    path: Vec<String>,
}

impl burn::module::ModuleVisitor for Matrices<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        if D == 2
            && self.path.iter().any(|name| name == "blocks")
            && let Some(gradient) = self.gradients.remove::<D>(param.id)
        {
            self.chosen.register(param.id, gradient);
        }
    }
}

/// The logarithm of the logit scale, `[1]`.
fn log_scale(model: &DualEncoder) -> Tensor<1> {
    model.logit_scale.as_ref().expect("two towers have a temperature").val()
}

#[cfg(test)]
mod tests {
    use super::{PretrainRecipe, check_model};

    #[test]
    fn a_shape_that_cannot_be_trained_is_refused_by_its_key() {
        let check = |overrides: &[String]| {
            let text = include_str!("../../pocket/recipe.toml");
            check_model(&PretrainRecipe::parse(text, "recipe.toml", overrides).expect("a recipe"))
        };
        check(&[]).expect("the shipped one");
        for (assignment, key) in
            [("preprocess.crop.height=64", "preprocess.crop"), ("model.image.width=4", "model.image.width")]
        {
            let error = check(&[assignment.to_string()]).expect_err(assignment).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
