//! Recipes over a stream: what arrives in parts is learned in parts, and nothing that was learned is lost unseen.
//!
//! In flow a [`Stream`] of experiences, or the data that has come in since a version was published; out flow adapters that
//! any command takes, with the [`Memory`] and the [`Statistics`](inarch_peft::Statistics) that the next update starts from.
//! [`run_stream`] measures strategies over a stream, [`update`] brings a published adapter up to date and passes it through a
//! gate, [`merge`] joins updates made apart.
#![forbid(unsafe_code)]

mod bench;
mod drift;
mod error;
mod learner;
mod measure;
mod memory;
mod merge;
mod strategy;
mod stream;
mod update;

pub use bench::{Failure, OneOrMore, Protocol, SeedResult, StrategyResult, StreamRecipe, StreamReport, run_stream};
pub use drift::{Adwin, DriftConfig, DriftMonitor, DriftVerdict, DriftWatch, KolmogorovSmirnov, MeanDiscrepancy};
pub use error::{Error, Result};
pub use learner::{AnalyticLearner, Arrival, GradientLearner, Learner, LearnerConfig, MemoryHeadLearner, Setting};
pub use measure::{AccuracyMatrix, Measures, negative_flips, positive_flips};
pub use memory::{
    Cause, Content, Fingerprint, Key, Ledger, Memory, MemoryConfig, MemoryStore, Precision, Removal, Sample, Sampler,
    herding,
};
pub use merge::{MergeReport, MergeRequest, merge};
pub use strategy::{GradientConfig, Strategy};
pub use stream::{Corruption, Experience, LabelSpace, Order, Stream, StreamConfig, StreamKind};
pub use update::{
    ClassChange, FolderVersions, ForgetReport, ForgetRequest, Gate, Release, Rule, Turn, UpdateRecipe, UpdateReport,
    UpdateRequest, Verdict, Version, VersionRecord, Versions, forget, update,
};
