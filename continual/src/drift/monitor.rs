//! The tests together, as one monitor with a state.

use inarch_core::{Digest, Seed};
use serde::{Deserialize, Serialize};

use super::adwin::Adwin;
use super::ks::KolmogorovSmirnov;
use super::mmd::MeanDiscrepancy;
use crate::error::{Error, Result};

/// Settings of a monitor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftConfig {
    /// Chance of a false alarm of each test.
    pub level: f64,
    /// Most rows of either side that are compared; others are left out by lot.
    pub rows: usize,
    /// Permutations of the discrepancy test.
    pub permutations: usize,
    /// Decides the lots.
    pub seed: u64,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self { level: 0.01, rows: 256, permutations: 200, seed: 1 }
    }
}

/// What the tests found in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DriftVerdict {
    /// Whether any test says so.
    pub drifted: bool,
    /// The discrepancy of the batch.
    pub mmd: MeanDiscrepancy,
    /// The feature that differs most.
    pub ks: KolmogorovSmirnov,
    /// Whether the distance to the mean of the reference has changed in the course of all batches.
    pub adwin: bool,
}

/// Compares batches of features with a reference. What it carries from batch to batch is a window and a number: with
/// them, and with the same reference, another one goes on alike.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftMonitor {
    config: DriftConfig,
    dim: usize,
    /// `[rows, dim]`, normalised.
    reference: Vec<f32>,
    mean: Vec<f32>,
    window: Adwin,
    batches: u64,
}

impl DriftMonitor {
    /// A monitor that compares with features `[rows, dim]`.
    ///
    /// # Errors
    /// Fewer than 8 rows, or a level outside of 0 to 0.5.
    pub fn new(config: DriftConfig, dim: usize, reference: &[f32]) -> Result<Self> {
        if dim == 0 || reference.len() / dim < 8 {
            return Err(Error::setting("drift reference", "at least 8 samples are needed"));
        }
        if !(config.level > 0.0 && config.level < 0.5) {
            return Err(Error::setting(
                "drift.level",
                format!("must be above 0 and below 0.5, found {}", config.level),
            ));
        }
        let reference = chosen(reference, dim, config.rows, Seed::new(config.seed).split("reference"));
        let rows = reference.len() / dim;
        let mut mean = vec![0.0; dim];
        for row in reference.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows as f32);
        }
        Ok(Self { config, dim, reference, mean, window: Adwin::new(config.level), batches: 0 })
    }

    /// The monitor after `batches` batches that have left this window.
    #[must_use]
    pub(super) fn going_on(self, window: Adwin, batches: u64) -> Self {
        Self { window, batches, ..self }
    }

    /// What it carries from batch to batch: the window of distances and how many batches it has seen.
    pub(super) fn course(&self) -> (&Adwin, u64) {
        (&self.window, self.batches)
    }

    /// Tests a batch of features `[rows, dim]`. In which order the rows come makes no difference: a folder is read
    /// class by class, and a window that saw them so would take the next class for a change.
    ///
    /// # Errors
    /// Fewer than 8 rows.
    pub fn observe(&mut self, batch: &[f32]) -> Result<DriftVerdict> {
        if batch.len() / self.dim < 8 {
            return Err(Error::setting("drift batch", "at least 8 samples are needed"));
        }
        let seed = Seed::new(self.config.seed).split("batch").split(self.batches);
        self.batches = self.batches.saturating_add(1);
        let batch = chosen(batch, self.dim, self.config.rows, seed);
        let mmd = MeanDiscrepancy::test(&self.reference, &batch, self.dim, self.config.permutations, seed.split("mmd"));
        let ks = KolmogorovSmirnov::test(&self.reference, &batch, self.dim);
        let mut adwin = false;
        for row in batch.chunks_exact(self.dim) {
            let square: f32 = row.iter().zip(&self.mean).map(|(value, mean)| (value - mean).powi(2)).sum();
            // Both are of length 1 at most, so the distance is 0 to 2; ADWIN's bound is for 0 to 1.
            adwin |= self.window.push(f64::from(square.sqrt()) / 2.0);
        }
        let level = self.config.level;
        Ok(DriftVerdict { drifted: mmd.p_value <= level || ks.p_value <= level || adwin, mmd, ks, adwin })
    }
}

