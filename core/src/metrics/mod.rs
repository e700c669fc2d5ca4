//! Metrics: from logits and labels to the numbers of a report.

pub mod calibration;
pub mod classification;
pub mod detail;
pub mod ranking;
pub mod selective;
pub mod summary;

pub use self::calibration::{ECE_BINS, expected_calibration_error, likeliest_factor, negative_log_likelihood};
pub use self::classification::{
    Metrics, accuracy, confusion, macro_f1, most_probable, per_class_accuracy, predictions, softmax,
};
pub use self::detail::{Detail, DetailConfig};
pub use self::ranking::{ClassRanking, Estimate, RankingConfig, auroc, average_precision};
pub use self::selective::{Selective, SelectivePoint, SurestPoint};
pub use self::summary::{MeanStd, harmonic_mean};
