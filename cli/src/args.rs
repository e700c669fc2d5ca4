//! What may stand on the command line. The doc comments are the help texts.

mod clips;
mod combine;
mod continual;
mod convert;
mod data;
mod data_sets;
mod device;
mod fleet;
mod pretrain;
mod registry;
mod serve;
mod store;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use inarch_core::metrics::{DetailConfig, RankingConfig};
use inarch_core::text::{Template, TemplateSet};

pub(crate) use self::clips::ClipArgs;
pub(crate) use self::combine::{CombineArgs, MergeArg};
pub(crate) use self::convert::{ConvertArgs, TargetFormat};
pub(crate) use self::data::{DataArgs, OnBadImageArg, ReadingArgs, ShownArgs, SourceArgs};
pub(crate) use self::data_sets::{
    ActionsArgs, CropArgs, DataSetsArgs, DataSetsCommand, JoinArgs, SplitArgs, TilesArgs,
};
pub(crate) use self::device::{DeviceArgs, PrecisionArg};
pub(crate) use self::pretrain::PretrainArgs;
use crate::commands::corrupt::CorruptArgs;
use crate::test_time::TestTimeArgs;
pub(crate) use continual::*;
pub(crate) use fleet::*;
pub(crate) use registry::*;
pub(crate) use serve::{LendArgs, LogFormat, ServeArgs};
pub(crate) use store::StoreArgs;

/// Adapt a frozen vision-language backbone to your own domain.
#[derive(Debug, Parser)]
#[command(name = "inarch", bin_name = "inarch", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story on real images, offline, in a few minutes
    Demo(DemoArgs),
    /// Train an adapter
    Fit(FitArgs),
    /// Measure zero-shot or an adapter on a data set
    Eval(EvalArgs),
    /// Train many methods on one data set and put them into one table
    Compare(CompareArgs),
    /// Classify images
    Predict(PredictArgs),
    /// Write features of images or texts
    Encode(EncodeArgs),
    /// Make a damaged copy of a data set, to test robustness
    Corrupt(CorruptArgs),
    /// Merge trained adapters into one, by weights
    Combine(CombineArgs),
    /// Bring a published adapter up to date with new data, past a gate
    Update(UpdateArgs),
    /// Measure continual-learning strategies over a stream of experiences
    Stream(StreamArgs),
    /// The rehearsal memory
    Memory(MemoryArgs),
    /// Join updates that were made apart
    Merge(MergeArgs),
    /// Read an adapter of another program, or write one for it
    Convert(ConvertArgs),
    /// Train a backbone from image-text pairs, or adapt one to them
    Pretrain(PretrainArgs),
    /// Serve a backbone and many adapters over HTTP, with a web page
    Serve(ServeArgs),
    /// Make data sets
    Data(DataSetsArgs),
    /// What can be adapted
    Backbone(BackboneArgs),
    /// Adapters as named versions that never change
    Registry(RegistryArgs),
    /// Follow a channel as a device of a fleet: verify, self-test, activate, or roll back
    Agent(AgentArgs),
    /// Lend a device of this machine to other machines
    #[cfg_attr(not(feature = "remote"), command(hide = true))]
    Lend(LendArgs),
    /// Devices, features, versions, and what is missing
    Doctor,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder for the demo's files
    #[arg(short = 'o', long, default_value = "inarch-demo", value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// A recipe file, whose paths lead from its folder; options override what it says
    pub(crate) recipe: Option<PathBuf>,
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]), a name (see `inarch backbone list`), or `embeddings:TEXTS.safetensors`
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Method, e.g. linear-probe, coop, lora; a wrong name lists them all
    #[arg(short = 'm', long, value_name = "METHOD", conflicts_with = "recipe")]
    pub(crate) method: Option<String>,
    /// Training images of each class; all when absent
    #[arg(long, value_name = "K")]
    pub(crate) shots: Option<usize>,
    /// Seed, or several: one run for each, with mean and spread
    #[arg(long, value_name = "S[,S..]", value_delimiter = ',')]
    pub(crate) seed: Vec<u64>,
    /// The method's authors' own schedule where the preset is shorter
    #[arg(long, conflicts_with = "recipe")]
    pub(crate) official: bool,
    /// Sentences of each class in place of templates: a JSON file, class name to list of sentences
    #[arg(long, value_name = "FILE.json")]
    pub(crate) descriptions: Option<PathBuf>,
    /// Override one setting of the recipe, e.g. `method.rank=4`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder for the adapter and the report
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) measures: MeasureArgs,
    /// Only print what the run would compute once, what in every step, and what that saves
    #[arg(long, conflicts_with = "publish")]
    pub(crate) explain: bool,
    /// Publish the adapter under this name in the registry, perhaps with a semantic version
    #[arg(long, value_name = "NAME[@RELEASE]")]
    pub(crate) publish: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]), a name (see `inarch backbone list`), or `embeddings:TEXTS.safetensors`
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Methods, separated by commas, or `all`
    #[arg(short = 'm', long, value_delimiter = ',', required = true, value_name = "METHOD[,METHOD..]")]
    pub(crate) method: Vec<String>,
    /// Training images of each class
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_name = "K[,K..]")]
    pub(crate) shots: Vec<usize>,
    /// Seeds
    #[arg(long, value_delimiter = ',', default_value = "1,2,3", value_name = "S[,S..]")]
    pub(crate) seeds: Vec<u64>,
    /// The authors' own schedules where the presets are shorter
    #[arg(long)]
    pub(crate) official: bool,
    /// Sentences of each class in place of templates: a JSON file, class name to list of sentences
    #[arg(long, value_name = "FILE.json")]
    pub(crate) descriptions: Option<PathBuf>,
    /// Override one setting of all methods, e.g. `views=4`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Choose a setting on validation images, e.g. `train.optimizer.lr=0.001,0.01`
    #[arg(long, value_name = "KEY=VALUE,VALUE..")]
    pub(crate) tune: Vec<String>,
    /// Train on the first half of the classes and test on both halves
    #[arg(long, conflicts_with = "subset")]
    pub(crate) base_to_new: bool,
    /// Folder for the report and all runs; what it holds already is not done again
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]), a name (see `inarch backbone list`), or `embeddings:TEXTS.safetensors`
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    /// Adapter: a folder that `inarch fit` or Hugging Face PEFT wrote, or NAME, NAME@ALIAS, NAME@VERSION of the registry;
    /// given several times, a stack of them, the one closest to the frozen layers first; zero-shot when absent
    #[arg(short = 'a', long, value_name = "ADAPTER")]
    pub(crate) adapter: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// In what the device keeps weights and computes; half precision is for inference, and for devices that are fast in it
    #[arg(long, value_enum, default_value = "f32", value_name = "PRECISION")]
    pub(crate) precision: PrecisionArg,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
    #[command(flatten)]
    pub(crate) measures: MeasureArgs,
    /// Also measure the answers that are left when those with a lower probability are withheld, 0 to 1
    #[arg(long, value_name = "P", value_parser = share)]
    pub(crate) abstain: Option<f64>,
    /// Fit a temperature on the validation images, write the adapter with it into this folder, and measure that
    #[arg(long, value_name = "FOLDER")]
    pub(crate) calibrate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) test_time: TestTimeArgs,
}

