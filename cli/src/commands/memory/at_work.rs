//! A memory at work: samples come in, are forgotten, or grow too old.

use std::path::{Path, PathBuf};

use inarch_continual::{Cause, Fingerprint, Key, Memory, MemoryConfig, MemoryStore, Sample};
use inarch_core::data::{DataOptions, Example};
use inarch_recipes::{BadImagePolicy, Progress as _, Session, Subset};
use serde_json::json;

use super::super::update::{now, read_key};
use super::{has_versions, store_path};
use crate::args::{AddArgs, ForgetArgs};
use crate::backbones;
use crate::data::open_more;
use crate::error::CommandError;
use crate::output::{Output, names_of, unread};
use crate::progress::Bars;

pub(super) fn add(args: &AddArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let mut settings = toml::Table::new();
    for assignment in &args.set {
        inarch_recipes::set_in(&mut settings, assignment)?;
    }
    let config: MemoryConfig = settings.clone().try_into().map_err(|error: toml::de::Error| {
        CommandError::usage(error.message().to_string(), "settings are those of `[memory]`")
    })?;
    if config.views > 1 {
        return Err(one_view(&args.name));
    }
    let (path, key) = (store_path(&args.name)?, read_key(args.version.key.as_ref())?);
    let begun = begun(&path, key.clone())?;
    let config = begun.as_ref().map_or(config, |memory| *memory.config());
    let kept = toml::Table::try_from(config).unwrap_or_default();
    let left_out: Vec<&str> = settings
        .iter()
        .filter(|(name, value)| kept.get(*name) != Some(*value))
        .map(|(name, _)| name.as_str())
        .collect();
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        bars.say(&format!("left out: {names}; the memory `{}` keeps the settings it was begun with", args.name));
    }
    let device = inarch_core::device(&args.version.device.device)?;
    let backbone = backbones::open(&args.version.backbone, &device)?;
    let options = args.reading.options();
    let window = options.window.or_else(|| begun.as_ref()?.fingerprint().window);
    let fingerprint = Fingerprint::of(&backbone, window);
    let name = format!("the memory `{}`", args.name);
    if let Some(memory) = &begun {
        memory.fingerprint().check(&fingerprint, &name)?;
    }
    let dataset = open_more(&args.data, DataOptions { window, ..options }, bars)?;
    dataset.need_single_labels("a memory")?;
    let policy = BadImagePolicy::from(args.on_bad_image).into();
    let session = Session::new(&backbone, &dataset, Subset::All, policy, bars.control())?;
    let features = session.features(&dataset.train)?;
    let skipped = names_of(&features.bad);
    if features.kept.is_empty() && !skipped.is_empty() {
        let reason = "none of its training images can be read; nothing is to be remembered";
        return Err(inarch_core::Error::invalid(format!("data set `{}`", dataset.name), reason).into());
    }
    let kept: Vec<&Example> = features.kept.iter().map(|position| &dataset.train[*position]).collect();
    let images = config.content.images(&kept)?;
    let time = now();
    let mut samples = Vec::with_capacity(kept.len());
    for ((latent, example), image) in features.values.chunks_exact(features.dim).zip(kept).zip(images) {
        samples.push(Sample {
            id: format!("{}/{}", dataset.name, example.id),
            class: dataset.classes[example.label].clone(),
            source: dataset.name.clone(),
            time,
            weight: 1.0,
            latent: latent.to_vec(),
            views: Vec::new(),
            image,
            scores: Vec::new(),
        });
    }
    let store = MemoryStore::open(&path, key)?;
    let mut expired = 0;
    if let Some(mut memory) = store.memory()? {
        // What is refused changes nothing, age or not.
        memory.fingerprint().check(&fingerprint, &name)?;
        if memory.config().views > 1 {
            return Err(one_view(&args.name));
        }
        expired = store.expire(&mut memory, time)?.len();
    }
    let memory = store.offer(config, &fingerprint, samples)?;
    let (held, bytes) = (memory.len(), memory.bytes());
    let result = json!({ "name": args.name, "samples": held, "bytes": bytes, "expired": expired, "skipped": skipped });
    output.result(&result, || {
        let dropped = if expired > 0 { format!("; {expired} were too old and dropped") } else { String::new() };
        format!("{held} samples, {bytes} bytes at work in `{}`{dropped}\n{}", args.name, unread(&skipped))
    });
    Ok(())
}

