//! Merges of versions: equal to one version of all data, and where memories are kept otherwise joined if that can be, or refused
//! with the way out.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use inarch_continual::{Content, Error, FolderVersions, MergeReport, MergeRequest, Version, Versions as _, merge};
use inarch_core::backbone::Backbone;
use inarch_core::data::Dataset;
use inarch_peft::Combination;
use inarch_recipes::{Control, Silent};

use super::ageing::{LATER, TEST, TRAIN, When, batch, updated};
use super::strategies::copy;
use crate::support::{plain, tiny};

/// Settings of the probe of versions that judge by images; those before had latents alone, under the same seed.
const IMAGES: [&str; 2] = ["probe.content=\"images\"", "probe.budget_bytes=524288"];

/// A first version of data of its own.
fn begun(folder: &Path, name: &str, settings: &[&str]) -> String {
    let target = folder.join(name);
    let report = updated(&target, &batch(name, 0.0), &When { init: Some("simple-cil"), settings, ..LATER });
    assert!(report.version.is_some(), "{name}");
    target.display().to_string()
}

fn merged(parts: [&str; 2], output: &Path) -> inarch_continual::Result<MergeReport> {
    merged_from(None, parts, output)
}

fn merged_from(base: Option<&str>, parts: [&str; 2], output: &Path) -> inarch_continual::Result<MergeReport> {
    merged_on(tiny(), base, parts, output)
}

fn merged_on(
    backbone: &Backbone,
    base: Option<&str>,
    parts: [&str; 2],
    output: &Path,
) -> inarch_continual::Result<MergeReport> {
    let stop = AtomicBool::new(false);
    let (parts, output) = (parts.map(String::from), output.display().to_string());
    let request = MergeRequest {
        parts: &parts,
        base,
        pooled: None,
        output: &output,
        combination: &Combination::default(),
        key: None,
        time: 0,
    };
    merge(backbone, &FolderVersions, &request, Control::new(&Silent, &stop))
}

/// A line that goes on from a copy of another one.
fn gone_on(folder: &Path, from: &str, name: &str, batches: &[&str]) -> String {
    let target = folder.join(name);
    copy(Path::new(from), &target);
    for one in batches {
        assert!(updated(&target, &batch(one, 0.0), &LATER).version.is_some(), "{name} {one}");
    }
    target.display().to_string()
}

/// A first version of `rail`.
fn first(folder: &Path, name: &str, settings: &[&str]) -> String {
    let target = folder.join(name);
    let settings = [&["method.projections=60"], settings].concat();
    updated(&target, &batch(name, 0.0), &When { init: Some("rail"), settings: &settings, ..LATER });
    target.display().to_string()
}

#[test]
fn two_sites_that_began_with_one_version_merge_to_the_version_of_all_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // Room for fewer samples than the first version learns.
    let base = first(folder, "base", &["memory.sampler=\"reservoir\"", "memory.budget_bytes=9500"]);
    let [north, south] =
        [("line-north", "nord"), ("line-south", "sued")].map(|(name, one)| gone_on(folder, &base, name, &[one]));
    let pooled = gone_on(folder, &base, "line-pooled", &["nord", "sued"]);
    let output = folder.join("merged");
    let report = merged_from(Some(&base), [&north, &south], &output).expect("they are merged");
    assert_eq!((report.exact, report.samples), (true, 3 * 4 * TRAIN));
    let open = |name: &str| FolderVersions.open(name).expect("a version");
    let [base, pooled, merged] = [base, pooled, output.display().to_string()].map(|name| open(&name));
    let statistics = |version: &Version| version.statistics(None).expect("reads").expect("statistics");
    let apart = statistics(&merged).distance(&statistics(&pooled));
    assert!(apart < 1e-13, "{apart}");
    let memory = |version: &Version| version.memory(None).expect("reads").expect("a memory");
    assert!(memory(&base).len() < 4 * TRAIN, "the base has dropped some");
    assert!(memory(&merged) == memory(&pooled), "{:?} {:?}", memory(&merged).offered(), memory(&pooled).offered());
    let probe = |version: &Version| version.probe(None).expect("reads").expect("a probe");
    assert!(probe(&merged) == probe(&pooled) && probe(&merged).len() == 3 * 4 * TEST);
}

