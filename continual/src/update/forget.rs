//! Taking samples out of a version: out of its memory, and out of what it has learned.
//!
//! An analytic head is the head of the samples in its statistics, so a sample is subtracted and the head solved again: exactly
//! the head that would be without it, up to rounding in double precision. That needs the latent that went in: from the memory,
//! or from the image, presented again. A method that was trained by steps cannot be undone; the way out is to train again from
//! the last version before the sample.

use std::collections::BTreeMap;

use inarch_core::backbone::Backbone;
use inarch_core::data::{Dataset, Example};
use inarch_core::image::OnBadImage;
use inarch_core::{Digest, file};
use inarch_peft::{Rows, Statistics};
use inarch_recipes::{Control, Session, Subset};
use serde::Serialize;

use super::intake::{Intake, Taken};
use super::run::tensors;
use super::version::{Content as Files, Release, Version, VersionRecord, Versions, check_in_force, write_version};
use crate::error::{Error, Result};
use crate::learner::{Carried, empty_statistics, solve_head};
use crate::memory::{Content, Fingerprint, Key, Ledger, Memory, Precision, Sample};

/// The record of a removal, beside the version that it made.
const FORGOTTEN: &str = "forgotten.json";

/// What is to be forgotten.
pub struct ForgetRequest<'a> {
    /// The target.
    pub target: &'a str,
    /// Ids, in full or without the hash behind `#`.
    pub ids: &'a [String],
    /// The samples themselves, where the memory does not hold them any more.
    pub presented: Option<&'a Dataset>,
    /// What to do about an image of these that cannot be read.
    pub policy: OnBadImage,
    /// Key of encrypted memories.
    pub key: Option<&'a Key>,
    /// Now, in seconds since 1970.
    pub time: u64,
    /// Also removes older versions that hold a trace of the samples, of which the version in force may know nothing any more.
    pub purge: bool,
    /// Takes the samples out of the memories and leaves the adapter as it is.
    pub memory_only: bool,
}

/// The record of a removal, beside the version that it made: no names, only hashes.
#[derive(Debug, Clone, Serialize)]
pub struct ForgetReport {
    /// The version that no longer knows the samples. `None` in a record inside a version that never changes, as in a registry:
    /// there it is the version that holds the record.
    pub version: Option<String>,
    /// The version before.
    pub parent: String,
    /// Hashes of the ids.
    pub forgotten: Vec<String>,
    /// Whether what the adapter had learned from them is gone as well.
    pub influence_removed: bool,
    /// How many of them the memory held.
    pub from_memory: usize,
    /// How many of them were held out.
    pub from_probe: usize,
    /// How many of them the memory did not hold any more, so that their images were presented.
    pub presented: usize,
    /// Samples that the head was solved from, before and after.
    pub samples: (u64, u64),
    /// Identity of the adapter before and after.
    pub adapter: (Digest, Digest),
    /// Identity of the statistics before and after.
    pub statistics: Option<(Digest, Digest)>,
    /// Greatest relative difference to statistics summed anew over the memory, where that holds every sample.
    pub residual: Option<f64>,
    /// Older versions that still know the samples.
    pub still_in: Vec<String>,
    /// Older versions that were removed.
    pub purged: Vec<String>,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Presented images that could not be read. No record has them: they are names.
    #[serde(skip)]
    pub skipped: Vec<String>,
}

