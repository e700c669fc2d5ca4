//! `inarch predict` without classes: captions, by a backbone that writes them.

use inarch_core::backbone::{Pass, Sites};
use inarch_core::image::{ImageBatch, Loader};
use inarch_recipes::Error::Stopped;
use inarch_recipes::{CaptionSearch, writes_captions};
use serde::Serialize;

use crate::adapter::Model;
use crate::args::PredictArgs;
use crate::commands::predict::{jobs, shown_name};
use crate::error::CommandError;
use crate::output::{Output, names_of, unread};
use crate::progress::Bars;

/// Words of a caption at most.
const WORDS: usize = 30;

/// What is printed with `--json`.
#[derive(Serialize)]
struct CaptionResult {
    model: String,
    images: Vec<ImageCaption>,
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct ImageCaption {
    image: String,
    caption: String,
    /// The mean log-likelihood of the caption's words.
    score: f32,
}

/// Whether captions are asked for: no classes are given, the adapter knows none, and the backbone writes.
pub(crate) fn wanted(args: &PredictArgs, model: &Model) -> bool {
    let known = model.adapter.as_ref().is_some_and(|artifact| !artifact.manifest.classes.is_empty());
    args.classes.is_empty() && !known && writes_captions(&model.backbone)
}

pub(crate) fn run(args: &PredictArgs, model: &Model, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let (backbone, sites): (_, &dyn Sites) = (&model.backbone, model.sites());
    let search = CaptionSearch { beams: args.beams.get(), words: WORDS };
    let shown = args.shown.beside(model);
    let (paths, jobs) = jobs(args, &shown)?;
    let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image);
    let loader = Loader::new(backbone.preprocess().clone())?.with_on_bad_image(policy.into());
    let control = bars.control();
    let progress = control.progress;
    let mut images = Vec::with_capacity(jobs.len());
    progress.start("caption", jobs.len() as u64);
    let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<(), CommandError> {
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        let found = backbone.encode_image(pixels, sites, &Pass::evaluate());
        for (row, index) in batch.indices.iter().enumerate() {
            if control.stopped() {
                return Err(Stopped { what: "images", done: images.len(), total: jobs.len() }.into());
            }
            let caption = search.caption(backbone, &found.clone().narrow(0, row, 1), sites)?;
            let image = shown_name(&shown, &paths[*index]);
            images.push(ImageCaption { image, caption: caption.text, score: caption.log_likelihood });
            progress.advance(1, "");
        }
        Ok(())
    })?;
    progress.finish();
    let skipped = names_of(&bad);
    let result = CaptionResult { model: model.name(), images, skipped };
    output.result(&result, || text(&result));
    Ok(())
}

fn text(result: &CaptionResult) -> String {
    let captions = result.images.iter().map(|image| format!("{}: {}\n", image.image, image.caption));
    captions.chain([unread(&result.skipped)]).collect()
}
