//! Images: from files to normalised pixels, plain or augmented, one at a time or as a stream of batches.

pub mod address;
pub mod animation;
pub mod augment;
pub mod augmix;
pub mod cache;
pub mod colour;
pub mod corrupt;
pub mod decode;
mod dicom;
mod dicom_lengths;
mod dicom_tables;
mod guard;
pub mod hf_preprocess;
pub mod job;
mod jpeg2000;
pub mod kept;
pub mod list;
pub mod loader;
mod nifti;
mod pixel_source;
pub mod preprocess;
mod read_ahead;
pub mod resize;
mod room;
pub mod slide;
pub mod test_views;
pub mod tone;
mod video;
mod volume;
pub mod warp;
pub mod window;

pub use self::address::{Frame, ImageAddress, is_image_name};
pub use self::animation::{animation_frames, decode_frames};
pub use self::augment::{Augment, AugmentCrop, PadFill};
pub use self::augmix::{Mixture, Operation};
pub use self::cache::ImageCache;
pub use self::colour::ColourJitter;
pub use self::corrupt::{Corruption, SEVERITIES};
pub use self::decode::{
    MAX_DECODE_BYTES, MAX_PIXELS, decode_image, decode_image_bytes, decode_image_bytes_within, panics_are_private,
    single_images,
};
pub use self::job::{BadImage, ImageBatch, ImageJob, OnBadImage, View};
pub use self::kept::{kept_image, kept_images};
pub use self::list::ImageList;
pub use self::loader::Loader;
pub use self::preprocess::{CLIP_MEAN, CLIP_STD, CropPlace, HALF_MEAN_STD, Preprocess, Resize, Size};
pub use self::resize::{Resample, resize};
pub use self::slide::Slide;
pub use self::test_views::{MAX_VIEWS, TestViews, ViewRecipe};
pub use self::video::{decodes_video, is_video_name};
pub use self::warp::Affine;
pub use self::window::Window;
pub use ::image::{ImageError, ImageFormat, RgbImage};
