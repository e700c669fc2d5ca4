//! Data sets: examples with labels and splits, from every source that the command line takes.

pub mod actions;
pub mod caption;
pub mod clip;
pub mod clip_config;
pub mod clip_set;
pub mod coop_split;
pub mod dataset;
pub mod feature_file;
pub mod few_shot;
pub mod folder;
mod fresh_folder;
pub mod idx;
pub mod manifest;
pub mod open;
pub mod pascal_voc;
mod scene;
pub mod split;

pub use self::actions::{ACTIONS, ActionConfig, ActionReport, write_actions};
pub use self::caption::{Captioned, CaptionedSet};
pub use self::clip::{Clip, Picture, is_animation_name};
pub use self::clip_config::{ClipConfig, FrameSampling, Purpose};
pub use self::coop_split::read_coop_split;
pub use self::dataset::{Dataset, Example, Source};
pub use self::feature_file::{FeatureFile, FeatureKind};
pub use self::few_shot::{base_new, few_shot, validation_shots};
pub use self::folder::{is_image_name, read_clip_folder, read_folder};
pub use self::idx::read_idx_images;
pub use self::manifest::{Manifest, read_captions, read_manifest};
pub use self::open::{open_clips, open_dataset};
pub use self::pascal_voc::{CropConfig, CropReport, crop_pascal_voc};
pub use self::split::{Split, assign_splits};
