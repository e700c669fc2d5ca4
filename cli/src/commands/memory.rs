//! `inarch memory`: the rehearsal memory of a version, in a snapshot, or at work.

mod at_work;

use std::path::{Path, PathBuf};

use inarch_continual::{
    DriftConfig, DriftVerdict, DriftWatch, Error, Fingerprint, ForgetReport, ForgetRequest, Key, Memory, MemoryConfig,
    MemoryStore, Sample, Versions as _, forget,
};
use inarch_core::Digest;
use inarch_core::data::DataOptions;
use inarch_core::image::Window;
use inarch_recipes::{BadImagePolicy, Progress as _, Session, Subset};
use serde::Serialize;
use serde_json::{Value, json};

use super::update::{now, read_key};
use crate::args::{DriftArgs, ForgetArgs, MemoryArgs, MemoryCommand, MemoryTarget, ShownArgs};
use crate::backbones;
use crate::data::open_more;
use crate::error::CommandError;
use crate::home::{features, home};
use crate::output::{Output, names_of, table, unread};
use crate::progress::Bars;
use crate::versions::AnyVersions;

pub(crate) fn run(args: &MemoryArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    match &args.command {
        MemoryCommand::Show { target, samples } => show(target, *samples, output),
        MemoryCommand::Forget(args) => run_forget(args, bars, output),
        MemoryCommand::Export { target, file, seal } => {
            let memory = open(target)?;
            let digest = memory.save(file, read_key(seal.as_ref())?.as_ref())?;
            let result = json!({ "file": file, "samples": memory.len(), "digest": digest });
            output.result(&result, || format!("{} samples in {} ({})", memory.len(), file.display(), digest));
            Ok(())
        }
        MemoryCommand::Import { file, name, key, seal } => import(file, name, [key.as_ref(), seal.as_ref()], output),
        MemoryCommand::Add(args) => at_work::add(args, bars, output),
        MemoryCommand::Expire { name, key } => at_work::expire(name, key.as_ref(), output),
        MemoryCommand::Verify { target, backbone, device } => {
            let memory = open(target)?;
            if let Some(backbone) = backbone {
                let backbone = backbones::open(backbone, &inarch_core::device(&device.device)?)?;
                let name = format!("the memory `{}`", target.memory);
                memory.fingerprint().check_backbone(&backbone, &name)?;
            }
            let fits = memory.bytes() <= memory.config().budget_bytes;
            let result = json!({ "samples": memory.len(), "bytes": memory.bytes(), "within_budget": fits });
            output.result(&result, || format!("whole: {} samples, {} bytes", memory.len(), memory.bytes()));
            Ok(())
        }
        MemoryCommand::Drift(args) => drift(args, bars, output),
        MemoryCommand::Key { file } => {
            Key::create(file)?;
            let note = "keep it apart from what it encrypts; without it that is lost";
            output.result(&json!({ "file": file }), || format!("key in {}: {note}", file.display()));
            Ok(())
        }
    }
}

/// Where a memory at work lies.
fn store_path(name: &str) -> Result<PathBuf, CommandError> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !plain || name.starts_with('.') {
        return Err(CommandError::usage(
            format!("`{name}` is no name for a memory at work, and no file or folder"),
            "use letters, digits, `-` and `_`",
        ));
    }
    Ok(home()?.join("memory").join(format!("{name}.sled")))
}

/// Whether a target is an adapter with versions: a folder, or a name of the registry unless a memory at work has that name.
fn has_versions(target: &str) -> bool {
    let at_work = || store_path(target).is_ok_and(|path| path.is_dir());
    Path::new(target).is_dir() || target.contains('@') || (!at_work() && AnyVersions::new().exists(target))
}

/// How images are shown beside those that a memory holds: in its window, where none is given.
fn shown_beside(shown: &ShownArgs, remembered: Option<Window>) -> DataOptions {
    let options = shown.options();
    DataOptions { window: options.window.or(remembered), ..options }
}

