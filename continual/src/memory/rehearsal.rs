//! The memory itself.

use std::collections::BTreeMap;

use inarch_core::Seed;

use super::config::{Content, MemoryConfig, Sampler};
use super::fingerprint::Fingerprint;
use super::sample::Sample;
use super::sampler::{UNPLACED, order, placed};
use super::seal::OVERHEAD;
use super::snapshot::frame_bytes;
use crate::error::{Error, Result};

/// Seconds of a day.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Samples under a budget of bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    pub(super) config: MemoryConfig,
    pub(super) fingerprint: Fingerprint,
    /// How many samples of each class were ever offered, but for those that were taken out.
    pub(super) offered: BTreeMap<String, u64>,
    pub(super) samples: BTreeMap<String, Sample>,
}

impl Memory {
    /// An empty memory.
    ///
    /// # Errors
    /// A setting outside its domain.
    pub fn new(config: MemoryConfig, fingerprint: Fingerprint) -> Result<Self> {
        config.check()?;
        Ok(Self { config, fingerprint, offered: BTreeMap::new(), samples: BTreeMap::new() })
    }

    /// Its settings.
    pub fn config(&self) -> &MemoryConfig {
        &self.config
    }

    /// What its latents were made with.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Its samples in the order of their ids.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.samples.values()
    }

    /// A sample by its id.
    pub fn get(&self, id: &str) -> Option<&Sample> {
        self.samples.get(id)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How many samples of each class were ever offered, but for those that were taken out.
    pub fn offered(&self) -> &BTreeMap<String, u64> {
        &self.offered
    }

    /// How many samples of each class it holds.
    pub fn held(&self) -> BTreeMap<String, usize> {
        let mut held = BTreeMap::new();
        self.samples().for_each(|sample| *held.entry(sample.class.clone()).or_default() += 1);
        held
    }

    /// Bytes of its snapshot: samples, names, header, checksum. Encryption adds 48, which the budget has room for.
    pub fn bytes(&self) -> u64 {
        let records = self.samples().map(|sample| self.record_bytes(sample)).sum::<u64>();
        frame_bytes(self) + records
    }

    /// Offers samples; those that stay are chosen anew among all. A sample of an id that is there replaces it.
    ///
    /// # Errors
    /// A latent of another length, another number of views, an id or class that is empty, or a budget that is too small for a
    /// single sample.
    pub fn offer(&mut self, samples: impl IntoIterator<Item = Sample>) -> Result<()> {
        for sample in samples {
            let mut sample = self.checked(sample)?;
            if self.config.sampler == Sampler::Herding {
                sample.weight = UNPLACED;
            }
            self.count(&sample);
            self.samples.insert(sample.id.clone(), sample);
        }
        self.fit()
    }

    /// Offers a sample that stays if there is room beside all others. Where there is none, `victim` names another one to go in
    /// its place, again until it fits, or gives it up with `None`. Returns whether it stayed.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub fn offer_in_place(&mut self, sample: Sample, victim: &mut dyn FnMut(&Self) -> Option<String>) -> Result<bool> {
        let sample = self.checked(sample)?;
        self.count(&sample);
        let id = sample.id.clone();
        let replaced = self.samples.insert(id.clone(), sample);
        let mut stays = true;
        while stays && self.bytes() + OVERHEAD > self.config.budget_bytes {
            stays = victim(self).filter(|gone| *gone != id).and_then(|gone| self.samples.remove(&gone)).is_some();
        }
        if !stays && self.samples.len() > 1 {
            self.samples.remove(&id);
            if let Some(replaced) = replaced {
                self.samples.insert(id, replaced);
            }
        }
        // The name of a new class takes room as well, and a memory for nothing is an error.
        self.fit()?;
        Ok(stays)
    }

    /// A sample as it is kept.
    fn checked(&self, sample: Sample) -> Result<Sample> {
        let (dim, views) = (self.fingerprint.dim, self.config.views);
        let fault = if sample.id.is_empty() || sample.class.is_empty() {
            Some("id and class must not be empty".to_string())
        } else if sample.latent.len() != dim {
            Some(format!("its latent has {} values, expected {dim}", sample.latent.len()))
        } else if sample.views.len() != views.saturating_sub(1) * dim {
            let found = 1 + sample.views.len() / dim.max(1);
            Some(format!(
                "it has latents of {found} views, and this memory keeps {views} of each sample (`memory.views`), as `update` \
                 and `stream` make them for a strategy that rehearses; anything else needs a memory of one view"
            ))
        } else if !sample.latent.iter().chain(&sample.views).all(|value| value.is_finite()) {
            Some("its latent holds a value that is no number".to_string())
        } else if !(sample.weight.is_finite() && sample.weight > 0.0) {
            Some(format!("its weight must be above 0, found {}", sample.weight))
        } else {
            None
        };
        let refused = |id: &str, reason: String| Err(Error::setting(format!("sample `{id}`"), reason));
        if let Some(reason) = fault {
            return refused(&sample.id, reason);
        }
        let kept = sample.into_kept(self.config.precision, self.config.content == Content::Images);
        if !kept.latent.iter().chain(&kept.views).all(|value| value.is_finite()) {
            let reason =
                "its latent holds a value that is too large for `f16`; a memory of `f32` takes it (`memory.precision`)";
            return refused(&kept.id, reason.into());
        }
        Ok(kept)
    }

    /// Counts an offer, unless the sample is there; of one that is there under another class the count moves with it.
    fn count(&mut self, sample: &Sample) {
        let before = self.samples.get(&sample.id).map(|own| own.class.clone());
        if before.as_ref() != Some(&sample.class) {
            if let Some(class) = before {
                self.uncount(&class);
            }
            *self.offered.entry(sample.class.clone()).or_default() += 1;
        }
    }

    /// The same samples; with those that come from now on their images are kept too, under a budget of at least `budget_bytes`.
    #[must_use]
    pub(crate) fn keeping_images(mut self, budget_bytes: u64) -> Self {
        if self.config.content != Content::Images {
            self.config.content = Content::Images;
            self.config.budget_bytes = self.config.budget_bytes.max(budget_bytes);
        }
        self
    }

    /// Takes samples out, as if they had never been offered; returns those that were there. A class without another sample is not
    /// named any more.
    pub fn remove(&mut self, ids: &[String]) -> Vec<Sample> {
        let gone: Vec<Sample> = ids.iter().filter_map(|id| self.samples.remove(id)).collect();
        gone.iter().for_each(|sample| self.uncount(&sample.class));
        gone
    }

    /// Takes back an offer of a sample of some class that is not there: unless all that count are, for then it was taken out before.
    pub(crate) fn uncount_dropped(&mut self, class: &str) {
        let held = self.samples().filter(|sample| sample.class == class).count() as u64;
        if self.offered.get(class).is_some_and(|offered| *offered > held) {
            self.uncount(class);
        }
    }

    /// Takes back an offer of a sample of some class.
    fn uncount(&mut self, class: &str) {
        if let Some(count) = self.offered.get_mut(class) {
            *count = count.saturating_sub(1);
        }
        if self.offered.get(class) == Some(&0) {
            self.offered.remove(class);
        }
    }

    /// The ids of samples that are older than allowed at `now` (seconds since 1970).
    pub fn expired(&self, now: u64) -> Vec<String> {
        let Some(days) = self.config.most_days else { return Vec::new() };
        let oldest = now.saturating_sub(u64::from(days) * DAY_SECONDS);
        self.samples().filter(|sample| sample.time < oldest).map(|sample| sample.id.clone()).collect()
    }

    /// Drops samples that are older than allowed at `now` (seconds since 1970); returns how many.
    pub fn expire(&mut self, now: u64) -> usize {
        let old = self.expired(now);
        self.remove(&old).len()
    }

    /// Sets the scores that the samples had when they were learned.
    pub fn set_scores(&mut self, scores: impl IntoIterator<Item = (String, Vec<f32>)>) {
        for (id, scores) in scores {
            if let Some(sample) = self.samples.get_mut(&id) {
                sample.scores = scores.into_iter().map(|score| half::f16::from_f32(score).to_f32()).collect();
            }
        }
    }

    /// Joins another memory of the same backbone: the memory of everything that was offered to both. For hash-key samplers
    /// of one seed and budget this is exactly what one memory would hold.
    ///
    /// # Errors
    /// Another backbone, or settings that choose differently.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.join(other, None)
    }

    /// As [`merge`](Self::merge), of memories that both go on from `base`, whose offers count once.
    pub(crate) fn join(&mut self, other: &Self, base: Option<&Self>) -> Result<()> {
        self.fingerprint.check(&other.fingerprint, "one memory")?;
        if self.config != other.config {
            let [expected, found] =
                [&self.config, &other.config].map(|config| serde_json::to_string(config).unwrap_or_default());
            return Err(inarch_core::Error::mismatch("settings of the memories", expected, found).into());
        }
        for (class, count) in &other.offered {
            *self.offered.entry(class.clone()).or_default() += count;
        }
        // Also of what the base did not keep, which is in neither.
        for (class, count) in base.iter().flat_map(|base| &base.offered) {
            if let Some(own) = self.offered.get_mut(class) {
                *own = own.saturating_sub(*count);
            }
        }
        for (id, sample) in &other.samples {
            let own = self.samples.get(id);
            // Offered to both, and one sample all the same.
            let twice = own.filter(|_| base.is_none_or(|base| base.get(id).is_none()));
            if let Some(count) = twice.and_then(|own| self.offered.get_mut(&own.class)) {
                *count = count.saturating_sub(1);
            }
            // A latent does not take the place of an image.
            if own.is_none_or(|own| own.image.is_none() || sample.image.is_some()) {
                self.samples.insert(id.clone(), sample.clone());
            }
        }
        self.fit()
    }

    /// `count` positions among [`samples`](Self::samples), drawn anew for each `step`; none from an empty memory.
    pub fn draw(&self, count: usize, step: Seed) -> Vec<usize> {
        drawn(self.samples.len(), count, step)
    }

    /// Drops what does not fit: keeps the longest beginning of the sampler's order.
    fn fit(&mut self) -> Result<()> {
        // The header tells how many samples there are: how many stay, and not how many came, decides how long that is.
        let frame = frame_bytes(self) - digits(self.samples.len()) + OVERHEAD;
        let room = self.config.budget_bytes.checked_sub(frame).ok_or_else(|| {
            let reason = format!(
                "{} bytes do not even hold the names of {} classes; give more",
                self.config.budget_bytes,
                self.offered.len()
            );
            Error::setting("memory.budget_bytes", reason)
        })?;
        let total: u64 = self.samples().map(|sample| self.record_bytes(sample)).sum();
        if total + digits(self.samples.len()) <= room {
            return Ok(());
        }
        let order = order(&self.config, &self.samples);
        let (mut kept, mut places) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
        let mut used = 0;
        for id in order {
            let Some(mut sample) = self.samples.remove(&id) else { continue };
            used += self.record_bytes(&sample);
            if used + digits(kept.len() + 1) > room {
                break;
            }
            if self.config.sampler == Sampler::Herding {
                let place = places.entry(sample.class.clone()).or_default();
                sample.weight = placed(*place);
                *place += 1;
            }
            kept.insert(id, sample);
        }
        if kept.is_empty() {
            let reason = format!("{} bytes do not hold a single sample; give more", self.config.budget_bytes);
            return Err(Error::setting("memory.budget_bytes", reason));
        }
        self.samples = kept;
        Ok(())
    }

    fn record_bytes(&self, sample: &Sample) -> u64 {
        // The record and its length.
        4 + sample.encode(self.config.precision).len() as u64
    }
}

/// Bytes of a number in the header.
fn digits(number: usize) -> u64 {
    number.to_string().len() as u64
}

/// `count` of `total` positions, drawn without replacement as far as they go; when all are drawn, again from the start.
pub(crate) fn drawn(total: usize, count: usize, step: Seed) -> Vec<usize> {
    let mut drawn = Vec::with_capacity(count);
    let mut round = 0;
    while total > 0 && drawn.len() < count {
        drawn.extend(step.split(round).order(total).into_iter().take(count - drawn.len()));
        round += 1;
    }
    drawn
}

#[cfg(test)]
mod tests;
