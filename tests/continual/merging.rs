//! Merges of versions whose memories are kept otherwise: joined where that can be, and refused with the way out.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use inarch_continual::{Content, FolderVersions, MergeReport, MergeRequest, Versions as _, merge};
use inarch_peft::Combination;
use inarch_recipes::{Control, Silent};

use super::ageing::{LATER, TEST, TRAIN, When, batch, updated};
use crate::support::tiny;

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
    let stop = AtomicBool::new(false);
    let (parts, output) = (parts.map(String::from), output.display().to_string());
    let request = MergeRequest {
        parts: &parts,
        base: None,
        pooled: None,
        output: &output,
        combination: &Combination::default(),
        key: None,
        time: 0,
    };
    merge(tiny(), &FolderVersions, &request, Control::new(&Silent, &stop))
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