/// Opens a memory of any kind.
fn open(target: &MemoryTarget) -> Result<Memory, CommandError> {
    let key = read_key(target.key.as_ref())?;
    let path = Path::new(&target.memory);
    if path.is_file() {
        return Ok(Memory::load(path, key.as_ref())?);
    }
    if has_versions(&target.memory) {
        let versions = AnyVersions::new();
        let version = versions.open(&target.memory)?;
        return version.memory(key.as_ref())?.ok_or_else(|| {
            CommandError::usage(
                format!("version `{}` has no memory", version.name),
                "`inarch update` makes versions that have",
            )
        });
    }
    let store = store_path(&target.memory)?;
    if !store.is_dir() {
        return Err(CommandError::usage(
            format!("there is no memory `{}`: no file, no folder, none at work or in the registry", target.memory),
            "`inarch memory add NAME -d DATA` starts one",
        ));
    }
    let memory = MemoryStore::open(&store, key)?.memory()?;
    memory.ok_or_else(|| {
        CommandError::usage(format!("the memory `{}` is empty", target.memory), "`inarch memory add` fills it")
    })
}

#[derive(Serialize)]
struct Shown<'a> {
    samples: usize,
    bytes: u64,
    config: &'a MemoryConfig,
    fingerprint: &'a Fingerprint,
    classes: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Value>>,
}

fn show(target: &MemoryTarget, samples: bool, output: &Output) -> Result<(), CommandError> {
    let memory = open(target)?;
    let held = memory.held();
    let classes: Vec<(String, usize, u64)> = memory
        .offered()
        .iter()
        .map(|(class, offered)| (class.clone(), held.get(class).copied().unwrap_or(0), *offered))
        .collect();
    let entry = |sample: &Sample| json!({ "id": sample.id, "class": sample.class, "source": sample.source, "time": sample.time });
    let shown = Shown {
        samples: memory.len(),
        bytes: memory.bytes(),
        config: memory.config(),
        fingerprint: memory.fingerprint(),
        classes: classes
            .iter()
            .map(|(class, held, offered)| json!({ "class": class, "held": held, "offered": offered }))
            .collect(),
        ids: samples.then(|| memory.samples().map(entry).collect()),
    };
    output.result(&shown, || {
        let mut rows = vec![["class", "held", "offered"].map(String::from).to_vec()];
        rows.extend(
            classes.iter().map(|(class, held, offered)| vec![class.clone(), held.to_string(), offered.to_string()]),
        );
        let mut text = table(&rows);
        let MemoryConfig { budget_bytes, views, .. } = memory.config();
        let in_views = if *views > 1 { format!("in {views} views each, ") } else { String::new() };
        text.push_str(&format!(
            "{} samples, {in_views}{} of {budget_bytes} bytes; latents of {} ({})\n",
            memory.len(),
            memory.bytes(),
            memory.fingerprint().name,
            memory.fingerprint().backbone.short()
        ));
        if samples {
            memory.samples().for_each(|sample| text.push_str(&format!("{}\n", sample.id)));
        }
        text
    });
    Ok(())
}

fn import(file: &Path, name: &str, keys: [Option<&PathBuf>; 2], output: &Output) -> Result<(), CommandError> {
    let [key, seal] = [read_key(keys[0])?, read_key(keys[1])?];
    let snapshot = Memory::load(file, key.as_ref())?;
    let store = MemoryStore::open(&store_path(name)?, seal)?;
    let there = store.memory().map_err(|error| match error {
        Error::Sealed { path, .. } if keys[1].is_none() => CommandError::usage(
            format!("`{}` is encrypted", path.display()),
            "`--seal FILE` names the key file of the memory at work; `--key` is for the snapshot",
        ),
        error => error.into(),
    });
    let memory = match there? {
        Some(mut memory) => {
            memory.merge(&snapshot)?;
            memory
        }
        None => snapshot,
    };
    store.put(&memory)?;
    let digest = Digest::of(&memory.snapshot(None));
    let result = json!({ "name": name, "samples": memory.len(), "digest": digest });
    output.result(&result, || format!("{} samples at work in `{name}` ({digest})", memory.len()));
    Ok(())
}

