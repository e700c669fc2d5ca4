//! Search, with the index and without it.

use inarch_registry::{Expect, GcPolicy, Query, Registry};

use crate::support::Shelf;

fn numbers(registry: &Registry, query: &Query) -> Vec<u64> {
    registry.search(query).expect("a search").iter().map(|found| found.version.number).collect()
}

fn all() -> Query {
    Query { limit: 100, ..Query::default() }
}

#[test]
fn search_finds_by_every_condition_and_follows_what_happens() {
    let shelf = Shelf::new();
    for seed in 1..=6 {
        shelf.publish("chest", seed);
    }
    shelf.publish("knee", 3);
    let registry = &shelf.registry;
    let one = |query: Query| numbers(registry, &Query { name: Some("chest".into()), ..query });
    assert_eq!(one(all()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(one(Query { limit: 2, ..all() }), [6, 5]);
    assert_eq!(one(Query { metrics: vec!["accuracy>=0.55".parse().expect("a bound")], ..all() }), [6, 5]);
    assert_eq!(one(Query { metrics: vec!["accuracy<=0.51".parse().expect("a bound")], ..all() }), [1]);
    assert_eq!(one(Query { labels: [("site".into(), "clinic-1".into())].into(), ..all() }), [4, 1]);
    assert_eq!(one(Query { method: Some("lora".into()), backbone: Some("pocket".into()), ..all() }).len(), 6);
    assert!(one(Query { method: Some("coop".into()), ..all() }).is_empty());
    shelf.publish("chest", 7);
    assert_eq!(one(Query { limit: 1, ..all() }), [7], "new ones are found");
    registry.gc(&GcPolicy { keep: Some(2), dry_run: false }).expect("a collection");
    assert_eq!(one(all()), [7, 6], "removed ones are not");
    let (name, alias) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    registry.tag(&name, &alias, Some(6), Expect::Absent, "").expect("tagged");
    let found = registry.search(&all()).expect("a search");
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].aliases, [alias]);
}

#[test]
fn the_database_can_be_lost_damaged_or_taken() {
    let shelf = Shelf::new();
    for seed in 1..=5 {
        shelf.publish("chest", seed);
    }
    let registry = &shelf.registry;
    let expected = [5, 4, 3, 2, 1];
    assert_eq!(numbers(registry, &all()), expected);
    let path = registry.root().join("index.sled");
    let cached = || path.join("db").is_file();
    assert!(cached());

    let taken = sled::open(&path).expect("the database");
    assert_eq!(numbers(registry, &all()), expected, "another process has it open");
    assert_eq!(shelf.publish("chest", 6).version.number, 6, "publication does not need it");
    assert!(registry.reindex().is_err(), "only a rebuild needs it");
    drop(taken);
    assert_eq!(numbers(registry, &all()), [6, 5, 4, 3, 2, 1]);

    std::fs::remove_dir_all(&path).expect("removed");
    assert_eq!(numbers(registry, &all()), [6, 5, 4, 3, 2, 1], "it is made again");
    assert!(cached());
    for damage in [&b""[..], b"nonsense", &[0xff; 4096]] {
        for file in ["db", "conf"] {
            std::fs::write(path.join(file), damage).expect("damaged");
            assert_eq!(numbers(registry, &all()), [6, 5, 4, 3, 2, 1], "{file} of {} bytes", damage.len());
        }
    }
    let report = registry.reindex().expect("a rebuild");
    assert_eq!((report.names, report.versions), (1, 6));
    std::fs::write(registry.root().join("index.json"), b"{").expect("damaged");
    registry.reindex().expect("a rebuild");
    let view = std::fs::read_to_string(registry.root().join("index.json")).expect("a file");
    assert!(view.contains("chest:latest") && view.contains("chest:6"), "{view}");
    shelf.assert_sound();
}
