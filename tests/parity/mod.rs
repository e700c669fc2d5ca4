//! Equality with reference implementations. Each case keeps its fixture and the program that made it side by side.

mod clip_tiny;
mod combine;
mod compressed_dicom;
mod crossing;
mod families;
mod foreign;
mod hf_peft;
mod measures;
mod medical_images;
mod methods;
mod openclip_tiny;
mod pairs;
mod preprocess;
mod reference;
mod slides;
mod test_time;
mod test_views;
mod tokenizer;
mod training;
#[cfg(feature = "video")]
mod video;
