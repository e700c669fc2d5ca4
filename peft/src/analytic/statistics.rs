//! Sums over samples from which heads are solved. Adding, taking out and merging commute up to the order of a sum in
//! double precision.

use std::collections::BTreeMap;

use inarch_core::Seed;
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::expansion::{Expansion, unit_rows};
use crate::error::Result;

/// Rows that are expanded at once.
const ROWS: usize = 512;
/// One sample in so many is kept apart, to choose settings on.
const HELD: u64 = 5;

/// Which sums are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Second {
    /// The sum of each class.
    None,
    /// And the sum of `h h^T` over all samples.
    Gram,
    /// And the sum of `h h^T` of each class.
    ClassGrams,
    /// No sums: the samples themselves.
    Samples,
}

/// What decides which sums are kept; statistics of equal settings add up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) expansion: Expansion,
    pub(super) second: Second,
}

/// The sums of one class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClassSums {
    pub(super) count: u64,
    pub(super) sum: DVector<f64>,
    pub(super) gram: Option<DMatrix<f64>>,
}

/// The sums of some samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Part {
    pub(super) classes: BTreeMap<String, ClassSums>,
    pub(super) gram: Option<DMatrix<f64>>,
}

/// A stored sample: its class and its normalised feature.
pub(super) type Sample = (String, Vec<f32>);

/// Sums over the features of samples, class by class. A fifth of the samples, chosen by a hash of their ids, is summed
/// apart, so that a setting can be chosen on what the head was not fitted to; every head is fitted to both in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    pub(super) settings: Settings,
    pub(super) fit: Part,
    pub(super) held: Part,
    pub(super) samples: BTreeMap<String, Sample>,
}

/// Samples to be added or taken out: position `i` of each list is one sample.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Names that tell samples apart.
    pub ids: &'a [String],
    /// Class names.
    pub classes: &'a [String],
    /// Frozen features `[samples, dim]`, row-major, normalised or not.
    pub features: &'a [f32],
}

