//! New data as samples: under names that stay, with latents as they will be stored.

use inarch_core::Digest;
use inarch_core::data::{Dataset, Example};
use inarch_core::image::BadImage;
use inarch_recipes::Session;

use crate::error::Result;
use crate::memory::{Content, Precision, Sample};

/// What new samples are told apart by and when they came.
#[derive(Clone, Copy)]
pub(crate) struct Intake<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) dataset: &'a Dataset,
    pub(crate) time: u64,
    /// How the latents are rounded that the ids tell of: as the memory rounds them, whatever the samples are kept in, so that what
    /// was learned and what is held out have the same names.
    pub(crate) named: Precision,
}

/// Examples that could be read, and images that could not.
pub(crate) struct Taken {
    /// The position of each sample among the examples.
    pub(crate) positions: Vec<usize>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) bad: Vec<BadImage>,
}

impl Intake<'_> {
    /// Examples as samples, rounded to a precision, and a line about each image that could not be read. The id is the name of
    /// the data, the path in it, and a hash of the latent, so that two images of one name are two samples and one image
    /// given twice is one.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(crate) fn samples(&self, examples: &[Example], precision: Precision, content: Content) -> Result<Vec<Sample>> {
        let taken = self.taken(examples, precision, content)?;
        self.name_unread(&taken.bad);
        Ok(taken.samples)
    }

    /// Names images that could not be read to whoever watches; a report, which lies about, counts them.
    pub(crate) fn name_unread(&self, bad: &[BadImage]) {
        let progress = self.session.control().progress;
        bad.iter().for_each(|bad| progress.say(&format!("{}: could not be read", bad.path.display())));
    }

    /// As [`samples`](Self::samples), with the position of each among the examples, and what cannot be read and is passed over.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(crate) fn taken(&self, examples: &[Example], precision: Precision, content: Content) -> Result<Taken> {
        let features = self.session.features(examples)?;
        let kept: Vec<&Example> = features.kept.iter().map(|position| &examples[*position]).collect();
        let images = content.images(&kept)?;
        let mut samples = Vec::with_capacity(kept.len());
        for ((latent, example), image) in features.values.chunks_exact(features.dim).zip(kept).zip(images) {
            let hash = Digest::of_values(&self.named.rounded(latent));
            samples.push(Sample {
                id: format!("{}/{}#{}", self.dataset.name, example.id, &hash.short()[..8]),
                class: self.dataset.classes[example.label].clone(),
                source: self.dataset.name.clone(),
                time: self.time,
                weight: 1.0,
                latent: precision.rounded(latent),
                views: Vec::new(),
                image,
                scores: Vec::new(),
            });
        }
        Ok(Taken { positions: features.kept, samples, bad: features.bad })
    }
}
