//! `inarch corrupt`: a damaged copy of a data set, to test robustness.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use inarch_core::data::{Dataset, Example, Source, Split, few_shot, open_dataset_with};
use inarch_core::image::{Corruption, Frame, ImageAddress, ImageList, RgbImage, SEVERITIES};
use inarch_core::{Seed, file};
use inarch_recipes::Error::Stopped;
use serde::Serialize;

use crate::args::{OnBadImageArg, ReadingArgs};
use crate::data::check_apart;
use crate::error::CommandError;
use crate::output::{Output, unread};
use crate::progress::Bars;

/// Images in memory at once.
const BATCH: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct CorruptArgs {
    /// Data: a folder of class folders, a CoOp split JSON, or a CSV or JSONL manifest
    #[arg(short = 'd', long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Folder for the copies: one data set for each kind and severity
    #[arg(short = 'o', long, value_name = "FOLDER")]
    output: PathBuf,
    /// Kinds: clean, noise, blur, jpeg, colour, low-contrast, or `all`
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "KIND[,KIND..]")]
    kind: Vec<String>,
    /// Severities, from 1, the mildest, to 5
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,5", value_name = "N[,N..]")]
    severity: Vec<usize>,
    /// Which images; the copy holds them as test images
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArg,
    /// Images of each class, chosen by the hash of their names; all when absent
    #[arg(long, value_name = "K")]
    limit: Option<usize>,
    /// Decides what is random, and the choice of `--limit`
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    on_bad_image: OnBadImageArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    /// What is learned from
    Train,
    /// What choices are made on
    Val,
    /// What is reported on
    Test,
}

