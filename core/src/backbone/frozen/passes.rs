//! Passes through the towers: from pixels and words to features, whole or from where a frozen prefix ends.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use super::super::batch;
use super::super::partial::{Partial, Texts};
use super::super::pass::Pass;
use super::super::place::{Entry, Tower};
use super::super::pool::Frames;
use super::super::site::{Frozen, Sites};
use super::{Backbone, NO_TOWERS, Source, normalise};
use crate::device::workers;
use crate::error::{Error, Result};

impl Backbone {
    /// Pixels `[images, 3, size, size]`, row-major, on this backbone's device.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the number of values or the size is wrong; as [`need_towers`](Self::need_towers).
    pub fn pixels(&self, data: Vec<f32>, shape: [usize; 4]) -> Result<Tensor<4>> {
        self.need(Tower::Image, "images")?;
        let size = self.spec.image.size;
        if shape[1..] != [3, size, size] || data.len() != shape.iter().product::<usize>() {
            return Err(Error::mismatch(
                "pixels",
                format!("[images, 3, {size}, {size}]"),
                format!("{shape:?} with {} values", data.len()),
            ));
        }
        Ok(Tensor::from_data(TensorData::new(data, shape), &self.device))
    }

    /// The frozen part of the image tower, up to `entry`.
    ///
    /// # Panics
    /// Without towers, which have no [`pixels`](Self::pixels) either.
    pub fn start_image(&self, pixels: Tensor<4>, entry: Entry) -> Partial {
        self.start_clips(pixels, Frames::STILL, entry)
    }

    /// As [`start_image`](Self::start_image) for the frames of clips, clip by clip.
    ///
    /// # Panics
    /// Without towers, or when the frames are no whole clips.
    pub fn start_clips(&self, pixels: Tensor<4>, frames: Frames, entry: Entry) -> Partial {
        let (tower, spec) = (self.towers().expect(NO_TOWERS).image(), &self.spec.image);
        let start = |pixels: Tensor<4>| tower.start(spec, pixels, frames, entry);
        Partial::join(self.in_clips(&pixels, frames, start), None)
    }

    /// `work` on pixels in parts of whole clips.
    fn in_clips(&self, pixels: &Tensor<4>, frames: Frames, work: impl Fn(Tensor<4>) -> Partial + Sync) -> Vec<Partial> {
        let ([images, _, _, _], frames) = (pixels.dims(), frames.count());
        assert!(images.is_multiple_of(frames), "{images} images are no whole clips of {frames} frames");
        self.in_parts(images / frames, batch::PART.div_ceil(frames), |clips| {
            work(pixels.clone().narrow(0, clips.start * frames, clips.len() * frames))
        })
    }

    /// The frozen part of the text tower, up to `entry`. Each row is `BOS .. EOT`; without towers it is the place of a text. Where
    /// words have no features ([`has_words`](Self::has_words)) they are zero: an adapter puts what it has learned in their place. So are
    /// those of texts that have none before they meet an image ([`crosses`](Self::crosses)).
    pub fn start_text(&self, rows: &[Vec<u32>], entry: Entry) -> Partial {
        let model = match &self.source {
            Source::Towers(model) => model,
            Source::Embeddings(embeddings) => return embeddings.start(rows),
        };
        let Some(tower) = model.text.as_ref().filter(|_| !self.crosses()) else {
            return Partial::feature(Tensor::zeros([rows.len(), self.spec.dim], &self.device));
        };
        let spec = &self.spec.text;
        let run = |rows: &[&[u32]], longest: usize, texts: Texts| {
            tower.start(spec, rows, longest, texts, entry, &self.device)
        };
        match entry {
            Entry::Pool | Entry::Feature | Entry::Never => batch::sorted(rows, spec.is_causal(), self.workers(), run),
            _ => batch::in_order(rows, spec.is_causal(), self.workers(), run),
        }
    }

    /// `work` on ranges that make up `0..rows`: one for each core, none of less than `least` rows, where the processor
    /// computes, else a single one.
    pub fn in_parts<R: Send>(&self, rows: usize, least: usize, work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        batch::parts(rows, self.workers(), least, work)
    }

    /// On how many threads parts of a batch may run.
    fn workers(&self) -> usize {
        workers(&self.device)
    }

    /// The rest of a tower through the adapter, short of its feature site: `[rows, dim]`, not normalised.
    ///
    /// # Panics
    /// When `partial` has come further than the adapter's entry, so that the adapter would be passed over.
    ///
    /// A classifier averages the templates of a class here, so that the feature site sees classes, not texts.
    pub fn output(&self, tower: Tower, partial: Partial, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let unmet = tower == Tower::Text && self.crosses();
        assert!(
            unmet || partial.entry <= sites.entry(tower).clamp(self.beginning(tower), Entry::Feature),
            "the {tower} tower was advanced to {:?}, past the adapter's entry {:?}",
            partial.entry,
            sites.entry(tower)
        );
        let partial = match (self.towers(), tower) {
            (None, _) => partial,
            (Some(_), tower) if unmet || !self.spec.has(tower) => partial,
            (Some(model), Tower::Image) => {
                model.image().advance(&self.spec.image, partial, Entry::Feature, sites, pass)
            }
            (Some(model), Tower::Text) => model.text().advance(&self.spec.text, partial, Entry::Feature, sites, pass),
        };
        partial.into_feature().expect("the tower ran to its end")
    }

    /// The rest of a tower through the adapter: features `[rows, dim]`, not normalised.
    pub fn finish(&self, tower: Tower, partial: Partial, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let unknown = tower == Tower::Image && sites.queries_image() && pass.query.is_none();
        let frozen = Pass { frames: pass.frames, ..Pass::evaluate() };
        let query = unknown.then(|| normalise(self.output(tower, partial.clone(), &Frozen, &frozen)));
        let pass = &Pass { query: query.as_ref().or(pass.query), ..*pass };
        let of_frames = pass.query.map(|query| pass.frames.spread(query.clone()));
        let output = self.output(tower, partial, sites, &Pass { query: of_frames.as_ref(), ..*pass });
        sites.feature(tower, output, pass)
    }

    /// Image features `[images, dim]`, not normalised; where the pass says that the images are frames, one for each clip.
    pub fn encode_image(&self, pixels: Tensor<4>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let partial = self.start_clips(pixels, pass.frames, sites.entry(Tower::Image));
        self.finish(Tower::Image, partial, sites, pass)
    }

    /// As [`encode_image`](Self::encode_image) in an evaluation pass, its rows on all cores: for adapters that take each row by
    /// itself, as all but [`Mixed`](super::super::Mixed) do, and without gradients.
    pub fn evaluate_image(&self, pixels: Tensor<4>, sites: &dyn Sites) -> Tensor<2> {
        self.evaluate_clips(pixels, Frames::STILL, sites)
    }

    /// As [`evaluate_image`](Self::evaluate_image) for the frames of clips, clip by clip: features `[clips, dim]`.
    pub fn evaluate_clips(&self, pixels: Tensor<4>, frames: Frames, sites: &dyn Sites) -> Tensor<2> {
        let pass = Pass { frames, ..Pass::evaluate() };
        let part = |pixels| Partial::feature(self.encode_image(pixels, sites, &pass));
        let joined = Partial::join(self.in_clips(&pixels, frames, part), None);
        joined.into_feature().expect("features of all parts")
    }

    /// Text features `[rows, dim]`, not normalised.
    pub fn encode_text(&self, rows: &[Vec<u32>], sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let partial = self.start_text(rows, sites.entry(Tower::Text));
        self.finish(Tower::Text, partial, sites, pass)
    }
}
