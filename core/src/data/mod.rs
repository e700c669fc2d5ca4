//! Data sets: examples with labels and splits, from every source that the command line takes.

pub mod caption;
pub mod coop_split;
pub mod dataset;
mod entry;
pub mod feature_file;
pub mod few_shot;
pub mod folder;
pub mod manifest;
pub mod open;
pub mod options;
pub mod pascal_voc;
pub mod split;
mod write_manifest;

pub use self::caption::{Captioned, CaptionedSet};
pub use self::coop_split::read_coop_split;
pub use self::dataset::{Dataset, Example, Source};
pub use self::feature_file::{FeatureFile, FeatureKind};
pub use self::few_shot::{base_new, few_shot, validation_shots};
pub use self::folder::read_folder;
pub use self::manifest::{Manifest, read_captions, read_manifest};
pub use self::open::{open_dataset, open_dataset_with};
pub use self::options::DataOptions;
pub use self::pascal_voc::{CropConfig, CropReport, crop_pascal_voc};
pub use self::split::{Split, assign_group_splits, assign_splits};
pub use self::write_manifest::write_manifest;
pub use crate::image::is_image_name;