/// The memory that there is: what is added is seen and kept as it sees and keeps samples.
fn begun(path: &Path, key: Option<Key>) -> Result<Option<Memory>, CommandError> {
    if !path.is_dir() {
        return Ok(None);
    }
    Ok(MemoryStore::open(path, key)?.memory()?)
}

/// What is said where samples of several views would be added.
fn one_view(name: &str) -> CommandError {
    CommandError::usage(
        format!("`memory add` makes centre views, and of the samples in `{name}` there would be more"),
        "samples of several views (`memory.views`) are made by `inarch update` and `inarch stream`; add to a memory of one view",
    )
}

pub(super) fn expire(name: &str, key: Option<&PathBuf>, output: &Output) -> Result<(), CommandError> {
    let Some(path) = store_path(name).ok().filter(|path| path.is_dir()) else {
        let hint = match has_versions(name) {
            true => {
                "it has versions, which never change: the next `inarch update` that is published drops what is too old"
            }
            false => "`inarch memory add NAME -d DATA` starts one",
        };
        return Err(CommandError::usage(format!("there is no memory at work `{name}`"), hint));
    };
    let store = MemoryStore::open(&path, read_key(key)?)?;
    let Some(mut memory) = store.memory()? else {
        return Err(CommandError::usage(format!("the memory `{name}` is empty"), "there is nothing to drop"));
    };
    let Some(days) = memory.config().most_days else {
        return Err(CommandError::usage(
            format!("the memory `{name}` keeps samples for ever"),
            "`inarch memory add NEW -d DATA --set most_days=30` starts one that does not; `inarch memory forget` takes \
             single samples out",
        ));
    };
    let gone = store.expire(&mut memory, now())?;
    let ids: Vec<&str> = gone.iter().map(|sample| sample.id.as_str()).collect();
    let record = (!gone.is_empty()).then(|| store.records());
    let result = json!({ "name": name, "expired": ids, "samples": memory.len(), "record": record });
    output.result(&result, || {
        let mut text = format!(
            "dropped {} samples that came more than {days} days ago; {} are left in `{name}`",
            ids.len(),
            memory.len()
        );
        if let Some(record) = &record {
            text.push_str(&format!("; record in {}", record.display()));
        }
        ids.iter().for_each(|id| text.push_str(&format!("\n{id}")));
        text
    });
    Ok(())
}

pub(super) fn forget(args: &ForgetArgs, key: Option<Key>, output: &Output) -> Result<(), CommandError> {
    let path = store_path(&args.target)?;
    if !path.is_dir() {
        return Err(CommandError::usage(
            format!(
                "there is no folder of versions, no adapter in the registry and no memory at work `{}`",
                args.target
            ),
            "`inarch memory show` takes the same names",
        ));
    }
    if args.purge || args.data.is_some() {
        return Err(CommandError::usage(
            format!("`{}` is a memory at work: it has no versions and no adapter", args.target),
            "`--purge` and `-d` are for those; leave them out",
        ));
    }
    let store = MemoryStore::open(&path, key)?;
    let Some(mut memory) = store.memory()? else {
        return Err(CommandError::usage(
            format!("the memory `{}` is empty", args.target),
            "there is nothing to forget",
        ));
    };
    if let Some(unknown) = args.ids.iter().find(|id| memory.get(id).is_none()) {
        let candidates = memory.samples().map(|sample| sample.id.clone()).collect();
        return Err(inarch_core::Error::Unknown { kind: "sample", name: unknown.clone(), candidates }.into());
    }
    let gone = store.take_out(&mut memory, &args.ids, Cause::Forget, now())?;
    let (left, record) = (memory.len(), store.records());
    let result = json!({ "name": args.target, "forgotten": gone.len(), "samples": left, "record": record });
    output.result(&result, || {
        format!("forgot {} samples; {left} are left in `{}`; record in {}", gone.len(), args.target, record.display())
    });
    Ok(())
}
