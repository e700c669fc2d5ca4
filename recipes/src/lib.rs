//! A run as data, then as verbs.
//!
//! In flow a [`Backbone`](inarch_core::backbone::Backbone), a [`Dataset`](inarch_core::data::Dataset) and a [`Recipe`];
//! out flow an [`Artifact`](inarch_peft::Artifact), evaluations and reports. A [`Session`] shares the frozen work of all
//! runs over one backbone and one data set. [`test_time`] adapts to images without labels; [`pretrain`] makes backbones.
#![forbid(unsafe_code)]

mod balance;
mod calibrate;
mod caption;
mod class_features;
mod clips;
mod companion;
mod compare;
mod cone;
mod contrastive;
mod control;
mod crossing;
mod encode;
mod error;
mod evaluate;
mod feature_store;
mod fit;
mod fit_page;
mod fit_report;
mod fitting;
mod gradient;
mod multi_label;
mod objective;
mod optimizer;
mod plan;
pub mod pocket;
mod pretrain;
mod recipe;
mod recipe_layers;
mod recipe_paths;
pub mod report;
mod report_head;
mod saved_run;
mod schedule;
mod session;
mod settings;
mod shards;
mod shared;
mod task;
pub mod test_time;

pub use balance::Imbalance;
pub use caption::{Caption, CaptionSearch, writes_captions};
pub use companion::{Alone, Change, Companion, Foresight, Moment};
pub use compare::{Axis, BaseToNew, CompareConfig, Comparison, Line, Run, ZeroShot, compare};
pub use contrastive::{PairLoss, Pairs};
pub use control::{Control, Progress, Silent};
pub use encode::{ImageFeatures, Views, encode_frozen, encode_images};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, evaluate, evaluate_features, score};
pub use feature_store::FeatureStore;
pub use fit_report::{DataReport, FitReport, Timing};
pub use multi_label::label_probabilities;
pub use optimizer::OptimizerConfig;
pub use plan::{Plan, TowerPlan};
pub use pretrain::{
    CaptionConfig, ModelConfig, PairSet, PretrainConfig, PretrainRecipe, Pretrained, TowerConfig, pretrain,
};
pub use recipe::{BadImagePolicy, Recipe, Subset, Templates, TrainConfig, TrainPrecision};
pub use recipe_layers::RecipeLayers;
pub use recipe_paths::{find_paths, lead_from, lead_to_backbone};
pub use report_head::{BURN, ReportHead, peak_memory_bytes};
pub use schedule::{Budget, Schedule};
pub use session::Session;
pub use settings::{read_over, set_in};
pub use task::{Learned, Task};
