//! Bundles: there and back, and hostile ones.

use std::path::Path;

use inarch_registry::{Digest, Error, Expect, GcPolicy, PublishRequest, Query, Registry, Source};

use crate::support::{Draws, Shelf, request, tensors};

#[test]
fn a_bundle_carries_versions_numbers_and_aliases() {
    let (here, there) = (Shelf::new(), Shelf::new());
    for seed in 1..=3 {
        here.publish("chest", seed);
    }
    let (name, prod) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    here.registry.tag(&name, &prod, Some(3), Expect::Absent, "").expect("tagged");
    let versions =
        [here.registry.resolve("chest@2").expect("a version"), here.registry.resolve("chest@3").expect("a version")];
    let path = here.folder.path().join("bundle.tar");
    let report = here.registry.export(&versions, &path).expect("a bundle");
    assert_eq!((report.versions, report.blobs), (2, 9), "the recipe is shared");
    let first = std::fs::read(&path).expect("a file");
    here.registry.export(&versions, &path).expect("a bundle");
    assert!(first == std::fs::read(&path).expect("a file"), "the same bytes");

    let report = there.registry.import(&path, true).expect("an import");
    assert_eq!(report.imported, versions);
    assert_eq!(there.registry.resolve("chest@prod").expect("a version"), versions[1]);
    let again = there.registry.import(&path, false).expect("an import");
    assert_eq!((again.imported.len(), again.present.len()), (0, 2));
    let checkout = there.registry.checkout(&versions[0]).expect("a checkout");
    assert_eq!(std::fs::read(checkout.folder().join("adapter.safetensors")).expect("a file"), tensors(2, 1000));
    there.assert_sound();

    // An older one, taken in later, is not the newest.
    let oldest = [here.registry.resolve("chest@1").expect("a version")];
    here.registry.export(&oldest, &path).expect("a bundle");
    there.registry.import(&path, false).expect("an import");
    assert_eq!(there.registry.resolve("chest").expect("a version").number, 3);
    assert_eq!(there.registry.versions(&name).expect("versions").len(), 3);
}

#[test]
fn a_number_that_stands_for_something_else_is_refused() {
    let (here, there) = (Shelf::new(), Shelf::new());
    let version = here.publish("chest", 1).version;
    there.publish("chest", 2);
    let path = here.folder.path().join("bundle.tar");
    here.registry.export(&[version], &path).expect("a bundle");
    assert!(matches!(there.registry.import(&path, false), Err(Error::Refused { .. })));
    assert_eq!(there.registry.verify().expect("a verification").problems, []);
}

#[test]
fn annotations_that_lie_about_the_files_are_refused() {
    let (here, there) = (Shelf::new(), Shelf::new());
    let version = here.publish("chest", 1).version;
    let blobs = here.registry.blobs();
    let text = String::from_utf8(std::fs::read(blobs.path(&version.digest)).expect("a manifest")).expect("text");
    let lie = text.replace("\"dev.inarch.method\":\"lora\"", "\"dev.inarch.method\":\"coop\"");
    assert_ne!(text, lie);
    let layout = here.folder.path().join("layout");
    copy_layout(here.registry.root(), &layout, &lie);
    let error = there.registry.import(&layout, false).expect_err("a lie");
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(there.registry.names().expect("readable"), []);
}

/// A layout of a version whose manifest says something else in one annotation.
fn altered(here: &Shelf, annotation: &str, value: &str) -> std::path::PathBuf {
    let version = here.publish("chest", 1).version;
    let bytes = std::fs::read(here.registry.blobs().path(&version.digest)).expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    manifest["annotations"][annotation] = value.into();
    let layout = here.folder.path().join("layout");
    copy_layout(here.registry.root(), &layout, &manifest.to_string());
    layout
}

#[test]
fn a_time_that_is_none_does_not_make_the_registry_unreadable() {
    let (here, there) = (Shelf::new(), Shelf::new());
    let layout = altered(&here, "org.opencontainers.image.created", &"x".repeat(70_000));
    let imported = there.registry.import(&layout, false).expect("an import").imported;
    assert!(imported[0].published.len() < 40, "a time: {}", imported[0].published);
    there.publish("abdomen", 2);
    there.registry.gc(&GcPolicy::default()).expect("a registry that can be read");
    there.assert_sound();
}

