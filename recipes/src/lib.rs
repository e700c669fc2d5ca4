//! A run as data, then as verbs.
#![forbid(unsafe_code)]

mod contrastive;
mod control;
mod error;
mod parallel;
mod pretrain;

pub use contrastive::Pairs;
pub use control::{Control, Progress, Silent};
pub use error::{Error, Result};
pub use pretrain::{
    CaptionConfig, ModelConfig, PairSet, PretrainConfig, PretrainRecipe, Pretrained, TowerConfig, pretrain,
};
