//! Images: from files to normalised pixels, plain or augmented, one at a time or as a stream of batches.

pub mod augment;
pub mod cache;
pub mod colour;
pub mod decode;
pub mod hf_preprocess;
pub mod job;
pub mod loader;
pub mod preprocess;
pub mod resize;

pub use self::augment::{Augment, AugmentCrop, PadFill};
pub use self::cache::ImageCache;
pub use self::colour::ColourJitter;
pub use self::decode::{MAX_DECODE_BYTES, MAX_PIXELS, decode_image, decode_image_bytes, decode_image_bytes_within};
pub use self::job::{BadImage, ImageBatch, ImageJob, OnBadImage, View};
pub use self::loader::Loader;
pub use self::preprocess::{CLIP_MEAN, CLIP_STD, HALF_MEAN_STD, Preprocess, Resize, Size};
pub use self::resize::{Resample, resize};
pub use ::image::RgbImage;
