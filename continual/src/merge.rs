//! Updates made apart, as one.
//!
//! Heads in closed form: statistics, memories and ledgers add up, so the result is that of one update with all the
//! data. What all of them started from counts once: it is subtracted from all but one. Other methods are merged by
//! weights, by a named merge of `inarch combine`, which is not what training on all the data would give; the loss on
//! held-out samples is shown, also against a version that was trained on all the data, where there is one.
//!
//! Memories are joined where they choose samples alike; what all started from was offered once. Held-out samples are
//! joined as well where some versions kept their images and others their latents alone: those judge adapters that leave
//! the image tower as it is. What one version held out and another learned judges no longer.

use std::path::PathBuf;

use inarch_core::backbone::Backbone;
use inarch_core::data::Dataset;
use inarch_core::image::OnBadImage;
use inarch_peft::{Artifact, Combination, CommonReading, MethodConfig};
use inarch_recipes::{Control, Session, Subset};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::learner::solve_head;
use crate::memory::{Content, Key, Ledger, Memory, Precision, Sample};
use crate::update::{Release, Version, VersionRecord, Versions, accuracy_on, check_in_force, write_version};

/// What is to be merged.
pub struct MergeRequest<'a> {
    /// The versions.
    pub parts: &'a [String],
    /// The version that all of them started from, where there is one.
    pub base: Option<&'a str>,
    /// A version that learned all the data in one place, to compare the result with.
    pub pooled: Option<&'a str>,
    /// Where the result goes.
    pub output: &'a str,
    /// How methods without statistics are merged.
    pub combination: &'a Combination,
    /// Key of encrypted memories.
    pub key: Option<&'a Key>,
    /// Now, in seconds since 1970.
    pub time: u64,
}

/// What a merge made.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    /// The new version.
    pub version: String,
    /// Folder of its adapter.
    pub adapter: PathBuf,
    /// Whether it equals one update with all the data.
    pub exact: bool,
    /// The method.
    pub method: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// Samples that were learned, of all parts.
    pub samples: usize,
    /// Accuracy of each part on all held-out samples of classes it knows.
    pub parts: Vec<Option<f64>>,
    /// Accuracy of the result.
    pub accuracy: Option<f64>,
    /// Accuracy of the version that learned all the data in one place, where one is given.
    pub pooled: Option<f64>,
    /// What merging lost against that version: its accuracy less that of the result.
    pub loss: Option<f64>,
}

/// One part with everything that is merged.
struct Part {
    version: Version,
    artifact: Artifact,
    memory: Option<Memory>,
    probe: Option<Memory>,
    ledger: Ledger,
}