#[test]
fn a_base_that_the_versions_did_not_begin_with_and_heads_of_other_settings_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let [base, other] = ["base", "other"].map(|name| first(folder, name, &[]));
    let [north, south] =
        [("line-north", "nord"), ("line-south", "sued")].map(|(name, one)| gone_on(folder, &base, name, &[one]));
    let output = folder.join("merged");
    let refused =
        |base: Option<&str>, parts: [&str; 2]| merged_from(base, parts, &output).expect_err("refused").to_string();
    let shared = 4 * TRAIN;
    let none = refused(None, [&north, &south]);
    assert!(none.contains(&format!("share {shared} samples")) && none.contains("--base"), "{none}");
    // As many samples, and others.
    let wrong = refused(Some(&other), [&north, &south]);
    assert!(wrong.contains(&format!("not the {shared} of the base")), "{wrong}");
    // A base for versions that share nothing would be taken out of one that does not hold it.
    let apart = refused(Some(&base), [&base, &other]);
    assert!(apart.contains("share 0 samples"), "{apart}");
    let sharp = first(folder, "sharp", &["method.lambda=0.5"]);
    let settings = refused(None, [&base, &sharp]);
    assert!(settings.contains("settings of the method") && settings.contains("0.5"), "{settings}");
    assert!(!output.exists());
}

#[test]
fn latents_of_images_that_were_prepared_otherwise_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = ["one", "two"].map(|name| begun(folder.path(), name, &[]));
    // The same weights, and another mean taken from every pixel.
    let mut preprocess = tiny().preprocess().clone();
    preprocess.mean = [0.5; 3];
    let (spec, tensors, tokenizer) = (tiny().spec().clone(), tiny().state_dict(), tiny().tokenizer().clone());
    let other = Backbone::new("other", spec, tensors, tokenizer, preprocess, Path::new("other"), &plain());
    let other = other.expect("the same shapes");
    assert_eq!(other.digest(), tiny().digest());
    let output = folder.path().join("merged");
    let error = merged_on(&other, None, [&one, &two], &output).expect_err("latents of other images");
    assert!(matches!(error, Error::Stale { .. }) && error.to_string().contains("preparation"), "{error}");
    assert!(merged([&one, &two], &output).is_ok());
}

#[test]
fn held_out_samples_are_joined_whether_images_were_kept_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new] = [("old", &[][..]), ("new", &IMAGES[..])].map(|(name, set)| begun(folder.path(), name, set));
    let content = |name: &str| {
        let version = FolderVersions.open(name).expect("a version");
        let probe = version.probe(None).expect("reads").expect("a probe");
        (probe.config().content, probe.config().budget_bytes, probe.len())
    };
    assert_eq!(content(&old), (Content::Latents, 256 << 10, 4 * TEST));
    assert_eq!(content(&new), (Content::Images, 512 << 10, 4 * TEST));
    // Whichever comes first.
    for (at, parts) in [[old.as_str(), new.as_str()], [new.as_str(), old.as_str()]].into_iter().enumerate() {
        let output = folder.path().join(format!("merged-{at}"));
        let report = merged(parts, &output).expect("they are joined");
        assert_eq!((report.exact, report.samples), (true, 2 * 4 * TRAIN));
        // These judge, whatever was kept of them: the method leaves the image tower alone.
        assert!(report.accuracy > Some(0.5), "{report:?}");
        assert_eq!(content(&output.display().to_string()), (Content::Images, 512 << 10, 2 * 4 * TEST));
    }
}

#[test]
fn what_one_version_held_out_and_another_learned_judges_no_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = begun(folder.path(), "one", &[]);
    let own = batch("one", 0.0);
    let train: Vec<_> = own.test.iter().step_by(2).cloned().collect();
    let other = Dataset { name: "two".into(), train, test: Vec::new(), ..own };
    let two = folder.path().join("two");
    let report = updated(&two, &other, &When { init: Some("simple-cil"), ..LATER });
    assert_eq!((report.learned, report.held_out), (2 * TEST, 0));
    let output = folder.path().join("merged");
    merged([&one, &two.display().to_string()], &output).expect("they are merged");
    let version = FolderVersions.open(&output.display().to_string()).expect("a version");
    assert_eq!(version.probe(None).expect("reads").expect("a probe").len(), 2 * TEST);
}

#[test]
fn memories_that_choose_otherwise_are_refused_with_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = begun(folder.path(), "one", &[]);
    for (name, setting) in [("memory", "memory.sampler=\"ring\""), ("probe", "probe.seed=9")] {
        let other = begun(folder.path(), &format!("other-{name}"), &[setting]);
        let error = merged([&one, &other], &folder.path().join("merged")).expect_err("two settings").to_string();
        let of_other = format!("{name} of `{other}");
        let set = format!("--set {name}");
        for words in [of_other.as_str(), "--init", &set, &one] {
            assert!(error.contains(words), "`{words}` is missing in: {error}");
        }
        assert!(!folder.path().join("merged/1").exists());
    }
}