#[test]
fn a_metric_that_is_no_number_does_not_cost_the_index() {
    let (here, there) = (Shelf::new(), Shelf::new());
    let layout = altered(&here, "dev.inarch.metric.accuracy", "NaN");
    there.registry.import(&layout, false).expect("an import");
    there.publish("abdomen", 2);
    let found = there.registry.search(&Query { limit: 9, ..Query::default() }).expect("a search");
    assert_eq!(found.iter().map(|found| found.card.metrics.len()).collect::<Vec<_>>(), [1, 0], "abdomen, chest");
    assert!(there.registry.root().join("index.sled").join("db").is_file(), "it is kept");
}

/// A layout with one manifest more, the only one in its index.
fn copy_layout(from: &Path, to: &Path, manifest: &str) {
    let blobs = to.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    for entry in std::fs::read_dir(from.join("blobs/sha256")).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, blobs.join(path.file_name().expect("a name"))).expect("copied");
    }
    let digest = Digest::of(manifest.as_bytes());
    std::fs::write(blobs.join(digest.hex()), manifest).expect("written");
    std::fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}}"#,
        manifest.len()
    );
    std::fs::write(to.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).expect("written");
}

#[test]
fn the_folder_itself_is_a_layout_that_can_be_imported() {
    let (here, there) = (Shelf::new(), Shelf::new());
    here.publish("chest", 1);
    here.publish("chest", 2);
    let report = there.registry.import(here.registry.root(), false).expect("an import");
    assert_eq!(report.imported.len(), 1, "an index lists the newest version and the aliases");
    assert_eq!(report.imported[0].number, 2);
    there.assert_sound();
}

fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, *bytes).expect("an entry");
    }
    archive.into_inner().expect("an archive")
}

#[test]
fn hostile_bundles_are_refused_and_leave_nothing() {
    use tar::EntryType::{Regular, Symlink};
    let shelf = Shelf::new();
    let layout: (&str, tar::EntryType, &[u8]) = ("oci-layout", Regular, b"{}");
    let index: (&str, tar::EntryType, &[u8]) = ("index.json", Regular, br#"{"schemaVersion":2,"manifests":[]}"#);
    let blob = format!("blobs/sha256/{}", Digest::of(b"something").hex());
    let cases: Vec<Vec<u8>> = vec![
        archive(&[layout, index, ("../escape", Regular, b"x")]),
        archive(&[layout, index, ("/etc/escape", Regular, b"x")]),
        archive(&[layout, index, ("blobs/sha256/../../escape", Regular, b"x")]),
        archive(&[layout, index, (&blob, Symlink, b"")]),
        archive(&[layout, index, (&blob, Regular, b"something else")]),
        archive(&[layout, index, index]),
        archive(&[index]),
        archive(&[layout]),
        archive(&[layout, ("index.json", Regular, b"[[[[")]),
        archive(&[layout, ("index.json", Regular, br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}"#)]),
        b"no archive at all, but long enough to be looked at ".repeat(50),
    ];
    for (case, bytes) in cases.iter().enumerate() {
        let path = shelf.folder.path().join("hostile.tar");
        std::fs::write(&path, bytes).expect("written");
        let error = shelf.registry.import(&path, true).expect_err("refused");
        assert!(!shelf.folder.path().join("escape").exists(), "case {case}: {error}");
    }
    assert_eq!(shelf.registry.names().expect("readable"), []);
    assert_eq!(std::fs::read_dir(shelf.registry.root().join("staging")).expect("a folder").count(), 0);
}

#[test]
fn no_mutation_of_a_bundle_gets_anything_in_that_does_not_verify() {
    let here = Shelf::new();
    let request = PublishRequest { files: small(), ..request("chest", 1) };
    let version = here.registry.publish(request).expect("published").version;
    let path = here.folder.path().join("bundle.tar");
    here.registry.export(&[version], &path).expect("a bundle");
    let good = std::fs::read(&path).expect("a file");
    let mut draws = Draws::new(9);
    for _ in 0..150 {
        let there = tempfile::tempdir().expect("a folder");
        let mut bytes = good.clone();
        for _ in 0..=draws.below(3) {
            let at = draws.below(bytes.len() as u64) as usize;
            bytes[at] = draws.below(256) as u8;
        }
        std::fs::write(&path, &bytes).expect("written");
        let registry = Registry::open(there.path().join("registry")).expect("a registry");
        let _ = registry.import(&path, true);
        assert_eq!(registry.verify().expect("a verification").problems, []);
    }
}

fn small() -> Vec<(String, Source)> {
    let tensors = tensors(1, 4);
    let card = crate::support::card(&tensors, 0.5);
    vec![("adapter.safetensors".into(), Source::Bytes(tensors)), ("adapter.json".into(), Source::Bytes(card))]
}