/// Merges versions into a new one.
///
/// # Errors
/// Parts of other backbones or settings, or whose data was read otherwise; parts that share other samples than those of the base; a
/// pooled version that did not learn the same samples; [`Error::Refused`] where another version was published at the output
/// meanwhile.
pub fn merge(
    backbone: &Backbone,
    versions: &dyn Versions,
    request: &MergeRequest<'_>,
    control: Control<'_>,
) -> Result<MergeReport> {
    versions.takes_versions(request.output)?;
    let began = versions.exists(request.output).then(|| versions.open(request.output)).transpose()?;
    let open = |name: &String| -> Result<Part> {
        let version = versions.open(name)?;
        let (memory, probe) = (version.memory(request.key)?, version.probe(request.key)?);
        for memory in [&memory, &probe].into_iter().flatten() {
            memory.fingerprint().check_backbone(backbone, &format!("the memory of `{name}`"))?;
        }
        Ok(Part { artifact: version.artifact(backbone)?, memory, probe, ledger: version.ledger()?, version })
    };
    let parts: Vec<Part> = request.parts.iter().map(open).collect::<Result<_>>()?;
    let [first, rest @ ..] = &parts[..] else { return Err(Error::setting("merge", "at least one version is needed")) };
    for part in rest {
        check_methods(&first.artifact.manifest.method, &part.artifact.manifest.method)?;
    }
    let reading = CommonReading::of(parts.iter().map(|part| &part.artifact))?;
    let base = request.base.map(|base| versions.open(base)).transpose()?;
    let base_ledger = base.as_ref().map(Version::ledger).transpose()?.unwrap_or_default();
    let mut ledger = first.ledger.clone();
    for part in rest {
        // What is in two parts is what both started from: that and nothing else is taken out of one of them.
        let shared = ledger.common(&part.ledger);
        if !shared.is_of_same_samples(&base_ledger) {
            let (shared, started) = (shared.len(), base_ledger.len());
            let reason = match base {
                None => {
                    format!("the versions share {shared} samples; name the version that all started from with `--base`")
                }
                Some(_) => format!(
                    "the versions share {shared} samples, and these are not the {started} of the base; name the version \
                     that all started from with `--base`, with nothing forgotten since"
                ),
            };
            return Err(Error::setting("merge", reason));
        }
        ledger.merge(&part.ledger);
    }
    let pooled = request.pooled.map(|pooled| compared(versions, pooled, &ledger, backbone)).transpose()?;
    let mut classes = first.artifact.manifest.classes.clone();
    for class in rest.iter().flat_map(|part| &part.artifact.manifest.classes) {
        if !classes.contains(class) {
            classes.push(class.clone());
        }
    }
    let method = &first.artifact.manifest.method;
    let templates = first.artifact.templates()?;
    let exact = method.analytic().is_some();
    let mut statistics = None;
    let mut artifact = if exact {
        let missing = |version: &Version| {
            let reason = "it keeps no statistics; it was not made by `inarch update`";
            Error::setting(format!("version `{}`", version.name), reason)
        };
        let read = |version: &Version| version.statistics(request.key)?.ok_or_else(|| missing(version));
        let mut sum = read(&first.version)?;
        for part in rest {
            let mut own = read(&part.version)?;
            if let Some(base) = &base {
                own.subtract(&read(base)?)?;
            }
            sum.merge(&own)?;
        }
        let artifact = solve_head(backbone, method, &sum, &classes, (&templates, reading.clips.as_ref()))?;
        statistics = Some(sum);
        parts.iter().fold(artifact, |artifact, part| artifact.with_reading_of(&part.artifact))
    } else {
        let artifacts: Vec<Artifact> = parts.iter().map(|part| part.artifact.clone()).collect();
        request.combination.combine(&artifacts, backbone)?
    };
    artifact.manifest.group_by = reading.group_by;
    artifact.manifest.parents = parts.iter().map(|part| part.artifact.manifest.tensors.clone()).collect();
    let common = base.as_ref().map(|base| base.memory(request.key)).transpose()?.flatten();
    let held_out = base.as_ref().map(|base| base.probe(request.key)).transpose()?.flatten();
    let memory = joined("memory", parts.iter().map(|part| (&part.version, part.memory.clone())), common.as_ref())?;
    let mut probe = joined("probe", probes(&parts).into_iter(), held_out.as_ref())?;
    if let Some(probe) = &mut probe {
        let precision = memory.as_ref().map_or(Precision::F32, |memory| memory.config().precision);
        take_out_learned(probe, &ledger, precision);
    }

    let nothing = Dataset::unlabelled("held-out samples".into(), Vec::new());
    let session = Session::new(backbone, &nothing, Subset::All, OnBadImage::Fail, control)?;
    let measure = |artifact: &Artifact| match &probe {
        Some(probe) => accuracy_on(&session, artifact, probe),
        None => Ok(None),
    };
    let measured = parts.iter().map(|part| measure(&part.artifact)).collect::<Result<Vec<_>>>()?;
    let accuracy = measure(&artifact)?;
    let pooled = pooled.map(|pooled| measure(&pooled)).transpose()?.flatten();

    let record = VersionRecord {
        schema: 1,
        parent: base.map(|base| base.artifact(backbone)).transpose()?.map(|base| base.manifest.tensors),
        parent_name: request.base.map(String::from),
        created: request.time,
        made_by: "merge".into(),
        strategy: if exact { method.name().into() } else { format!("{:?}", request.combination.merge).to_lowercase() },
        verdict: None,
    };
    let _turn = versions.turn(request.output)?;
    check_in_force(versions, request.output, began.as_ref())?;
    let staging = versions.staging(request.output)?;
    let files = crate::update::Content {
        artifact: &artifact,
        record: &record,
        statistics: statistics.as_ref(),
        memory: memory.as_ref(),
        probe: probe.as_ref(),
        ledger: &ledger,
        // States of two learners are not joined; the next update begins its own.
        carried: &[],
    };
    write_version(&staging, &files, request.key)?;
    let version = versions.publish(request.output, &Release { folder: &staging, record: &record })?;
    Ok(MergeReport {
        adapter: versions.open(request.output)?.folder,
        version,
        exact,
        method: method.name().into(),
        classes: artifact.manifest.classes.clone(),
        samples: ledger.len(),
        parts: measured,
        accuracy,
        pooled,
        loss: pooled.zip(accuracy).map(|(pooled, accuracy)| pooled - accuracy),
    })
}

