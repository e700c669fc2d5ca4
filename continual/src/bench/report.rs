//! What a benchmark found.

use std::collections::BTreeMap;

use inarch_core::metrics::MeanStd;
use inarch_recipes::ReportHead;
use serde::Serialize;

use super::recipe::StreamRecipe;
use crate::measure::{AccuracyMatrix, Measures};

/// One strategy under one seed.
#[derive(Debug, Clone, Serialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Class names in the order in which they came.
    pub classes: Vec<String>,
    /// Accuracy on each experience after each experience.
    pub matrix: AccuracyMatrix,
    /// Zero-shot on each experience, before anything is learned.
    pub zero_shot: Vec<f64>,
    /// Accuracy over all test images of what has come, after each experience.
    pub seen: Vec<f64>,
    /// Mean of `seen` (A-bar of the class-incremental protocols).
    pub average: f64,
    /// Last of `seen` (A_B).
    pub last: f64,
    /// Everything that is read from the matrix.
    pub measures: Measures,
    /// Share of earlier test images that were right before an experience and wrong after it; mean over experiences.
    pub negative_flips: f64,
    /// Share of earlier test images that were wrong before an experience and right after it; mean over experiences.
    pub positive_flips: f64,
    /// Bytes carried on at the end.
    pub bytes: u64,
    /// Seconds of learning, without encoding and evaluation.
    pub seconds: f64,
}

/// One strategy over all seeds.
#[derive(Debug, Clone, Serialize)]
pub struct StrategyResult {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: String,
    /// One entry for each seed.
    pub seeds: Vec<SeedResult>,
    /// Mean and spread of `average`.
    pub average: MeanStd,
    /// Mean and spread of `last`.
    pub last: MeanStd,
    /// Mean and spread of the measure of that name.
    pub forgetting_since_learned: Option<MeanStd>,
    /// Mean and spread of MTIL's Transfer.
    pub transfer: Option<MeanStd>,
    /// Mean and spread of what is kept of zero-shot; absent for heads that are bound to their classes.
    pub zero_shot_retention: Option<MeanStd>,
    /// Mean and spread of every measure of a seed by its name, with flips, bytes and seconds; absent unless every seed has it.
    pub measures: BTreeMap<&'static str, Option<MeanStd>>,
    /// Mean of the bytes carried on.
    pub bytes: f64,
    /// Mean of the seconds of learning.
    pub seconds: f64,
}

/// `report.json`.
#[derive(Debug, Clone, Serialize)]
pub struct StreamReport {
    /// Versions, device, backbone, memory.
    #[serde(flatten)]
    pub head: ReportHead,
    /// The recipe.
    pub recipe: StreamRecipe,
    /// Name of the data.
    pub data: String,
    /// Names of the experiences, under the first seed.
    pub experiences: Vec<String>,
    /// Images left out because they could not be read.
    pub skipped: Vec<String>,
    /// What the strategies did.
    pub strategies: Vec<StrategyResult>,
    /// Runs without a result.
    pub failures: Vec<Failure>,
}

/// A run without a result.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The strategy.
    pub strategy: String,
    /// The seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

impl SeedResult {
    /// All measures by name, in a fixed order.
    pub(super) fn named(&self) -> Vec<(&'static str, Option<f64>)> {
        let beside = [
            ("negative_flips", self.negative_flips),
            ("positive_flips", self.positive_flips),
            ("bytes", self.bytes as f64),
            ("seconds", self.seconds),
        ];
        self.measures.named().into_iter().chain(beside.map(|(name, value)| (name, Some(value)))).collect()
    }
}

impl StrategyResult {
    /// Summarises seeds.
    pub(super) fn new(name: String, settings: String, seeds: Vec<SeedResult>) -> Self {
        let over = |of: &dyn Fn(&SeedResult) -> f64| {
            let values: Vec<f64> = seeds.iter().map(of).collect();
            MeanStd::of(&values).unwrap_or(MeanStd { mean: 0.0, std: 0.0, n: 0 })
        };
        let where_defined = |of: &dyn Fn(&SeedResult) -> Option<f64>| {
            let values: Option<Vec<f64>> = seeds.iter().map(of).collect();
            MeanStd::of(&values?)
        };
        let names = seeds.first().map(SeedResult::named).unwrap_or_default();
        let of =
            |name: &str, seed: &SeedResult| seed.named().into_iter().find(|one| one.0 == name).and_then(|one| one.1);
        let measures = names.iter().map(|(name, _)| (*name, where_defined(&|seed| of(name, seed)))).collect();
        Self {
            average: over(&|seed| seed.average),
            last: over(&|seed| seed.last),
            forgetting_since_learned: where_defined(&|seed| seed.measures.forgetting_since_learned),
            transfer: where_defined(&|seed| seed.measures.transfer),
            zero_shot_retention: where_defined(&|seed| seed.measures.zero_shot_retention),
            measures,
            bytes: over(&|seed| seed.bytes as f64).mean,
            seconds: over(&|seed| seed.seconds).mean,
            name,
            settings,
            seeds,
        }
    }
}

impl StreamReport {
    /// The columns of the table.
    pub fn header(&self) -> Vec<String> {
        let flips = ["negative flips", "positive flips"];
        let before = ["strategy", "average", "last", "forgetting", "transfer", "retention"];
        before.into_iter().chain(flips).chain(["bytes", "seconds"]).map(String::from).collect()
    }

    /// The table, best last accuracy first.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let mut order: Vec<&StrategyResult> = self.strategies.iter().collect();
        order.sort_by(|a, b| b.last.mean.total_cmp(&a.last.mean));
        let row = |strategy: &&StrategyResult| {
            let measure = |name: &str| strategy.measures.get(name).copied().flatten();
            let mean = |name: &str| measure(name).map_or("–".into(), |value| format!("{:.2}", 100.0 * value.mean));
            vec![
                strategy.name.clone(),
                percent(strategy.average),
                percent(strategy.last),
                strategy.forgetting_since_learned.map_or("–".into(), percent),
                strategy.transfer.map_or("–".into(), percent),
                strategy.zero_shot_retention.map_or("–".into(), percent),
                mean("negative_flips"),
                mean("positive_flips"),
                bytes_text(strategy.bytes),
                format!("{:.1}", strategy.seconds),
            ]
        };
        order.iter().map(row).collect()
    }
}

/// A share in percent, with its spread where there is one.
pub(super) fn percent(value: MeanStd) -> String {
    match value.n {
        0 | 1 => format!("{:.2}", 100.0 * value.mean),
        _ => format!("{:.2} ± {:.2}", 100.0 * value.mean, 100.0 * value.std),
    }
}

/// Bytes for people.
pub(super) fn bytes_text(bytes: f64) -> String {
    match bytes {
        small if small < 10_000.0 => format!("{small:.0} B"),
        middle if middle < 10_000_000.0 => format!("{:.0} kB", middle / 1e3),
        large => format!("{:.0} MB", large / 1e6),
    }
}