impl Statistics {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, fit: Part::default(), held: Part::default(), samples: BTreeMap::new() }
    }

    /// Adds samples.
    ///
    /// # Errors
    /// Lists of different lengths, or a feature that is not finite.
    pub fn add(&mut self, rows: &Rows<'_>) -> Result<()> {
        self.change(rows, 1.0)
    }

    /// Takes samples out again: the statistics are then those of the others. Their features must be the ones that were
    /// added.
    ///
    /// # Errors
    /// As [`add`](Self::add), and a class that has fewer samples than are taken out.
    pub fn remove(&mut self, rows: &Rows<'_>) -> Result<()> {
        let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
        rows.classes.iter().for_each(|class| *wanted.entry(class).or_default() += 1);
        let counts = self.counts();
        for (class, wanted) in wanted {
            let there = counts.iter().find(|(known, _)| known == class).map_or(0, |(_, count)| *count);
            if there < wanted {
                let reason = format!("it has {there} samples of `{class}`, {wanted} cannot be taken out");
                return Err(inarch_core::Error::invalid("statistics", reason).into());
            }
        }
        self.change(rows, -1.0)
    }

    fn same_settings(&self, other: &Self) -> Result<()> {
        if self.settings == other.settings {
            return Ok(());
        }
        let [expected, found] =
            [self, other].map(|statistics| serde_json::to_string(&statistics.settings).unwrap_or_default());
        Err(inarch_core::Error::mismatch("settings of the statistics", expected, found).into())
    }

    /// Takes all samples of other statistics out: what two updates made apart have in common counts once.
    ///
    /// # Errors
    /// Other settings.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        self.same_settings(other)?;
        self.fit.accumulate(&other.fit, -1.0);
        self.held.accumulate(&other.held, -1.0);
        self.samples.retain(|id, _| !other.samples.contains_key(id));
        Ok(())
    }

    /// Adds the samples of other statistics of the same settings.
    ///
    /// # Errors
    /// Other settings, or, where samples are stored, one id in both.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.same_settings(other)?;
        if let Some(id) = other.samples.keys().find(|id| self.samples.contains_key(*id)) {
            let reason = format!("`{id}` is in both: samples would count twice");
            return Err(inarch_core::Error::invalid("statistics to be merged", reason).into());
        }
        self.fit.accumulate(&other.fit, 1.0);
        self.held.accumulate(&other.held, 1.0);
        self.samples.extend(other.samples.clone());
        Ok(())
    }

    /// The classes that have samples, with how many.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for part in [&self.fit, &self.held] {
            for (class, sums) in &part.classes {
                *counts.entry(class).or_default() += sums.count;
            }
        }
        for (class, _) in self.samples.values() {
            *counts.entry(class).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(class, count)| (class.to_string(), count)).collect()
    }

    /// Whether it holds the samples themselves, which then can be told apart by their ids.
    pub fn stores_samples(&self) -> bool {
        self.settings.second == Second::Samples
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count).sum()
    }

    /// The greatest absolute difference of any sum, relative to the greatest sum; infinite for other settings or
    /// classes. Two ways to the same samples differ by rounding only, about 1e-15.
    pub fn distance(&self, other: &Self) -> f64 {
        if self.settings != other.settings || self.counts() != other.counts() || self.samples != other.samples {
            return f64::INFINITY;
        }
        let (mut apart, mut greatest) = (0.0f64, 1e-300f64);
        let mut compare = |left: &[f64], right: &[f64]| {
            for (left, right) in left.iter().zip(right) {
                apart = apart.max((left - right).abs());
                greatest = greatest.max(left.abs()).max(right.abs());
            }
        };
        for (mine, theirs) in [(&self.fit, &other.fit), (&self.held, &other.held)] {
            for (class, sums) in &mine.classes {
                let Some(others) = theirs.classes.get(class) else { continue };
                compare(sums.sum.as_slice(), others.sum.as_slice());
                if let (Some(own), Some(others)) = (&sums.gram, &others.gram) {
                    compare(own.as_slice(), others.as_slice());
                }
            }
            if let (Some(own), Some(others)) = (&mine.gram, &theirs.gram) {
                compare(own.as_slice(), others.as_slice());
            }
        }
        apart / greatest
    }

    /// Both parts as one.
    pub(super) fn whole(&self) -> Part {
        let mut whole = self.fit.clone();
        whole.accumulate(&self.held, 1.0);
        whole
    }

    fn change(&mut self, rows: &Rows<'_>, sign: f64) -> Result<()> {
        let dim = self.settings.expansion.dim;
        let count = rows.ids.len();
        if rows.classes.len() != count || rows.features.len() != count * dim {
            let found = format!("{} classes, {} values", rows.classes.len(), rows.features.len());
            let expected = format!("{count} classes, {} values", count * dim);
            return Err(inarch_core::Error::mismatch("samples of statistics", expected, found).into());
        }
        if let Some(at) = rows.features.iter().position(|value| !value.is_finite()) {
            let reason = format!("it holds {}", rows.features[at]);
            return Err(inarch_core::Error::invalid(format!("feature of `{}`", rows.ids[at / dim]), reason).into());
        }
        if self.settings.second == Second::Samples {
            let unit = unit_rows(rows.features, dim);
            for (row, (id, class)) in rows.ids.iter().zip(rows.classes).enumerate() {
                if sign > 0.0 {
                    let feature = unit.row(row).iter().map(|value| *value as f32).collect();
                    self.samples.insert(id.clone(), (class.clone(), feature));
                } else {
                    self.samples.remove(id);
                }
            }
            return Ok(());
        }
        let map = self.settings.expansion.on_host();
        let held = |id: &String| Seed::new(self.settings.expansion.seed).split("held").hash(id).is_multiple_of(HELD);
        for (wanted, part) in [(false, &mut self.fit), (true, &mut self.held)] {
            let chosen: Vec<usize> = (0..count).filter(|row| held(&rows.ids[*row]) == wanted).collect();
            for chosen in chosen.chunks(ROWS) {
                let values: Vec<f32> =
                    chosen.iter().flat_map(|row| &rows.features[row * dim..(row + 1) * dim]).copied().collect();
                let classes: Vec<&str> = chosen.iter().map(|row| rows.classes[*row].as_str()).collect();
                let expanded = map.expand(&unit_rows(&values, dim));
                part.accumulate(&Part::of(&expanded, &classes, self.settings.second), sign);
            }
        }
        Ok(())
    }
}

