//! Several threads and processes on one registry; retention beside readers.

use std::sync::atomic::{AtomicBool, Ordering};

use inarch_registry::{Expect, GcPolicy, Registry};

use crate::support::{Shelf, request, tensors};

#[test]
fn publishers_never_share_a_number_and_readers_always_see_whole_versions() {
    let shelf = Shelf::new();
    let root = shelf.registry.root();
    shelf.publish("chest", 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                scope.spawn(move || {
                    // A value of its own, as another process has.
                    let registry = Registry::open(root).expect("a registry");
                    let name = "chest".parse().expect("a name");
                    let alias = "prod".parse().expect("an alias");
                    for round in 0..8 {
                        let version =
                            registry.publish(request("chest", 1 + publisher * 100 + round)).expect("published").version;
                        registry.tag(&name, &alias, Some(version.number), Expect::Any, "").expect("tagged");
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let registry = Registry::open(root).expect("a registry");
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let version = registry.resolve("chest").expect("always a newest one");
                let checkout = registry.checkout(&version).expect("always whole");
                assert!(checkout.folder().join("adapter.json").is_file());
                reads += 1;
            }
            reads
        });
        let collector = scope.spawn(|| {
            let registry = Registry::open(root).expect("a registry");
            while !done.load(Ordering::Relaxed) {
                registry.gc(&GcPolicy::default()).expect("a collection");
            }
        });
        for publisher in publishers {
            publisher.join().expect("no panic");
        }
        done.store(true, Ordering::Relaxed);
        collector.join().expect("no panic");
        assert!(reader.join().expect("no panic") > 0);
    });
    let versions = shelf.registry.versions(&"chest".parse().expect("a name")).expect("versions");
    let numbers: Vec<u64> = versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, (1..=33).collect::<Vec<_>>());
    shelf.assert_sound();
}

#[test]
fn retention_keeps_what_is_used_and_removes_the_rest() {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let (name, prod) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    for seed in 1..=10 {
        shelf.publish("chest", seed);
    }
    for number in [2, 4] {
        registry.tag(&name, &prod, Some(number), Expect::Any, "").expect("tagged");
    }
    registry.pin(&registry.resolve("chest@6").expect("a version"), true).expect("pinned");
    let used = registry.checkout(&registry.resolve("chest@7").expect("a version")).expect("a checkout");

    let policy = GcPolicy { keep: Some(2), dry_run: true };
    let plan = registry.gc(&policy).expect("a plan");
    let removed = |report: &inarch_registry::GcReport| -> Vec<u64> {
        report.versions.iter().map(|removal| removal.version.number).collect()
    };
    assert_eq!(removed(&plan), [1, 3, 5, 8]);
    assert_eq!(registry.versions(&name).expect("versions").len(), 10, "a plan removes nothing");
    let report = registry.gc(&GcPolicy { dry_run: false, ..policy }).expect("a collection");
    assert_eq!(removed(&report), [1, 3, 5, 8]);
    assert!(report.blobs >= 12 && report.bytes > 4 * 4000, "{report:?}");
    assert_eq!(std::fs::read(used.folder().join("adapter.safetensors")).expect("still here"), tensors(7, 1000));
    let error = registry.resolve("chest@3").expect_err("removed").to_string();
    assert!(error.contains("`gc` removed it"), "{error}");
    assert_eq!(registry.rollback(&name, &prod, None, Expect::Is(4), "").expect("a past").to, Some(2));
    shelf.assert_sound();

    drop(used);
    registry.pin(&registry.resolve("chest@6").expect("a version"), false).expect("unpinned");
    let report = registry.gc(&GcPolicy { keep: Some(1), dry_run: false }).expect("a collection");
    assert_eq!(removed(&report), [4, 6, 7, 9]);
    assert_eq!(shelf.publish("chest", 11).version.number, 11, "numbers are never given twice");
    assert_eq!(registry.verify().expect("a verification").garbage, 0);
    shelf.assert_sound();
}
