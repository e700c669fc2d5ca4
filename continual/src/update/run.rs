//! An update: learn what has come, judge it, publish it or say no.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use inarch_core::backbone::{Backbone, Entry, Sites as _, Tower};
use inarch_core::data::{DataOptions, Dataset, Example};
use inarch_core::image::OnBadImage;
use inarch_core::{Digest, file};
use inarch_peft::{Artifact, MethodConfig, Statistics};
use inarch_recipes::{Control, ReportHead, Session, Subset};
use serde::Serialize;
use toml::{Table, Value};

use super::assess::{accuracy_on, milliseconds};
use super::comparison::{Comparison, check_probes};
use super::gate::{Evidence, Verdict};
use super::intake::{Intake, Taken};
use super::learn::{learn_analytic, learn_by_steps};
use super::left_out::left_out;
use super::recipe::UpdateRecipe;
use super::version::{
    Content as Files, Release, Version, VersionRecord, Versions, check_in_force, is_one_place, write_version,
};
use super::watch::Watch;
use super::work::{Work, inputs_of};
use crate::bench::fit_recipe;
use crate::drift::DriftVerdict;
use crate::error::{Error, Result};
use crate::learner::{Carried, LearnerConfig, empty_statistics};
use crate::memory::{Fingerprint, Key, Ledger, Memory, MemoryConfig, Precision, Sample};

/// What an update is asked to do.
pub struct UpdateRequest<'a> {
    /// The target to be updated.
    pub target: &'a str,
    /// Where the new version goes; the target itself when absent.
    pub output: Option<&'a str>,
    /// Method of a first version, where the target does not exist.
    pub init: Option<&'a str>,
    /// The new data: what is learned is its training and validation part, what is held out its test part.
    pub dataset: &'a Dataset,
    /// How it was read, which the new version remembers.
    pub options: &'a DataOptions,
    /// Further data sets whose test images the update is judged by.
    pub probes: &'a [Dataset],
    /// Data sets of other classes, on which zero-shot must not fall.
    pub zero_shot: &'a [Dataset],
    /// Settings.
    pub recipe: &'a UpdateRecipe,
    /// Key under which statistics, memory and probe are encrypted.
    pub key: Option<&'a Key>,
    /// Now, in seconds since 1970.
    pub time: u64,
    /// Do nothing unless the new data has drifted from what is remembered.
    pub if_drift: bool,
    /// File that carries the state of the drift tests from update to update, encrypted under the key if there is one.
    pub drift_state: Option<&'a Path>,
    /// What to do about an image that cannot be read.
    pub policy: OnBadImage,
}

/// What an update did.
#[derive(Debug, Clone, Serialize)]
pub struct UpdateReport {
    /// Versions, device, backbone, memory.
    #[serde(flatten)]
    pub head: ReportHead,
    /// The settings.
    pub recipe: UpdateRecipe,
    /// Name of the new data.
    pub data: String,
    /// The new version; `None` where the gate said no or nothing was to be done, and in the file among its own files.
    pub version: Option<String>,
    /// The new version's adapter, as other commands are told it.
    pub adapter: Option<PathBuf>,
    /// The version before.
    pub parent: Option<String>,
    /// The method.
    pub method: String,
    /// The strategy.
    pub strategy: String,
    /// Samples that were learned.
    pub learned: usize,
    /// Samples that had been learned before, or are held out to judge by, and were passed over.
    pub known: usize,
    /// Samples that were held out.
    pub held_out: usize,
    /// Images of the data, to learn from or to be held out, that could not be read.
    pub unread: usize,
    /// Classes that are new.
    pub new_classes: Vec<String>,
    /// Accuracy of the version before on what was held out, new samples included.
    pub accuracy_before: Option<f64>,
    /// Accuracy of the new one.
    pub accuracy: Option<f64>,
    /// What the gate said.
    pub verdict: Option<Verdict>,
    /// Whether and how the new data differs from what is remembered.
    pub drift: Option<DriftVerdict>,
    /// Samples that were too old and dropped.
    pub expired: usize,
    /// Bytes of the version, without this report.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
}

/// What is carried from version to version.
pub(super) struct Estate {
    pub(super) classes: Vec<String>,
    pub(super) method: MethodConfig,
    pub(super) statistics: Option<Statistics>,
    pub(super) memory: Memory,
    pub(super) probe: Memory,
    pub(super) ledger: Ledger,
}