impl Part {
    /// The sums of some rows.
    fn of(expanded: &DMatrix<f64>, classes: &[&str], second: Second) -> Self {
        let mut part = Self::default();
        for class in classes {
            if part.classes.contains_key(*class) {
                continue;
            }
            let rows: Vec<usize> = (0..classes.len()).filter(|row| classes[*row] == *class).collect();
            let own = expanded.select_rows(&rows);
            let gram = (second == Second::ClassGrams).then(|| own.transpose() * &own);
            let sum = own.row_sum().transpose();
            part.classes.insert((*class).to_string(), ClassSums { count: rows.len() as u64, sum, gram });
        }
        part.gram = (second == Second::Gram).then(|| expanded.transpose() * expanded);
        part
    }

    /// Adds `sign` times the sums of other samples. A class that loses its last sample is gone, with nothing left of
    /// rounding.
    pub(super) fn accumulate(&mut self, other: &Self, sign: f64) {
        for (class, sums) in &other.classes {
            let own = self.classes.entry(class.clone()).or_insert_with(|| ClassSums {
                count: 0,
                sum: DVector::zeros(sums.sum.len()),
                gram: sums.gram.as_ref().map(|gram| DMatrix::zeros(gram.nrows(), gram.ncols())),
            });
            own.count = if sign > 0.0 { own.count + sums.count } else { own.count.saturating_sub(sums.count) };
            own.sum.axpy(sign, &sums.sum, 1.0);
            if let (Some(own), Some(gram)) = (&mut own.gram, &sums.gram) {
                *own += gram * sign;
            }
        }
        self.classes.retain(|_, sums| sums.count > 0);
        match (&mut self.gram, &other.gram) {
            (Some(own), Some(gram)) => *own += gram * sign,
            (own @ None, Some(gram)) => *own = Some(gram * sign),
            (_, None) => {}
        }
        if self.classes.is_empty() {
            self.gram = None;
        }
    }

    /// Number of samples.
    pub(super) fn count(&self) -> u64 {
        self.classes.values().map(|sums| sums.count).sum()
    }

    /// The sums of some classes as columns, `[width, classes]`; zero where a class has no sample.
    pub(super) fn cross(&self, classes: &[String], width: usize) -> DMatrix<f64> {
        let mut cross = DMatrix::zeros(width, classes.len());
        for (column, class) in classes.iter().enumerate() {
            if let Some(sums) = self.classes.get(class) {
                cross.column_mut(column).copy_from(&sums.sum);
            }
        }
        cross
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::super::{Analytic, RailConfig};
    use super::{Rows, Statistics};

    fn samples(count: usize) -> (Vec<String>, Vec<String>, Vec<f32>) {
        let ids = (0..count).map(|at| format!("sample {at}")).collect();
        let classes = (0..count).map(|at| ["a", "b", "c"][at % 3].to_string()).collect();
        (ids, classes, Seed::new(4).normals(count * 6, 1.0))
    }

    fn of(range: std::ops::Range<usize>) -> Statistics {
        let (ids, classes, features) = samples(60);
        let mut statistics = RailConfig { projections: 20, ..RailConfig::default() }.statistics(6).unwrap();
        let features = &features[range.start * 6..range.end * 6];
        statistics.add(&Rows { ids: &ids[range.clone()], classes: &classes[range], features }).unwrap();
        statistics
    }

    #[test]
    fn parts_in_any_order_and_samples_taken_out_give_the_sums_of_the_rest() {
        let whole = of(0..60);
        let mut merged = of(40..60);
        merged.merge(&of(0..7)).unwrap();
        merged.merge(&of(7..40)).unwrap();
        assert!(whole.distance(&merged) < 1e-14, "{}", whole.distance(&merged));
        let (ids, classes, features) = samples(60);
        let gone = Rows { ids: &ids[..7], classes: &classes[..7], features: &features[..42] };
        merged.remove(&gone).unwrap();
        assert!(of(7..60).distance(&merged) < 1e-14);
        assert!(whole.distance(&merged).is_infinite());
        let last = Rows { ids: &ids[7..], classes: &classes[7..], features: &features[42..] };
        merged.remove(&last).unwrap();
        assert_eq!((merged.samples(), merged.clone()), (0, of(0..0)));
        assert!(merged.remove(&gone).unwrap_err().to_string().contains("0 samples of `a`"));
    }
}