/// Takes samples out and publishes the version without them.
///
/// # Errors
/// [`Error::CannotForget`] with the way out, where a sample cannot be taken out exactly; an id that nothing is known of; a purge
/// where versions never change. Nothing is changed then.
pub fn forget(
    backbone: &Backbone,
    versions: &dyn Versions,
    request: &ForgetRequest<'_>,
    control: Control<'_>,
) -> Result<ForgetReport> {
    let ForgetRequest { target, key, time, .. } = *request;
    let parent = versions.open(target)?;
    versions.takes_versions(target)?;
    let changeable = match versions.changeable(target) {
        Err(error) if request.purge => return Err(error),
        changeable => changeable.is_ok(),
    };
    let old = parent.artifact(backbone)?;
    let method = old.manifest.method.clone();
    // What is presented is subtracted, so it has to be seen as it was learned.
    let window = request.presented.map_or(old.manifest.window, |dataset| dataset.window);
    let fingerprint = Fingerprint::of(backbone, window);
    let (mut memory, mut probe, mut ledger) = (parent.memory(key)?, parent.probe(key)?, parent.ledger()?);
    for memory in [&memory, &probe].into_iter().flatten() {
        memory.fingerprint().check(&fingerprint, &format!("the memory of `{}`", parent.name))?;
    }
    let precision = memory.as_ref().map_or(Precision::F32, |memory| memory.config().precision);
    let (presented, skipped) = presented(backbone, request, precision, control)?;

    let mut ids = Vec::new();
    for wanted in request.ids {
        let mut found = resolve(wanted, [memory.as_ref(), probe.as_ref()], &presented, &ledger);
        if found.is_empty() && request.purge {
            found = known_before(versions, request, wanted)?;
        }
        if found.is_empty() {
            return Err(unknown(wanted, [memory.as_ref(), probe.as_ref()]));
        }
        ids.extend(found);
    }
    ids.sort();
    ids.dedup();

    let learned: Vec<&String> = ids.iter().filter(|id| !request.memory_only && ledger.knows(id)).collect();
    let influence_removed = !ids.iter().any(|id| request.memory_only && ledger.knows(id));
    let mut statistics = parent.statistics(key)?;
    if statistics.is_none() && !learned.is_empty() {
        return Err(Error::CannotForget { reason: way_out(versions, request, &method, &learned)? });
    }
    let before = statistics.as_ref().map(Statistics::encode).map(|bytes| Digest::of(&bytes));
    let count = |statistics: &Option<Statistics>| statistics.as_ref().map_or(0, Statistics::samples);
    let samples_before = count(&statistics);

    let mut from_presented = 0;
    let mut gone: Vec<Sample> = Vec::new();
    for id in &learned {
        let sample = match (memory.as_ref().and_then(|memory| memory.get(id)), presented.get(*id)) {
            (Some(sample), _) => sample,
            (None, Some(sample)) => {
                from_presented += 1;
                sample
            }
            (None, None) => {
                let reason = format!(
                    "`{id}` was learned, but the memory does not hold it any more, so there is nothing to subtract; present its \
                     image with `-d DATA`, under the same name, or start anew with `update --init` on the data that may stay"
                );
                return Err(Error::CannotForget { reason });
            }
        };
        if !ledger.has(sample) {
            let reason = format!(
                "what is presented as `{id}` is not the sample that was learned: its latent or its class is another"
            );
            return Err(Error::CannotForget { reason });
        }
        gone.push(sample.clone());
    }
    if let Some(statistics) = &mut statistics {
        let (names, classes): (Vec<String>, Vec<String>) =
            gone.iter().map(|sample| (sample.id.clone(), sample.class.clone())).unzip();
        let features: Vec<f32> = gone.iter().flat_map(|sample| sample.latent.iter().copied()).collect();
        statistics.remove(&Rows { ids: &names, classes: &classes, features: &features })?;
    }
    if let Some(memory) = &mut memory {
        // It was offered those as well that it did not keep.
        let dropped: Vec<&Sample> = gone.iter().filter(|sample| memory.get(&sample.id).is_none()).collect();
        dropped.into_iter().for_each(|sample| memory.uncount_dropped(&sample.class));
    }
    let from_memory = memory.as_mut().map_or(0, |memory| memory.remove(&ids).len());
    let from_probe = probe.as_mut().map_or(0, |probe| probe.remove(&ids).len());
    learned.iter().for_each(|id| ledger.strike(id));

    let artifact = match &statistics {
        Some(statistics) if !learned.is_empty() => {
            // A class that has lost its last sample is not known any more.
            let left = statistics.counts();
            let classes: Vec<String> = old
                .manifest
                .classes
                .iter()
                .filter(|class| left.iter().any(|(known, _)| known == *class))
                .cloned()
                .collect();
            if classes.is_empty() {
                let reason = "nothing would be left; remove the version instead".to_string();
                return Err(Error::CannotForget { reason });
            }
            let templates = old.templates()?;
            let read = (&templates[..], old.manifest.clips.as_ref());
            let artifact = solve_head(backbone, &method, statistics, &classes, read)?;
            let mut artifact = artifact.with_reading_of(&old);
            artifact.manifest.parents = vec![old.manifest.tensors.clone()];
            artifact
        }
        _ => old.clone(),
    };
    let residual = residual(&method, backbone, statistics.as_ref(), memory.as_ref(), &ledger)?;

    let hashes: Vec<String> = ids.iter().map(|id| Ledger::name(id)).collect();
    let _turn = versions.turn(target)?;
    check_in_force(versions, target, Some(&parent))?;
    let staging = versions.staging(target)?;
    let record = VersionRecord {
        schema: 1,
        parent: Some(old.manifest.tensors.clone()),
        parent_name: Some(parent.name.clone()),
        created: time,
        made_by: "forget".into(),
        strategy: method.name().into(),
        verdict: None,
    };
    let files = Files {
        artifact: &artifact,
        record: &record,
        statistics: statistics.as_ref(),
        memory: memory.as_ref(),
        probe: probe.as_ref(),
        ledger: &ledger,
        carried: &Carried::files(&parent.folder)?,
    };
    write_version(&staging, &files, key)?;
    let after = statistics.as_ref().map(Statistics::encode).map(|bytes| Digest::of(&bytes));
    let knowing = older(versions, request, &ids)?;
    let mut report = ForgetReport {
        version: None,
        parent: parent.name.clone(),
        forgotten: hashes,
        influence_removed,
        from_memory,
        from_probe,
        presented: from_presented,
        samples: (samples_before, count(&statistics)),
        adapter: (tensors(&old), tensors(&artifact)),
        statistics: before.zip(after),
        residual,
        still_in: knowing.iter().map(|version| version.name.clone()).collect(),
        purged: Vec::new(),
        time,
        skipped,
    };
    // A version that never changes has its record from the start.
    file::write_json(&staging.join(FORGOTTEN), &report)?;
    report.version = Some(versions.publish(target, &Release { folder: &staging, record: &record })?);
    let purged = if request.purge { purge(versions, target, &knowing, &mut report) } else { Ok(()) };
    if changeable {
        file::write_json(&versions.open(target)?.folder.join(FORGOTTEN), &report)?;
    }
    purged?;
    Ok(report)
}

