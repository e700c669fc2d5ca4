//! Which data a command reads, and how.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use inarch_core::data::DataOptions;
use inarch_core::image::{Frame, ImageAddress, Window, single_images};
use inarch_recipes::{BadImagePolicy, Subset};

use super::ClipArgs;
use crate::adapter::Model;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Data: a folder of class folders, a CoOp split JSON, a CSV or JSONL manifest, or a features file
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_bad_image: Option<OnBadImageArg>,
    /// Classes that take part
    #[arg(long, value_enum)]
    pub(crate) subset: Option<SubsetArg>,
    #[command(flatten)]
    pub(crate) clips: ClipArgs,
}

impl DataArgs {
    /// How the data set is read.
    pub(crate) fn options(&self) -> DataOptions {
        let clips = self.clips.over(None);
        DataOptions { clips, ..self.reading.options() }
    }
}

/// How images are found and shown.
#[derive(Debug, Args)]
pub(crate) struct ReadingArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
}

impl ReadingArgs {
    /// How data with these settings are read.
    pub(crate) fn options(&self) -> DataOptions {
        self.source.over(self.shown.options())
    }
}

/// What names of files leave open.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Folder that the paths of a split or manifest are relative to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Pattern over file names: what its first group matches, a patient say, is never in two splits
    #[arg(long, value_name = "REGEX")]
    pub(crate) group_by: Option<String>,
}

impl SourceArgs {
    /// These settings over others.
    pub(crate) fn over(&self, options: DataOptions) -> DataOptions {
        DataOptions { root: self.root.clone(), group_by: self.group_by.clone(), ..options }
    }
}

/// What is shown of DICOM files, volumes and 16-bit images.
#[derive(Debug, Args)]
pub(crate) struct ShownArgs {
    /// Slices of volumes and frames of DICOM files that are images: middle (default), all, or a number from 1 on; a path can
    /// name its own, `scan.dcm#3`
    #[arg(long, value_name = "SLICES")]
    pub(crate) slices: Option<Frame>,
    /// Window that grey values are shown in: CENTRE:WIDTH, pLOW:HIGH (percentiles) or full; by default that of the file
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    pub(crate) window: Option<Window>,
}

impl ShownArgs {
    /// The same, with the window of an adapter where none is given.
    pub(crate) fn beside(&self, model: &Model) -> Self {
        Self { slices: self.slices, window: model.reading(self.options()).window }
    }

    /// How data with these settings are read.
    pub(crate) fn options(&self) -> DataOptions {
        DataOptions { slices: self.slices.unwrap_or_default(), window: self.window, ..DataOptions::default() }
    }

    /// The single images that a path names.
    pub(crate) fn images(&self, path: &Path) -> Result<Vec<PathBuf>, inarch_core::Error> {
        let mut address = ImageAddress::of(path);
        if address.frame == Frame::Middle {
            address.frame = self.slices.unwrap_or_default();
        }
        address.window = address.window.or(self.window);
        single_images(&address.path())
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnBadImageArg {
    /// Stop and name it
    Fail,
    /// Leave it out and report it
    Skip,
}

impl From<OnBadImageArg> for BadImagePolicy {
    fn from(arg: OnBadImageArg) -> Self {
        match arg {
            OnBadImageArg::Fail => Self::Fail,
            OnBadImageArg::Skip => Self::Skip,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SubsetArg {
    /// All classes
    All,
    /// The first half of the classes, rounded up
    Base,
    /// The second half
    New,
}

impl From<SubsetArg> for Subset {
    fn from(arg: SubsetArg) -> Self {
        match arg {
            SubsetArg::All => Self::All,
            SubsetArg::Base => Self::Base,
            SubsetArg::New => Self::New,
        }
    }
}
