//! The runs of a comparison in a table.

use std::fmt::Write as _;

use inarch_core::metrics::{MeanStd, harmonic_mean};
use serde::Serialize;

use super::{CompareConfig, Run};
use crate::error::Result;
use crate::recipe_layers::RecipeLayers;
use crate::report_head::ReportHead;
use crate::session::Session;

/// `report.json` of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Versions, device, backbone, and the memory of the largest run.
    #[serde(flatten)]
    pub head: ReportHead,
    /// What was compared.
    pub config: CompareConfig,
    /// `fixed`, or `tuned on validation images`.
    pub settings: &'static str,
    /// Name of the data set.
    pub data: String,
    /// Number of classes that were trained on.
    pub classes: usize,
    /// Test images of those classes.
    pub test: usize,
    /// Without any adapter; `null` where nothing can name the classes.
    pub zero_shot: Option<ZeroShot>,
    /// One line for each method and number of shots, the best at the most shots first.
    pub lines: Vec<Line>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// Zero-shot with the templates of the runs of the first method.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ZeroShot {
    /// Accuracy.
    pub accuracy: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// Accuracy on new classes, where they are kept apart.
    pub new_accuracy: Option<f64>,
}

/// One method at one number of shots, over the seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The method.
    pub method: String,
    /// Training images of each class.
    pub shots: usize,
    /// Accuracy; `null` when every run failed.
    pub accuracy: Option<MeanStd>,
    /// Expected calibration error.
    pub ece: Option<MeanStd>,
    /// Base and new classes, where they are kept apart and the method can name new ones.
    pub base_to_new: Option<BaseToNew>,
    /// Number of trained values.
    pub trainable: usize,
    /// Seconds of training, without the encoding of views that runs share.
    pub seconds: Option<MeanStd>,
    /// Those of the fastest run, which other work on the machine disturbed least.
    pub least_seconds: Option<f64>,
    /// Largest resident size of a run.
    pub peak_memory_bytes: Option<u64>,
    /// Runs that failed.
    pub failed: usize,
}

/// The base-to-new protocol (Zhou et al., 2022, arXiv 2203.05557).
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BaseToNew {
    /// Accuracy on new classes.
    pub new: MeanStd,
    /// Mean over the seeds of the harmonic mean of both accuracies.
    pub mean_of_harmonic_means: f64,
    /// Harmonic mean of both mean accuracies, as the papers' tables print it.
    pub harmonic_mean_of_means: f64,
}

impl Line {
    fn new(method: &str, shots: usize, runs: &[Run]) -> Self {
        let own: Vec<&Run> = runs.iter().filter(|run| run.method == method && run.shots == shots).collect();
        let done: Vec<&Run> = own.iter().copied().filter(|run| run.failure.is_none()).collect();
        let summary = |value: fn(&Run) -> Option<f64>| {
            let values: Vec<f64> = done.iter().filter_map(|run| value(run)).collect();
            MeanStd::of(&values)
        };
        let accuracy = summary(|run| run.accuracy);
        let harmonic = summary(|run| Some(harmonic_mean(run.accuracy?, run.new_accuracy?)));
        let base_to_new = summary(|run| run.new_accuracy).zip(harmonic).zip(accuracy).map(|((new, harmonic), base)| {
            let harmonic_mean_of_means = harmonic_mean(base.mean, new.mean);
            BaseToNew { new, mean_of_harmonic_means: harmonic.mean, harmonic_mean_of_means }
        });
        Self {
            method: method.into(),
            shots,
            accuracy,
            ece: summary(|run| run.ece),
            base_to_new,
            trainable: done.iter().map(|run| run.trainable).max().unwrap_or(0),
            seconds: summary(|run| run.train_seconds),
            least_seconds: done.iter().filter_map(|run| run.train_seconds).min_by(f64::total_cmp),
            peak_memory_bytes: done.iter().filter_map(|run| run.peak_memory_bytes).max(),
            failed: own.len() - done.len(),
        }
    }

    /// The mean accuracy, 0 where there is none.
    pub fn mean(&self) -> f64 {
        self.accuracy.map_or(0.0, |accuracy| accuracy.mean)
    }
}