/// At most `most` rows by lot, normalised, in the order of the lots. A lot is a hash of what a row holds, so that
/// neither the choice nor the order depends on the order in which rows came.
fn chosen(rows: &[f32], dim: usize, most: usize, seed: Seed) -> Vec<f32> {
    let lot = |row: &[f32]| seed.hash(&Digest::of_values(row).to_string());
    let mut lots: Vec<(u64, &[f32])> = rows.chunks_exact(dim).map(|row| (lot(row), row)).collect();
    lots.sort_by_key(|(lot, _)| *lot);
    lots.into_iter()
        .take(most)
        .flat_map(|(_, row)| {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
            row.iter().map(move |value| value / norm)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::{Adwin, DriftConfig, DriftMonitor};

    /// Rows of 8 values around two directions, three of the first to one of the second, class by class.
    fn by_class(seed: u64, directions: [usize; 2]) -> Vec<f32> {
        let mut rows = Seed::new(seed).normals(240 * 8, 0.05);
        for (at, row) in rows.chunks_exact_mut(8).enumerate() {
            row[directions[usize::from(at >= 180)]] += 1.0;
        }
        rows
    }

    #[test]
    fn a_batch_that_comes_class_by_class_is_no_drift_and_a_shift_is() {
        // In the order in which they come the second class looks like a change.
        let mut window = Adwin::new(DriftConfig::default().level);
        let distance = |row: &[f32]| ((row[0] - 0.75).powi(2) + (row[1] - 0.25).powi(2)).sqrt() / 2.0;
        let rows = by_class(2, [0, 1]);
        let alarms = rows.chunks_exact(8).map(distance).filter(|value| window.push(f64::from(*value))).count();
        assert!(alarms > 0);

        let mut monitor = DriftMonitor::new(DriftConfig::default(), 8, &by_class(1, [0, 1])).unwrap();
        let mut other = monitor.clone();
        for seed in 2..5 {
            let rows = by_class(seed, [0, 1]);
            let verdict = monitor.observe(&rows).unwrap();
            assert!(!verdict.drifted && !verdict.adwin, "{seed}: {verdict:?}");
            let mixed: Vec<f32> =
                Seed::new(seed).order(240).into_iter().flat_map(|row| rows[8 * row..][..8].to_vec()).collect();
            assert_eq!(other.observe(&mixed).unwrap(), verdict, "{seed}");
        }
        assert!(monitor == other);
        // As many of each class, but the first looks different now.
        let verdict = monitor.observe(&by_class(5, [2, 1])).unwrap();
        assert!(verdict.drifted && verdict.adwin, "{verdict:?}");
    }

    #[test]
    fn a_monitor_finds_a_shift_and_goes_on_after_a_restart() {
        let draw = |seed: u64, shift: f32| -> Vec<f32> {
            Seed::new(seed)
                .normals(120 * 8, 1.0)
                .iter()
                .enumerate()
                .map(|(at, v)| if at % 8 == 0 { v + shift } else { *v })
                .collect()
        };
        let mut monitor = DriftMonitor::new(DriftConfig::default(), 8, &draw(1, 0.0)).unwrap();
        assert!(!monitor.observe(&draw(2, 0.0)).unwrap().drifted);
        let (window, batches) = monitor.course();
        let window: Adwin = serde_json::from_str(&serde_json::to_string(window).unwrap()).unwrap();
        let again = DriftMonitor::new(DriftConfig::default(), 8, &draw(1, 0.0)).unwrap();
        let mut again = again.going_on(window, batches);
        assert!(again == monitor, "the state changed on its way through a file");
        let verdict = monitor.observe(&draw(3, 3.0)).unwrap();
        assert!(verdict.drifted && verdict.ks.feature == 0, "{verdict:?}");
        assert_eq!(again.observe(&draw(3, 3.0)).unwrap(), verdict);
        assert!(monitor.observe(&[0.0; 8]).is_err());
        assert!(DriftMonitor::new(DriftConfig::default(), 8, &[0.0; 8]).is_err());
    }
}