/// The sentences that classes are described with, for zero-shot; an adapter brings its own.
#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// Template set or one template, for zero-shot; an adapter brings its own
    #[arg(long, default_value = "single", value_name = "TEMPLATES", conflicts_with = "adapter")]
    templates: String,
    /// Sentences of each class in place of templates: a JSON file, class name to list of sentences
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["adapter", "templates"])]
    descriptions: Option<PathBuf>,
}

impl PromptArgs {
    /// The templates, or the file that stands for them.
    pub(crate) fn templates(&self) -> Result<Vec<Template>, inarch_core::Error> {
        let set = match &self.descriptions {
            Some(path) => TemplateSet::descriptions(path)?,
            None => TemplateSet::resolve(&self.templates)?,
        };
        Ok(set.templates().to_vec())
    }
}

/// How the measures of a report are taken.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Specificity that sensitivity is given at, 0 to 1
    #[arg(long, default_value_t = 0.9, value_name = "SHARE", value_parser = share)]
    pub(crate) specificity: f64,
    /// Resamples behind each 95 % interval; 0 for no intervals
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) resamples: usize,
}

impl MeasureArgs {
    /// The same with a seed and a threshold for answers.
    pub(crate) fn config(&self, abstain: Option<f64>) -> DetailConfig {
        let Self { specificity, resamples } = *self;
        DetailConfig { ranking: RankingConfig { specificity, resamples, ..RankingConfig::default() }, abstain }
    }
}

/// A name without the blanks around it: `hat, dress` is two names.
fn trimmed(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().to_string())
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".into())
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Images, clips (folders of frames, animated GIFs, or videos), or features files of images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Classes, separated by commas; when absent those of the adapter, or a caption by a backbone that writes them
    #[arg(long, value_delimiter = ',', value_name = "A,B,C", value_parser = trimmed)]
    pub(crate) classes: Vec<String>,
    /// Beginnings of a caption that are kept from word to word
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(2), value_name = "N")]
    pub(crate) beams: NonZeroUsize,
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
    /// Mark answers with a lower probability as withheld, 0 to 1
    #[arg(long, value_name = "P", value_parser = share)]
    pub(crate) abstain: Option<f64>,
    /// How many classes to show for each image
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(2), value_name = "K")]
    pub(crate) top_k: NonZeroUsize,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    #[command(flatten)]
    pub(crate) clips: ClipArgs,
    #[command(flatten)]
    pub(crate) test_time: TestTimeArgs,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("input").required(true).args(["images", "texts"])))]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Images: an image, a clip, a folder of images or any data set
    #[arg(long, value_name = "PATH")]
    pub(crate) images: Option<PathBuf>,
    /// Texts: a file with one text a line
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    #[command(flatten)]
    pub(crate) clips: ClipArgs,
    /// Encode one of several parts, counted from 0, so that many processes share the work; `inarch data join` puts their files
    /// together
    #[arg(long, value_name = "INDEX/COUNT")]
    pub(crate) shard: Option<String>,
    /// The features file to write
    #[arg(short = 'o', long, value_name = "FEATURES.safetensors")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BackboneArgs {
    #[command(subcommand)]
    pub(crate) command: BackboneCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackboneCommand {
    /// Backbones known by name, and those of the hub that were downloaded
    List,
    /// Shape, size and identity of a backbone
    Show {
        /// A folder, a checkpoint, a hub id or a name
        backbone: String,
    },
    /// Download a backbone from the Hugging Face hub, or bring it up to date
    Pull {
        /// ORG/NAME, or ORG/NAME@REVISION with a branch, a tag or a commit
        #[arg(value_name = "ORG/NAME[@REVISION]")]
        id: String,
    },
}
