//! `inarch update`: bring a published adapter up to date, past a gate.

use std::path::{Path, PathBuf};

use inarch_continual::{Key, UpdateRecipe, UpdateReport, UpdateRequest, Versions as _, update};
use inarch_core::data::{DataOptions, open_dataset_with};
use inarch_core::file;
use inarch_recipes::BadImagePolicy;

use crate::args::UpdateArgs;
use crate::backbones;
use crate::data::{check_apart, open};
use crate::error::CommandError;
use crate::output::{Output, percent, quoted, table};
use crate::progress::Bars;
use crate::versions::AnyVersions;

pub(crate) fn run(args: &UpdateArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let control = bars.control();
    let (text, origin) = match &args.recipe {
        Some(path) => (file::read_text(path)?, path.display().to_string()),
        None => (String::new(), "command line".into()),
    };
    let recipe = UpdateRecipe::read(&text, &origin, &args.set)?;
    let key = read_key(args.version.key.as_ref())?;
    let device = inarch_core::device(&args.version.device.device)?;
    let backbone = backbones::open(&args.version.backbone, &device)?;
    let folder = args.output.as_deref().unwrap_or(&args.target);
    // Other names are of the registry.
    if Path::new(folder).exists() || (args.init.is_some() && !folder.contains('@')) {
        check_apart(Path::new(folder), &args.data)?;
    }
    let versions = AnyVersions::new();
    // A first version tells classes apart; what comes later may be more of one, or a new one alone.
    let mut options = DataOptions { one_class: args.init.is_none(), ..args.reading.options() };
    let mut clips = None;
    if args.init.is_none()
        && let Ok(version) = versions.open(&args.target)
    {
        let artifact = version.artifact(&backbone)?;
        options = artifact.reading(options);
        clips = artifact.manifest.clips;
    }
    let dataset = open(&args.data, options.clone(), &args.clips, clips.as_ref(), bars)?;
    dataset.need_single_labels("an update")?;
    // Of these nothing is learned, so their names need not tell groups.
    let shown = DataOptions { window: options.window, ..args.reading.shown.options() };
    let probe = DataOptions { one_class: true, ..shown.clone() };
    let probes = args.probe.iter().map(|path| open(path, probe.clone(), &args.clips, clips.as_ref(), bars));
    let zero_shot = args.zero_shot.iter().map(|path| open_dataset_with(path, &shown));
    let request = UpdateRequest {
        target: &args.target,
        output: args.output.as_deref(),
        init: args.init.as_deref(),
        dataset: &dataset,
        options: &options,
        probes: &probes.collect::<Result<Vec<_>, _>>()?,
        zero_shot: &zero_shot.collect::<Result<Vec<_>, _>>()?,
        recipe: &recipe,
        key: key.as_ref(),
        time: now(),
        if_drift: args.if_drift,
        drift_state: args.state.as_deref(),
        policy: BadImagePolicy::from(args.on_bad_image).into(),
    };
    let report = update(&backbone, &versions, &request, control)?;
    output.result(&report, || text_of(&report, &args.version.backbone));
    match &report.verdict {
        Some(verdict) if !verdict.passed => Err(inarch_continual::Error::Gate(verdict.broken()).into()),
        _ => Ok(()),
    }
}

/// The key of a key file.
pub(crate) fn read_key(path: Option<&PathBuf>) -> Result<Option<Key>, CommandError> {
    Ok(path.map(|path| Key::read(path)).transpose()?)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn text_of(report: &UpdateReport, backbone: &str) -> String {
    let mut text = String::new();
    if let Some(verdict) = report.verdict.as_ref().filter(|verdict| !verdict.rules.is_empty()) {
        let mut rows = vec![["rule", "", "found"].map(String::from).to_vec()];
        for rule in &verdict.rules {
            let kept = if rule.passed { "kept" } else { "BROKEN" };
            rows.push(vec![rule.name.clone(), kept.into(), rule.found.clone()]);
        }
        text.push_str(&table(&rows));
    }
    if let Some(drift) = &report.drift {
        let says = if drift.drifted { "the new data differs from what is remembered" } else { "no drift" };
        text.push_str(&format!("drift: {says} (MMD p {:.3}, KS p {:.3})\n", drift.mmd.p_value, drift.ks.p_value));
    }
    if report.unread > 0 {
        text.push_str(&format!("images that could not be read and were left out: {}\n", report.unread));
    }
    let accuracy = |accuracy: Option<f64>| accuracy.map_or("–".into(), percent);
    text.push_str(&format!(
        "learned {} samples with {} ({} known already, {} held out); new classes: {}\n",
        report.learned,
        if report.strategy.is_empty() { "nothing" } else { &report.strategy },
        report.known,
        report.held_out,
        if report.new_classes.is_empty() { "none".into() } else { report.new_classes.join(", ") }
    ));
    text.push_str(&format!(
        "held-out accuracy: {} before, {} after; {:.1} s\n",
        accuracy(report.accuracy_before),
        accuracy(report.accuracy),
        report.seconds
    ));
    match (&report.version, &report.adapter) {
        (Some(version), Some(adapter)) => text.push_str(&format!(
            "published {version} ({} bytes)\nnext: inarch predict -b {} -a {} IMAGE\n",
            report.bytes,
            quoted(backbone),
            quoted(&adapter.display().to_string())
        )),
        _ => text.push_str("nothing was published\n"),
    }
    text
}