impl Comparison {
    pub(super) fn new(
        config: &CompareConfig,
        session: &Session<'_>,
        unseen: Option<&Session<'_>>,
        runs: &[Run],
    ) -> Result<Self> {
        let method = config.methods.first().map_or("linear-probe", String::as_str);
        let templates = match &config.templates {
            Some(templates) => templates.clone(),
            None => {
                let mut layers = RecipeLayers::preset(method, config.official)?;
                config.set.iter().try_for_each(|assignment| layers.set(assignment))?;
                layers.finish()?.templates.resolve()?
            }
        };
        let own = session.unadapted(&templates)?;
        let new = unseen.map(|unseen| unseen.unadapted(&templates)).transpose()?.flatten();
        let most = config.shots.iter().copied().max().unwrap_or(0);
        let mut methods = config.methods.clone();
        methods.sort_by(|left, right| {
            let mean = |method: &str| Line::new(method, most, runs).mean();
            mean(right).total_cmp(&mean(left)).then_with(|| left.cmp(right))
        });
        methods.dedup();
        let mut shots = config.shots.clone();
        shots.sort_unstable();
        shots.dedup();
        let lines = methods.iter().flat_map(|method| shots.iter().map(|shots| Line::new(method, *shots, runs)));
        Ok(Self {
            head: ReportHead {
                peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
                ..ReportHead::new(session.backbone())
            },
            config: config.clone(),
            settings: if config.tune.is_empty() { "fixed" } else { "tuned on validation images" },
            data: session.dataset().name.clone(),
            classes: session.dataset().classes.len(),
            test: session.dataset().test.len(),
            zero_shot: own.map(|own| ZeroShot {
                accuracy: own.metrics.accuracy,
                ece: own.metrics.ece,
                new_accuracy: new.map(|new| new.metrics.accuracy),
            }),
            lines: lines.collect(),
            runs: runs.to_vec(),
        })
    }

    /// Numbers of shots, rising.
    pub fn shots(&self) -> Vec<usize> {
        let mut shots: Vec<usize> = self.lines.iter().map(|line| line.shots).collect();
        shots.sort_unstable();
        shots.dedup();
        shots
    }

    /// The lines of each method, by rising shots, the best method first.
    pub fn methods(&self) -> impl Iterator<Item = &[Line]> {
        self.lines.chunk_by(|left, right| left.method == right.method)
    }

    /// What the columns of [`cells`](Self::cells) are.
    pub fn header(&self) -> Vec<String> {
        let mut header = vec!["method".to_string()];
        header.extend(self.shots().iter().map(|shots| format!("{shots} shot{}", if *shots == 1 { "" } else { "s" })));
        if self.config.base_to_new {
            header.extend(["new", "HM, mean", "HM of means"].map(String::from));
        }
        header.extend(["ECE", "trained values", "seconds", "peak MiB"].map(String::from));
        header
    }

    /// The table: zero-shot, then a row for each method. What is not an accuracy is that of the most shots.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let shots = self.shots();
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let spread = |value: &MeanStd| match value.n {
            1 => percent(value.mean),
            _ => format!("{} ± {}", percent(value.mean), percent(value.std)),
        };
        let none = || "–".to_string();
        let mut rows = Vec::new();
        if let Some(zero) = &self.zero_shot {
            let mut first = vec!["zero-shot".to_string()];
            first.extend(shots.iter().map(|_| percent(zero.accuracy)));
            if self.config.base_to_new {
                let harmonic = zero.new_accuracy.map_or_else(none, |new| percent(harmonic_mean(zero.accuracy, new)));
                first.extend([zero.new_accuracy.map_or_else(none, percent), harmonic.clone(), harmonic]);
            }
            first.extend([format!("{:.3}", zero.ece), "0".into(), none(), none()]);
            rows.push(first);
        }
        for lines in self.methods() {
            let Some(last) = lines.last() else { continue };
            let mut row = vec![last.method.clone()];
            row.extend(lines.iter().map(|line| line.accuracy.as_ref().map_or_else(|| "failed".into(), spread)));
            if self.config.base_to_new {
                row.extend(match &last.base_to_new {
                    Some(found) => [
                        spread(&found.new),
                        percent(found.mean_of_harmonic_means),
                        percent(found.harmonic_mean_of_means),
                    ],
                    None => [none(), none(), none()],
                });
            }
            row.push(last.ece.map_or_else(none, |ece| format!("{:.3}", ece.mean)));
            row.push(last.trainable.to_string());
            row.push(last.least_seconds.map_or_else(none, |seconds| format!("{seconds:.1}")));
            row.push(last.peak_memory_bytes.map_or_else(none, |bytes| (bytes >> 20).to_string()));
            rows.push(row);
        }
        rows
    }

    /// What the table shows, in a sentence.
    pub fn caption(&self) -> String {
        let seeds = self.config.seeds.len();
        let halves = if self.config.base_to_new { " of the base half" } else { "" };
        format!(
            "Accuracy in % on the {} test images of {} classes{halves} of `{}`, backbone `{}`, mean and standard deviation over \
             {seeds} seed{}; hyper-parameters {}. ECE, seconds and memory at {} shots; the seconds are those \
             of training in the fastest run, without the encoding of views, which methods share and the first one does; the memory is that \
             of the whole process, so that no method is below what the backbone and shared features take.",
            self.test,
            self.classes,
            self.data,
            self.head.backbone.name,
            if seeds == 1 { "" } else { "s" },
            self.settings,
            self.shots().last().copied().unwrap_or(0),
        )
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let header = self.header();
        let mut text = format!("{}\n\n| {} |\n", self.caption(), header.join(" | "));
        let rule: Vec<&str> = (0..header.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
        let _ = writeln!(text, "| {} |", rule.join(" | "));
        for row in self.cells() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}
