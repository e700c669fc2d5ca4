//! Images with texts, for contrastive pre-training.

use std::path::PathBuf;

/// An image and one text about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captioned {
    /// The path as the manifest has it, with `/`; a second text for the same image adds `#2`, and so on.
    pub id: String,
    /// The image file.
    pub path: PathBuf,
    /// The text.
    pub caption: String,
    /// What kind of image it is, where the manifest says so: images of one group are no negatives of one another.
    pub group: Option<String>,
}

/// Captioned images in the order of their manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionedSet {
    /// The pairs.
    pub examples: Vec<Captioned>,
}
