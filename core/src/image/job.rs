//! What a loader is asked for and what it hands over.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::preprocess::CropPlace;
use crate::seed::Seed;

/// What to do with an image that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadImage {
    /// Stop with the error of the first one.
    #[default]
    Fail,
    /// Leave it out and list it in the result.
    Skip,
}

/// Which view of an image is wanted.
#[derive(Debug, Clone)]
pub enum View {
    /// The view of evaluation.
    Centre,
    /// The same with the crop at another place.
    Crop(CropPlace),
    /// A random view.
    Augmented {
        /// The kinds of changes.
        augment: Arc<Augment>,
        /// Decides the changes; split it per image and epoch.
        seed: Seed,
    },
}

/// One image to load.
#[derive(Debug, Clone)]
pub struct ImageJob {
    /// A number of the caller's, handed back in [`ImageBatch::indices`].
    pub index: usize,
    /// The file.
    pub path: PathBuf,
    /// Which frame of an animation file; `None` reads the file as one image.
    pub frame: Option<usize>,
    /// The file's content where it is at hand; the path is a name then, which no other content has. Not for frames.
    pub bytes: Option<Arc<[u8]>>,
    /// The view.
    pub view: View,
}

/// Some images, ready for a backbone.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBatch {
    /// The jobs' numbers, one per image.
    pub indices: Vec<usize>,
    /// Normalised pixels, row-major in `shape`.
    pub pixels: Vec<f32>,
    /// `[batch, 3, height, width]`.
    pub shape: [usize; 4],
}

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadImage {
    /// The file.
    pub path: PathBuf,
    /// Why it could not be used.
    pub reason: String,
}