fn run_forget(args: &ForgetArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let kept = features()?;
    if kept.exists() {
        // They are found by what an image looks like, not by its id.
        bars.say(&format!("warning: `{}` keeps features of images (`--store`): remove it too", kept.display()));
    }
    let key = read_key(args.version.key.as_ref())?;
    if !has_versions(&args.target) {
        return at_work::forget(args, key, output);
    }
    let device = inarch_core::device(&args.version.device.device)?;
    let backbone = backbones::open(&args.version.backbone, &device)?;
    let present = |path: &PathBuf| -> Result<_, CommandError> {
        let window = AnyVersions::new().open(&args.target)?.artifact(&backbone)?.manifest.window;
        open_more(path, shown_beside(&args.shown, window), bars)
    };
    let presented = args.data.as_ref().map(present).transpose()?;
    let request = ForgetRequest {
        target: &args.target,
        ids: &args.ids,
        presented: presented.as_ref(),
        policy: BadImagePolicy::from(args.on_bad_image).into(),
        key: key.as_ref(),
        time: now(),
        purge: args.purge,
        memory_only: args.memory_only,
    };
    let report = forget(&backbone, &AnyVersions::new(), &request, bars.control())?;
    // No part of the record, which names nobody.
    let skipped = presented.is_some().then_some(&report.skipped[..]);
    output.result(&Forgotten { report: &report, skipped }, || {
        let influence = match (report.influence_removed, report.residual) {
            (true, Some(residual)) => format!("the adapter is the one without them (summed anew: difference {residual:.1e})"),
            (true, None) => "the adapter is the one without them".into(),
            (false, _) => "the adapter still knows them".into(),
        };
        let mut text = format!(
            "forgot {} samples: {} from the memory, {} from the probe, {} presented; {influence}\npublished {} with forgotten.json\n",
            report.forgotten.len(),
            report.from_memory,
            report.from_probe,
            report.presented,
            report.version.as_deref().unwrap_or_default()
        );
        if !report.purged.is_empty() {
            text.push_str(&format!("removed: {}\n", report.purged.join(", ")));
        }
        if !report.still_in.is_empty() {
            text.push_str(&format!(
                "older versions still know them: {}; `--purge` removes those of a folder, `inarch registry gc` those of a registry\n",
                report.still_in.join(", ")
            ));
        }
        text.push_str(&unread(&report.skipped));
        text
    });
    Ok(())
}

/// What `memory forget` prints with `--json`.
#[derive(Serialize)]
struct Forgotten<'a> {
    #[serde(flatten)]
    report: &'a ForgetReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a [String]>,
}

/// What `memory drift` prints with `--json`.
#[derive(Serialize)]
struct Drift {
    #[serde(flatten)]
    verdict: DriftVerdict,
    skipped: Vec<String>,
}

fn drift(args: &DriftArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let memory = open(&args.target)?;
    let backbone = backbones::open(&args.backbone, &inarch_core::device(&args.device.device)?)?;
    memory.fingerprint().check_backbone(&backbone, &format!("the memory `{}`", args.target.memory))?;
    let key = read_key(args.target.key.as_ref())?;
    let mut watch = DriftWatch::open(&memory, DriftConfig::default(), args.state.as_deref(), key.as_ref())?;
    let dataset = open_more(&args.data, shown_beside(&args.shown, memory.fingerprint().window), bars)?;
    let policy = BadImagePolicy::from(args.on_bad_image).into();
    let session = Session::new(&backbone, &dataset, Subset::All, policy, bars.control())?;
    let all: Vec<_> = dataset.examples().map(|(_, example)| example.clone()).collect();
    let features = session.features(&all)?;
    let verdict = watch.observe(&features.values)?;
    if let Some(path) = &args.state {
        watch.save(path, key.as_ref())?;
    }
    let result = Drift { verdict, skipped: names_of(&features.bad) };
    output.result(&result, || {
        format!(
            "{}\nMMD {:.4} (p {:.3}); KS {:.3} at feature {} (p {:.3}, all features counted); ADWIN: {}\n{}",
            if verdict.drifted { "drift: the images differ from what is remembered" } else { "no drift" },
            verdict.mmd.statistic,
            verdict.mmd.p_value,
            verdict.ks.statistic,
            verdict.ks.feature,
            verdict.ks.p_value,
            if verdict.adwin { "a change" } else { "no change" },
            unread(&result.skipped)
        )
    });
    Ok(())
}
