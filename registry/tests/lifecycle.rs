//! Publish, resolve, tag, promote, roll back, log, diff.

use inarch_registry::{Candidate, Digest, Error, Event, Expect, GateVerdict, PublishRequest, Selector, Source};

use crate::support::{Shelf, card, request, tensors};

#[test]
fn versions_are_numbered_and_equal_content_is_published_once() {
    let shelf = Shelf::new();
    let first = shelf.publish("chest", 1);
    assert!(first.is_new && first.version.number == 1);
    let again = shelf.publish("chest", 1);
    assert!(!again.is_new);
    assert_eq!(again.version, first.version);
    assert_eq!(shelf.publish("chest", 2).version.number, 2);
    assert_eq!(shelf.publish("chest", 1).version.number, 3, "equal to an older one is a new version");
    let resolve = |text: &str| shelf.registry.resolve(text).expect(text).number;
    assert_eq!([resolve("chest"), resolve("chest@latest"), resolve("chest@1"), resolve("chest@v2")], [3, 3, 1, 2]);
    assert_eq!(resolve(&first.version.digest.to_string()), 1);
    assert_eq!(resolve(&format!("chest@{}", first.version.digest)), 1);
    shelf.assert_sound();
}

#[test]
fn a_release_names_one_version_for_ever() {
    let shelf = Shelf::new();
    let release = |text: &str| Some(text.parse().expect("a release"));
    let publish =
        |seed, text| shelf.registry.publish(PublishRequest { release: release(text), ..request("chest", seed) });
    assert_eq!(publish(1, "1.0.0").expect("published").version.number, 1);
    assert_eq!(publish(2, "1.1.0").expect("published").version.number, 2);
    assert!(matches!(publish(3, "1.0.0"), Err(Error::Conflict { .. })));
    assert_eq!(shelf.registry.resolve("chest@1.0.0").expect("a version").number, 1);
    assert!(shelf.registry.resolve("chest@2.0.0").is_err_and(|error| error.is_missing()));
}

#[test]
fn a_checkout_has_the_bytes_that_were_published() {
    let shelf = Shelf::new();
    let version = shelf.publish("radiology/chest", 7).version;
    let checkout = shelf.registry.checkout(&version).expect("a checkout");
    let bytes = std::fs::read(checkout.folder().join("adapter.safetensors")).expect("a file");
    assert_eq!(bytes, tensors(7, 1000));
    let card = shelf.registry.card(&version).expect("a card");
    assert_eq!((card.method.as_str(), card.classes), ("lora", 2));
    assert!((card.metrics["accuracy"] - 0.57).abs() < 1e-9);
    shelf.registry.check_backbone(&version, &card.backbone).expect("the right backbone");
    assert!(matches!(shelf.registry.check_backbone(&version, "sha256:00"), Err(Error::Refused { .. })));
}

#[test]
fn aliases_move_by_compare_and_set_and_roll_back() {
    let shelf = Shelf::new();
    let (name, prod) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    for seed in 1..=4 {
        shelf.publish("chest", seed);
    }
    let registry = &shelf.registry;
    let tag = |to, expect| registry.tag(&name, &prod, to, expect, "because");
    tag(Some(1), Expect::Absent).expect("new");
    assert!(matches!(tag(Some(2), Expect::Absent), Err(Error::Conflict { .. })));
    assert!(matches!(tag(Some(2), Expect::Is(3)), Err(Error::Conflict { .. })));
    tag(Some(2), Expect::Is(1)).expect("as expected");
    tag(Some(3), Expect::Any).expect("anything");
    assert!(tag(Some(9), Expect::Any).is_err_and(|error| error.is_missing()));
    let back = || registry.rollback(&name, &prod, None, Expect::Any, "worse").expect("a past").to;
    assert_eq!(back(), Some(2));
    tag(Some(4), Expect::Is(2)).expect("as expected");
    assert_eq!([back(), back()], [Some(2), Some(1)]);
    assert!(matches!(registry.rollback(&name, &prod, None, Expect::Any, ""), Err(Error::Refused { .. })));
    let other = "other".parse().expect("an alias");
    let Err(Error::Unknown { kind: "alias", name: unknown, candidates, .. }) =
        registry.rollback(&name, &other, None, Expect::Any, "")
    else {
        panic!("an alias that never was");
    };
    assert_eq!((unknown.as_str(), &candidates[..]), ("other", &["prod".to_string()][..]));
    tag(None, Expect::Is(1)).expect("deleted");
    assert!(registry.resolve("chest@prod").is_err_and(|error| error.is_missing()));
    assert_eq!(back(), Some(1), "a deletion is undone");
    let moves = registry.alias_moves(&name, &prod).expect("a log");
    assert_eq!(moves.len(), 9);
    assert_eq!((moves[0].from, moves[0].to, moves[0].why.as_str()), (None, Some(1), "because"));
    let log = registry.log(&name).expect("a log");
    assert_eq!(log.len(), 13);
    assert!(matches!(&log[0], Event::Moved { step, .. } if step.to == Some(1)), "newest first");
    let json = serde_json::to_string(&log[0]).expect("JSON");
    for key in ["event", "alias", "at", "from", "to", "kind"] {
        assert_eq!(json.matches(&format!("\"{key}\":")).count(), 1, "{key} in {json}");
    }
    shelf.assert_sound();
}