/// Updates a target.
///
/// # Errors
/// [`Error::Stale`] for another backbone; faults of data, settings and training; [`Error::Refused`] where another version was
/// published meanwhile. A gate that says no is no error: the report then has no version.
pub fn update(
    backbone: &Backbone,
    versions: &dyn Versions,
    request: &UpdateRequest<'_>,
    control: Control<'_>,
) -> Result<UpdateReport> {
    let started = Instant::now();
    let UpdateRequest { recipe, dataset, key, time, .. } = *request;
    backbone.need_features("an update with rehearsal")?;
    let output = request.output.unwrap_or(request.target);
    versions.takes_versions(output)?;
    let parent = open_parent(versions, request)?;
    let old = parent.as_ref().map(|parent| parent.artifact(backbone)).transpose()?;
    old.iter().try_for_each(|old| check_probes(request.probes, &old.manifest.classes))?;
    let mut carried = carry(backbone, parent.as_ref(), old.as_ref(), request)?;
    // Before anything is dropped: a state belongs to what the version before remembers.
    let mut watch = Watch::begin(&carried.memory, request)?;
    let expired = carried.memory.expire(time) + carried.probe.expire(time);

    let session = Session::new(backbone, dataset, Subset::All, request.policy, control)?;
    let (keeps, judges) = (*carried.memory.config(), *carried.probe.config());
    if let Some(line) = left_out(recipe, &carried.method, [&keeps, &judges]) {
        session_note(&session, &line);
    }
    let intake = Intake { session: &session, dataset, time, named: keeps.precision };
    let learn: Vec<Example> = dataset.train.iter().chain(&dataset.val).cloned().collect();
    let Taken { positions: readable, mut samples, bad } = intake.taken(&learn, Precision::F32, keeps.content)?;
    intake.name_unread(&bad);
    // What is held out to judge by stays out, however the data is split or called this time, and whatever it is rounded to there.
    let held_out: HashSet<Digest> = carried.probe.samples().map(|sample| Digest::of_values(&sample.latent)).collect();
    let is_held_out: Vec<bool> = samples
        .iter()
        .map(|sample| held_out.contains(&Digest::of_values(&judges.precision.rounded(&sample.latent))))
        .collect();
    samples.iter_mut().for_each(|sample| sample.latent = keeps.precision.rounded(&sample.latent));
    // And what was learned judges nothing.
    let learned = carried.ledger.contents();
    let drift = watch.observe(&samples)?;

    let mut report = UpdateReport {
        head: ReportHead::new(backbone),
        recipe: recipe.clone(),
        data: dataset.name.clone(),
        version: None,
        adapter: None,
        parent: parent.as_ref().map(|parent| parent.name.clone()),
        method: carried.method.name().into(),
        strategy: String::new(),
        learned: 0,
        known: 0,
        held_out: 0,
        unread: bad.len(),
        new_classes: Vec::new(),
        accuracy_before: None,
        accuracy: None,
        verdict: None,
        drift,
        expired,
        bytes: 0,
        seconds: 0.0,
    };
    if request.if_drift && report.drift.as_ref().is_some_and(|drift| !drift.drifted) {
        watch.passed_over()?;
        return report.keep(started, versions, output);
    }
    let (mut positions, mut names) = (Vec::new(), HashSet::new());
    let mut fresh: Vec<Sample> = Vec::new();
    for ((position, sample), is_held_out) in readable.into_iter().zip(samples).zip(is_held_out) {
        let is_known = carried.ledger.knows(&sample.id) || is_held_out;
        // Twice in one folder is once as well.
        if is_known || !names.insert(sample.id.clone()) {
            report.known += 1;
        } else {
            positions.push(position);
            fresh.push(sample);
        }
    }
    if fresh.is_empty() {
        let reason = match report.known {
            0 => "it has nothing to learn from that can be read; nothing is to be done".to_string(),
            known => format!("all {known} samples have been learned before or are held out; nothing is to be done"),
        };
        return Err(Error::setting(format!("data set `{}`", dataset.name), reason));
    }
    report.learned = fresh.len();
    // Of a class whose images cannot be read, or are held out, nothing is known.
    let is_new =
        |class: &&String| !carried.classes.contains(class) && fresh.iter().any(|sample| sample.class == **class);
    report.new_classes = dataset.classes.iter().filter(is_new).cloned().collect();
    carried.classes.extend(report.new_classes.clone());

    // Samples that are encrypted elsewhere must not lie about unencrypted, and a closed form has nothing to go on with.
    let keeps = key.is_none() && carried.method.analytic().is_none();
    let place = keeps.then(|| versions.work(output)).transpose()?;
    let place = place.map(|place| (place, inputs_of(backbone, old.as_ref(), request)));
    let work = Work::open(place.as_ref().map(|(place, inputs)| (place.as_path(), inputs)))?;
    let artifact = if carried.method.analytic().is_some() {
        report.strategy = carried.method.name().into();
        learn_analytic(backbone, &mut carried, old.as_ref(), fresh, (&request.recipe.fit, dataset.clips.as_ref()))?
    } else {
        let train: Vec<Example> = positions.iter().map(|at| learn[*at].clone()).collect();
        let before = (parent.as_ref(), old.as_ref());
        let (artifact, strategy) = learn_by_steps(&session, &mut carried, before, (&train, &fresh), request, &work)?;
        report.strategy = strategy;
        artifact
    };
    if artifact.adapter.entry(Tower::Image) < Entry::Feature {
        // A latent says nothing about a tower that has changed.
        carried.probe = carried.probe.keeping_images(carried.memory.config().budget_bytes);
    }
    let MemoryConfig { precision, content, .. } = *carried.probe.config();
    let Taken { samples: mut held_out, bad, .. } = intake.taken(&dataset.test, Precision::F32, content)?;
    intake.name_unread(&bad);
    report.unread += bad.len();
    held_out.retain(|sample| {
        let contents = Ledger::contents_of(&intake.named.rounded(&sample.latent), &sample.class);
        !carried.ledger.knows(&sample.id) && !contents.iter().any(|content| learned.contains(content))
    });
    report.held_out = held_out.len();
    carried.probe.offer(held_out)?;

    let samples: Vec<&Sample> = carried.probe.samples().collect();
    let mut evidence = Evidence { bytes: adapter_bytes(&artifact), ..Evidence::default() };
    if let Some(old) = &old {
        evidence.known.clone_from(&old.manifest.classes);
        let mut comparison = Comparison::new(old, &artifact, precision);
        comparison.on_samples(&session, &samples, &mut evidence)?;
        comparison.on_others(backbone, request, control, &mut evidence)?;
        if evidence.answers.is_empty() {
            session_note(
                &session,
                "no held-out sample of a class that was known judges this update; give some with `--probe`",
            );
        }
        report.accuracy_before = accuracy_on(&session, old, &carried.probe)?;
    }
    report.accuracy = accuracy_on(&session, &artifact, &carried.probe)?;
    if recipe.gate.most_ms.is_some() {
        // Any sample tells the time, also where none is held out; the first answers, which take longer, have been given.
        let timed: Vec<&Sample> = samples.iter().copied().chain(carried.memory.samples()).collect();
        evidence.ms = milliseconds(&session, &artifact, &timed)?;
    }
    let verdict = recipe.gate.judge(&evidence);
    report.verdict = Some(verdict.clone());
    if !verdict.passed {
        return report.keep(started, versions, output);
    }

    let _turn = versions.turn(output)?;
    if is_one_place(output, request.target) {
        check_in_force(versions, request.target, parent.as_ref())?;
    }
    let staging = versions.staging(output)?;
    let mut artifact = artifact;
    if let Some(accuracy) = report.accuracy {
        artifact.manifest.metrics.insert("probe_accuracy".into(), accuracy);
    }
    artifact.manifest.data = Some(dataset.digest());
    let DataOptions { window, group_by, remembered_groups, .. } = request.options;
    artifact.manifest.window = *window;
    artifact.manifest.group_by = group_by.clone().or_else(|| remembered_groups.clone());
    artifact.manifest.parents = old.iter().map(|old| old.manifest.tensors.clone()).collect();
    let record = VersionRecord {
        schema: 1,
        parent: old.as_ref().map(|old| old.manifest.tensors.clone()),
        parent_name: report.parent.clone(),
        created: time,
        made_by: if parent.is_some() { "update".into() } else { "init".into() },
        strategy: report.strategy.clone(),
        verdict: Some(verdict),
    };
    let Estate { statistics, memory, probe, ledger, .. } = &carried;
    let files = Files {
        artifact: &artifact,
        record: &record,
        statistics: statistics.as_ref(),
        memory: Some(memory),
        probe: Some(probe),
        ledger,
        carried: &Carried::files(work.own())?,
    };
    write_version(&staging, &files, key)?;
    report.bytes = folder_bytes(&staging)?;
    report.write_into(&staging, started)?;
    let version = versions.publish(output, &Release { folder: &staging, record: &record })?;
    report.adapter = Some(PathBuf::from(&version));
    report.version = Some(version);
    if let Err(fault) = watch.published(memory) {
        session_note(
            &session,
            &format!("warning: the version is published, but no drift state is kept for it: {fault}"),
        );
    }
    report.keep(started, versions, output)
}