/// Versions that know the samples, oldest first.
fn older(versions: &dyn Versions, request: &ForgetRequest<'_>, ids: &[String]) -> Result<Vec<Version>> {
    let mut knowing = Vec::new();
    for version in versions.all(request.target)? {
        let ledger = version.ledger()?;
        // A memory under a key that is not given may hold anything.
        let holds = |memory: Result<Option<Memory>>| match memory {
            Ok(memory) => memory.is_some_and(|memory| ids.iter().any(|id| memory.get(id).is_some())),
            Err(_) => true,
        };
        let knows = ids.iter().any(|id| ledger.knows(id));
        if knows || holds(version.memory(request.key)) || holds(version.probe(request.key)) {
            knowing.push(version);
        }
    }
    Ok(knowing)
}

/// Removes versions; the report tells how far it came.
fn purge(versions: &dyn Versions, target: &str, knowing: &[Version], report: &mut ForgetReport) -> Result<()> {
    for version in knowing {
        versions.withdraw(target, version)?;
        report.still_in.retain(|name| *name != version.name);
        report.purged.push(version.name.clone());
    }
    Ok(())
}

/// The samples of a presented data set, by id, and the names of its images that cannot be read.
fn presented(
    backbone: &Backbone,
    request: &ForgetRequest<'_>,
    precision: Precision,
    control: Control<'_>,
) -> Result<(BTreeMap<String, Sample>, Vec<String>)> {
    let Some(dataset) = request.presented else { return Ok(Default::default()) };
    let session = Session::new(backbone, dataset, Subset::All, request.policy, control)?;
    let intake = Intake { session: &session, dataset, time: request.time, named: precision };
    let all: Vec<Example> = dataset.examples().map(|(_, example)| example.clone()).collect();
    let Taken { samples, bad, .. } = intake.taken(&all, precision, Content::Latents)?;
    let skipped = bad.into_iter().map(|bad| bad.path.display().to_string()).collect();
    Ok((samples.into_iter().map(|sample| (sample.id.clone(), sample)).collect(), skipped))
}

