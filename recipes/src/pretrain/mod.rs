//! Contrastive pre-training of a backbone from image-text pairs.

mod init;
mod pairs;
mod recipe;
mod run;

pub use pairs::PairSet;
pub use recipe::{CaptionConfig, ModelConfig, PretrainConfig, PretrainRecipe, TowerConfig};
pub use run::{Pretrained, pretrain};