/// A version that learned the same samples as the parts together; another one would make the comparison say something
/// else.
fn compared(versions: &dyn Versions, name: &str, ledger: &Ledger, backbone: &Backbone) -> Result<Artifact> {
    let version = versions.open(name)?;
    let own = version.ledger()?;
    let shared = own.clone().merge(ledger);
    if shared != ledger.len() || shared != own.len() {
        let reason = format!(
            "it learned {} samples, the parts {}, and {shared} are in both; give a version that was updated with the same data",
            own.len(),
            ledger.len()
        );
        return Err(Error::setting(format!("pooled version `{name}`"), reason));
    }
    version.artifact(backbone)
}

/// The held-out samples of each part. Where those of one part are images, all keep images from now on, under its
/// budget.
fn probes(parts: &[Part]) -> Vec<(&Version, Option<Memory>)> {
    let configs = parts.iter().filter_map(|part| Some(part.probe.as_ref()?.config()));
    let budget = configs.filter(|config| config.content == Content::Images).map(|config| config.budget_bytes).max();
    let own = |part: &Part| match (part.probe.clone(), budget) {
        (Some(probe), Some(budget)) => Some(probe.keeping_images(budget)),
        (probe, _) => probe,
    };
    parts.iter().map(|part| (&part.version, own(part))).collect()
}

/// Takes out of the held-out samples of one part what another learned, under whatever name, as latents of a precision.
fn take_out_learned(probe: &mut Memory, ledger: &Ledger, precision: Precision) {
    let learned = ledger.contents();
    let is_learned = |sample: &&Sample| {
        let contents = Ledger::contents_of(&precision.rounded(&sample.latent), &sample.class);
        ledger.knows(&sample.id) || contents.iter().any(|content| learned.contains(content))
    };
    let ids: Vec<String> = probe.samples().filter(is_learned).map(|sample| sample.id.clone()).collect();
    probe.remove(&ids);
}

/// Whether versions can be merged: of one method, and where the result is to be exact, of one head.
fn check_methods(first: &MethodConfig, other: &MethodConfig) -> Result<()> {
    if first.name() != other.name() {
        return Err(inarch_core::Error::mismatch("method of the versions", first.name(), other.name()).into());
    }
    if first.analytic().is_some() && first != other {
        let [expected, found] = [first, other].map(|method| serde_json::to_string(method).unwrap_or_default());
        return Err(inarch_core::Error::mismatch("settings of the method of the versions", expected, found).into());
    }
    Ok(())
}

/// One memory of all, where there are any; what was offered to that of their `base` counts once.
fn joined<'v>(
    what: &str,
    memories: impl Iterator<Item = (&'v Version, Option<Memory>)>,
    base: Option<&Memory>,
) -> Result<Option<Memory>> {
    let mut joined: Option<(&Version, Memory)> = None;
    for (version, memory) in memories {
        let Some(memory) = memory else { continue };
        let Some((first, all)) = &mut joined else {
            joined = Some((version, memory));
            continue;
        };
        if all.config() != memory.config() {
            let [own, others] =
                [memory.config(), all.config()].map(|config| serde_json::to_string(config).unwrap_or_default());
            let reason = format!(
                "it keeps samples by {own}, that of `{}` by {others}, and a memory goes by the settings of its first \
                 version; begin one of the lines again with the settings of the other (`--init`, `--set {what}...`), or \
                 let both begin from one version",
                first.name
            );
            return Err(Error::setting(format!("{what} of `{}`", version.name), reason));
        }
        all.join(&memory, base)?;
    }
    Ok(joined.map(|(_, memory)| memory))
}