/// The full ids that a name stands for.
fn resolve(
    wanted: &str,
    memories: [Option<&Memory>; 2],
    presented: &BTreeMap<String, Sample>,
    ledger: &Ledger,
) -> Vec<String> {
    if ledger.knows(wanted) {
        return vec![wanted.to_string()];
    }
    let meant = |id: &str| id == wanted || id.rsplit_once('#').is_some_and(|(name, _)| name == wanted);
    let held = memories.into_iter().flatten().flat_map(Memory::samples).map(|sample| sample.id.as_str());
    let shown = presented.keys().map(String::as_str).filter(|id| ledger.knows(id));
    held.chain(shown).filter(|id| meant(id)).map(String::from).collect()
}

/// The full ids that a name stood for in any version: what was forgotten before is purged from those that still know it.
fn known_before(versions: &dyn Versions, request: &ForgetRequest<'_>, wanted: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for version in versions.all(request.target)? {
        // A memory under a key that is not given names nobody.
        let (memory, probe) = (version.memory(request.key).ok().flatten(), version.probe(request.key).ok().flatten());
        found.extend(resolve(wanted, [memory.as_ref(), probe.as_ref()], &BTreeMap::new(), &version.ledger()?));
    }
    Ok(found)
}

fn unknown(wanted: &str, memories: [Option<&Memory>; 2]) -> Error {
    let held = memories.into_iter().flatten().flat_map(Memory::samples);
    let candidates: Vec<String> = held.map(|sample| sample.id.clone()).collect();
    inarch_core::Error::Unknown { kind: "sample", name: wanted.into(), candidates }.into()
}

/// What to do where a sample cannot be subtracted.
fn way_out(
    versions: &dyn Versions,
    request: &ForgetRequest<'_>,
    method: &inarch_peft::MethodConfig,
    learned: &[&String],
) -> Result<String> {
    let mut clean = None;
    for version in versions.all(request.target)? {
        let ledger = version.ledger()?;
        if learned.iter().any(|id| ledger.knows(id)) {
            break;
        }
        clean = Some(version.name);
    }
    let way = match clean {
        Some(clean) => format!("`{clean}` is the last version without it: `inarch update {clean} -o NEW -d DATA` with the data that may stay"),
        None => "no version is without it: start anew with `inarch update NEW --init METHOD -d DATA` on the data that may stay".into(),
    };
    Ok(format!(
        "`{}` was learned by steps of `{}`, which cannot be undone exactly. The way out is to train again from a clean version: {way}. \
         `--memory-only` takes it out of the memory and leaves the adapter as it is",
        learned[0],
        method.name()
    ))
}

/// The distance to statistics that are summed anew, where the memory holds every sample that was learned.
fn residual(
    method: &inarch_peft::MethodConfig,
    backbone: &Backbone,
    statistics: Option<&Statistics>,
    memory: Option<&Memory>,
    ledger: &Ledger,
) -> Result<Option<f64>> {
    let (Some(statistics), Some(memory)) = (statistics, memory) else { return Ok(None) };
    if memory.len() as u64 != statistics.samples() || memory.samples().any(|sample| !ledger.knows(&sample.id)) {
        return Ok(None);
    }
    let mut anew = empty_statistics(method, backbone.spec().dim)?;
    let (ids, classes): (Vec<String>, Vec<String>) =
        memory.samples().map(|sample| (sample.id.clone(), sample.class.clone())).unzip();
    let features: Vec<f32> = memory.samples().flat_map(|sample| sample.latent.iter().copied()).collect();
    anew.add(&Rows { ids: &ids, classes: &classes, features: &features })?;
    Ok(Some(anew.distance(statistics)))
}