impl From<SplitArg> for Split {
    fn from(arg: SplitArg) -> Self {
        match arg {
            SplitArg::Train => Self::Train,
            SplitArg::Val => Self::Val,
            SplitArg::Test => Self::Test,
        }
    }
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct CorruptResult {
    copies: Vec<Copy>,
    skipped: Vec<String>,
}

/// One damaged data set.
#[derive(Serialize)]
struct Copy {
    kind: &'static str,
    severity: Option<usize>,
    images: usize,
    folder: PathBuf,
}

pub(crate) fn run(args: &CorruptArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let kinds = kinds(&args.kind)?;
    if let Some(severity) = args.severity.iter().find(|severity| !(1..=SEVERITIES).contains(severity)) {
        return Err(CommandError::usage(format!("there is no severity {severity}"), "severities are 1 to 5"));
    }
    check_apart(&args.output, &args.data)?;
    let dataset = open_dataset_with(&args.data, &args.reading.options())?;
    // A copy lies in class folders.
    dataset.need_single_labels("a damaged copy")?;
    dataset.need_folder_names()?;
    let examples = chosen(args, &dataset)?;
    let mut plan = Vec::new();
    for kind in kinds {
        // What does nothing has no severity.
        let severities =
            if kind == Corruption::Clean { vec![None] } else { args.severity.iter().copied().map(Some).collect() };
        for severity in severities {
            let name = severity.map_or(kind.to_string(), |severity| format!("{kind}-{severity}"));
            let folder = args.output.join(name);
            if folder.exists() {
                let message = format!("`{}` exists already", folder.display());
                return Err(CommandError::usage(message, "remove it, or choose another folder with `-o`"));
            }
            if !plan.iter().any(|(_, _, known)| *known == folder) {
                plan.push((kind, severity, folder));
            }
        }
    }
    let (control, copies) = (bars.control(), plan.len());
    let progress = control.progress;
    let mut result = CorruptResult { copies: Vec::new(), skipped: Vec::new() };
    progress.start("corrupt", (plan.len() * examples.len()) as u64);
    for (kind, severity, folder) in plan {
        // A copy appears whole, once it is done.
        let partial = folder.with_extension("partial");
        if partial.exists() {
            file::remove_folder(&partial)?;
        }
        let mut images = 0;
        let mut list = ImageList::new(examples.iter().filter_map(image_of).collect());
        for examples in examples.chunks(BATCH) {
            if control.stopped() {
                file::remove_folder(&partial)?;
                return Err(Stopped { what: "copies", done: result.copies.len(), total: copies }.into());
            }
            let count = examples.iter().filter_map(image_of).count();
            for (example, (_, image)) in examples.iter().zip(list.decode(count)) {
                let image = match image {
                    Ok(image) => image,
                    Err(_) if matches!(args.on_bad_image, OnBadImageArg::Skip) => {
                        if !result.skipped.contains(&example.id) {
                            result.skipped.push(example.id.clone());
                        }
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let seed = Seed::new(args.seed).split(kind).split(severity.unwrap_or(0)).split(&example.id);
                let damaged = kind.apply(&image, severity.unwrap_or(1), seed)?;
                let class = &dataset.classes[example.label];
                file::write(&partial.join("test").join(class).join(file_name(example)), &png(&damaged)?)?;
                images += 1;
            }
            progress.advance(examples.len() as u64, "");
        }
        file::rename(&partial, &folder)?;
        result.copies.push(Copy { kind: kind.name(), severity, images, folder });
    }
    progress.finish();
    output.result(&result, || text(&result));
    Ok(())
}

fn kinds(names: &[String]) -> Result<Vec<Corruption>, CommandError> {
    if names == ["all"] {
        return Ok(Corruption::ALL.to_vec());
    }
    Ok(names.iter().map(|name| Corruption::named(name)).collect::<Result<_, _>>()?)
}

fn image_of(example: &Example) -> Option<&Path> {
    match &example.source {
        Source::Image(path) => Some(path),
        Source::Bytes(..) | Source::Row(_) | Source::Clip(_) => None,
    }
}

/// The examples to be damaged.
fn chosen(args: &CorruptArgs, dataset: &Dataset) -> Result<Vec<Example>, CommandError> {
    let all = dataset.split(args.split.into());
    if dataset.clips.is_some() {
        let hint = "give the frames as images of their own";
        return Err(CommandError::usage(format!("`{}` holds clips, not images", dataset.name), hint));
    }
    if dataset.features.is_some() {
        let hint = "give the images that the features were made of";
        return Err(CommandError::usage(format!("`{}` holds features, not images", dataset.name), hint));
    }
    if all.is_empty() {
        let hint = "`--split` chooses another part: train, val or test";
        return Err(CommandError::usage(format!("`{}` has no such images", dataset.name), hint));
    }
    let examples = match args.limit {
        None => all.to_vec(),
        Some(limit) => few_shot(all, dataset.classes.len(), limit, Seed::new(args.seed).split("limit"))?,
    };
    let mut names = HashSet::new();
    if let Some(twice) = examples.iter().find(|example| !names.insert((example.label, file_name(example)))) {
        let hint = "rename one of the two files";
        return Err(CommandError::usage(format!("two images would be written as `{}`", file_name(twice)), hint));
    }
    Ok(examples)
}

/// The example's id as one file name, without the folders of split and class; a frame has its number behind the name.
fn file_name(example: &Example) -> String {
    let address = ImageAddress::of(Path::new(&example.id));
    let name = address.file.file_stem().unwrap_or_default().to_string_lossy();
    match address.frame {
        Frame::Number(frame) => format!("{name}-{frame}.png"),
        Frame::Middle | Frame::All => format!("{name}.png"),
    }
}

/// Without loss, so that nothing but the wanted damage is done.
fn png(image: &RgbImage) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Cursor::new(Vec::new());
    let fault = |error: inarch_core::image::ImageError| inarch_core::Error::invalid("PNG image", error.to_string());
    image.write_to(&mut bytes, inarch_core::image::ImageFormat::Png).map_err(fault)?;
    Ok(bytes.into_inner())
}

fn text(result: &CorruptResult) -> String {
    let mut text = String::new();
    for copy in &result.copies {
        text.push_str(&format!("{} images in {}\n", copy.images, copy.folder.display()));
    }
    text.push_str(&unread(&result.skipped));
    text
}
