//! What may stand behind `inarch data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ClipArgs, OnBadImageArg, ReadingArgs, SourceArgs};

#[derive(Debug, Args)]
pub(crate) struct DataSetsArgs {
    #[command(subcommand)]
    pub(crate) command: DataSetsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataSetsCommand {
    /// Cut the objects of a Pascal VOC set out into a folder of class folders
    Crop(CropArgs),
    /// Write a data set's splits down as a manifest; groups stay together
    Split(SplitArgs),
    /// Generate clips of moving things in which only the order of frames tells the class
    Actions(ActionsArgs),
    /// Cut slides too large to be one image into folders of tiles
    Tiles(TilesArgs),
    /// Join the features of all shards that `inarch encode --shard` wrote
    Join(JoinArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ActionsArgs {
    /// What moves: data sets of photos, or idx files such as MNIST's `t10k-images-idx3-ubyte.gz`
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// Training clips of each of the ten classes
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(crate) train: usize,
    /// Test clips of each class, of things that training clips do not show
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub(crate) test: usize,
    /// Frames of a clip; an odd multiple of the frames that a model sees, so that it sees the same ones backwards
    #[arg(long, default_value_t = 24, value_name = "T")]
    pub(crate) length: usize,
    /// Side of a frame in pixels
    #[arg(long, default_value_t = 64, value_name = "PIXELS")]
    pub(crate) side: u32,
    /// Write animated GIFs, not folders of frames
    #[arg(long)]
    pub(crate) gif: bool,
    /// Decides everything
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub(crate) seed: u64,
    /// Folder to write, which must not exist
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TilesArgs {
    /// Slides: a folder of class folders, or a CSV or JSONL manifest
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// What to do about a slide that cannot be read
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_bad_image: Option<OnBadImageArg>,
    /// Side of a tile as it is written, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub(crate) side: u32,
    /// How many pixels of the slide become one, along each side
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) shrink: u32,
    /// Leave out tiles with a smaller share of coloured pixels; 0 keeps all, as grey slides need
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub(crate) tissue: f64,
    /// Folder to write, which must not exist
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CropArgs {
    /// Folder with `Annotations` and `JPEGImages`; lists in `ImageSets/Main` decide the splits, or else a hash of the image
    #[arg(value_name = "VOC_FOLDER")]
    pub(crate) source: PathBuf,
    /// What is added on each side, as a share of the box's side
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) margin: f64,
    /// Let the shorter side grow until the crop is a square
    #[arg(long)]
    pub(crate) square: bool,
    /// Leave out boxes with a shorter side, in pixels
    #[arg(long, default_value_t = 1, value_name = "PIXELS")]
    pub(crate) smallest: u32,
    /// Folder to write, which must not exist
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// Data: a folder of class folders, a CoOp split JSON, or a CSV or JSONL manifest
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) clips: ClipArgs,
    /// Manifest to write, `path,label,split[,group]`; its paths are relative to the data
    #[arg(short = 'o', long, value_name = "SPLITS.csv")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The files of all shards, in any order
    #[arg(required = true, value_name = "SHARD.safetensors")]
    pub(crate) shards: Vec<PathBuf>,
    /// The features file to write
    #[arg(short = 'o', long, value_name = "FEATURES.safetensors")]
    pub(crate) output: PathBuf,
}