#[test]
fn promotion_asks_the_gate_and_every_check() {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let failed = PublishRequest { verdict: Some(GateVerdict::Fail("forgot `cat`".into())), ..request("chest", 1) };
    registry.publish(failed).expect("published");
    let passed = PublishRequest { verdict: Some(GateVerdict::Pass), ..request("chest", 2) };
    registry.publish(passed).expect("published");
    let (name, prod) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    let yes = |candidate: &Candidate<'_>| {
        assert!(candidate.folder.join("adapter.json").is_file());
        Ok(())
    };
    let no = |_: &Candidate<'_>| Err("its golden test gives other numbers".to_string());
    let promote = |number, checks: &[&dyn inarch_registry::Check]| {
        registry.promote((&name, &Selector::Number(number)), &prod, Expect::Any, checks, "")
    };
    let error = promote(1, &[&yes]).expect_err("the gate said no").to_string();
    assert!(error.contains("forgot `cat`"), "{error}");
    assert!(matches!(promote(2, &[&yes, &no]), Err(Error::Refused { .. })));
    assert_eq!(registry.alias(&name, &prod).expect("readable"), None, "a refusal moves nothing");
    promote(2, &[&yes]).expect("all agree");
    assert_eq!(registry.alias(&name, &prod).expect("readable"), Some(2));
}

#[test]
fn a_difference_names_what_changed_and_what_is_shared() {
    let shelf = Shelf::new();
    let (before, after) = (shelf.publish("chest", 1).version, shelf.publish("chest", 2).version);
    let difference = shelf.registry.diff(&before, &after).expect("a difference");
    let files: Vec<&str> = difference.files.iter().map(|change| change.file.as_str()).collect();
    assert_eq!(files, ["adapter.json", "adapter.safetensors"]);
    assert_eq!(difference.shared_bytes, b"method = \"lora\"\n".len() as u64);
    assert_eq!(difference.facts["metric.accuracy"], ["0.51", "0.52"]);
    assert_eq!(difference.facts["label.site"], ["clinic-1", "clinic-2"]);
}

#[test]
fn an_adapter_that_is_not_whole_is_not_published() {
    let shelf = Shelf::new();
    let publish = |files: Vec<(&str, Vec<u8>)>| {
        let files = files.into_iter().map(|(title, bytes)| (title.to_string(), Source::Bytes(bytes))).collect();
        shelf.registry.publish(PublishRequest { files, ..PublishRequest::new("chest".parse().expect("a name")) })
    };
    let good = tensors(1, 10);
    assert!(publish(vec![("adapter.json", card(&good, 0.5))]).is_err());
    assert!(publish(vec![("adapter.safetensors", good.clone())]).is_err());
    let other = publish(vec![("adapter.safetensors", tensors(2, 10)), ("adapter.json", card(&good, 0.5))]);
    assert!(matches!(other, Err(Error::Damaged { .. })));
    let torn = good[..good.len() - 4].to_vec();
    let cut = publish(vec![("adapter.json", card(&torn, 0.5)), ("adapter.safetensors", torn)]);
    assert!(matches!(cut, Err(Error::Malformed { .. })), "{cut:?}");
    for title in ["../adapter", "a/b", ".hidden", "con", "", "x y"] {
        let files =
            vec![("adapter.safetensors", good.clone()), ("adapter.json", card(&good, 0.5)), (title, b"x".to_vec())];
        assert!(publish(files).is_err(), "{title}");
    }
    let parents = vec![Digest::of(b"a parent"); 1025];
    let many = shelf.registry.publish(PublishRequest { parents, ..request("chest", 1) });
    assert!(matches!(many, Err(Error::Malformed { .. })), "nobody could read it again: {many:?}");
    assert_eq!(shelf.registry.names().expect("readable"), []);
}