fn open_parent(versions: &dyn Versions, request: &UpdateRequest<'_>) -> Result<Option<Version>> {
    match (versions.exists(request.target), request.init) {
        (true, None) => Ok(Some(versions.open(request.target)?)),
        (false, Some(_)) => Ok(None),
        (true, Some(_)) => {
            let reason = "it exists already; leave `--init` out to update it, or name another one";
            Err(Error::setting(format!("target `{}`", request.target), reason))
        }
        (false, None) => versions.open(request.target).map(Some),
    }
}

/// What the version before hands on, or the beginning of a first one.
fn carry(
    backbone: &Backbone,
    parent: Option<&Version>,
    old: Option<&Artifact>,
    request: &UpdateRequest<'_>,
) -> Result<Estate> {
    let recipe = request.recipe;
    let fingerprint = Fingerprint::of(backbone, request.dataset.window);
    let dim = backbone.spec().dim;
    let (Some(parent), Some(old)) = (parent, old) else {
        let mut table: Table = recipe.method.clone();
        table.insert("name".into(), Value::String(request.init.unwrap_or_default().into()));
        let method = match LearnerConfig::read(&table) {
            Ok(LearnerConfig::Analytic(method)) => method,
            _ => fit_recipe(&Table::from_iter([("method".to_string(), Value::Table(table))]))?.method,
        };
        let statistics = if method.analytic().is_some() { Some(empty_statistics(&method, dim)?) } else { None };
        return Ok(Estate {
            classes: Vec::new(),
            method,
            statistics,
            memory: Memory::new(recipe.memory, fingerprint.clone())?,
            probe: Memory::new(recipe.probe, fingerprint)?,
            ledger: Ledger::default(),
        });
    };
    let trained = Carried::of(&parent.folder)?.map(|carried| carried.method);
    let method = trained.unwrap_or_else(|| old.manifest.method.clone());
    let statistics = parent.statistics(request.key)?;
    if method.analytic().is_some() && statistics.is_none() {
        let reason = format!(
            "it has no statistics, so nothing can be added to it: it was fitted without keeping them, or published \
             `--for-devices`; update the version it came from, or start with `--init {}` on its data",
            method.name()
        );
        return Err(Error::setting(format!("target `{}`", request.target), reason));
    }
    let open = |memory: Option<Memory>, config: MemoryConfig, what: &str| -> Result<Memory> {
        match memory {
            Some(memory) => {
                memory.fingerprint().check(&fingerprint, &format!("the {what} of `{}`", parent.name))?;
                Ok(memory)
            }
            None => Memory::new(config, fingerprint.clone()),
        }
    };
    Ok(Estate {
        classes: old.manifest.classes.clone(),
        method,
        statistics,
        memory: open(parent.memory(request.key)?, recipe.memory, "memory")?,
        probe: open(parent.probe(request.key)?, recipe.probe, "probe")?,
        ledger: parent.ledger()?,
    })
}

pub(super) fn session_note(session: &Session<'_>, line: &str) {
    session.control().progress.say(line);
}

fn adapter_bytes(artifact: &Artifact) -> u64 {
    artifact.adapter.parameters().values().map(|tensor| 4 * tensor.data.len() as u64).sum()
}

pub(super) fn folder_bytes(folder: &Path) -> Result<u64> {
    let sizes = file::list(folder)?.into_iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
    Ok(sizes.sum())
}

/// The digest of an adapter's tensors, for records.
pub(super) fn tensors(artifact: &Artifact) -> Digest {
    artifact.manifest.tensors.clone()
}
