//! A change of a channel's keys whose process is killed, after each of the files that it writes.

use std::cell::Cell;

use inarch_registry::{ChannelKeys, Error, Lifetimes, Publisher, Result, SecretKey};

use serde_json::json;

use crate::trust::{Fleet, at, fleet, key, offer, resigned};

/// How many files a change of keys writes: what is offered, its snapshot, the root, the timestamp.
const FILES: usize = 4;

fn keys<'a>(root: &'a [SecretKey], online: &'a [SecretKey]) -> ChannelKeys<'a> {
    ChannelKeys { root, root_threshold: 2, online, online_threshold: 1 }
}

fn rotate(fleet: &Fleet, keys: &ChannelKeys<'_>, old: &[SecretKey]) -> Result<Vec<u8>> {
    fleet.files.publisher(at(0), Lifetimes::default(), |publisher| publisher.rotate(keys, old))
}

/// The same, killed when so many files are written.
#[track_caller]
fn rotate_cut(fleet: &Fleet, written: usize, keys: &ChannelKeys<'_>, old: &[SecretKey]) {
    let left = Cell::new(written);
    let fetch = |name: &str, _: u64| Ok(fleet.files.0.borrow().get(name).cloned());
    let store = |name: &str, bytes: &[u8]| {
        if left.get() == 0 {
            let (address, reason) = ("memory".into(), "the process is killed".into());
            return Err(Error::Remote { action: "push", address, reason, transient: true });
        }
        left.set(left.get() - 1);
        fleet.files.put(name, bytes.to_vec());
        Ok(())
    };
    let error = Publisher::new(&fetch, &store, Lifetimes::default(), at(0)).rotate(keys, old).expect_err("killed");
    assert!(error.to_string().contains("killed"), "after {written} files: {error}");
}

#[test]
fn the_same_command_again_ends_a_change_of_keys_that_was_cut_off() {
    // The online key goes with the root keys, or stays.
    for (online, is_replaced) in [(20, true), (10, false)] {
        let (roots, onlines, old) = ([key(4), key(5)], [key(online)], [key(1), key(2)]);
        for written in 0..FILES {
            let fleet = fleet();
            let mut known = fleet.channel("known");
            fleet.files.update(&mut known, at(10)).expect("trusted");
            rotate_cut(&fleet, written, &keys(&roots, &onlines), &old);

            // Until then devices go on as before. Only between a root with other keys and its timestamp they hear nothing
            // that they believe.
            let is_believed = written < 3 || !is_replaced;
            for channel in [&mut known, &mut fleet.channel("early")] {
                match fleet.files.update(channel, at(20)) {
                    Ok(trusted) => {
                        assert!(is_believed && trusted.offers == [offer(1, 10_000)], "{written}: {trusted:?}")
                    }
                    Err(error @ Error::Untrusted { .. }) => assert!(!is_believed, "{written}: {error}"),
                    Err(error) => panic!("{written}: {error}"),
                }
            }

            rotate(&fleet, &keys(&roots, &onlines), &old).expect("the same again");
            let early = &mut fleet.channel("early");
            assert_eq!(fleet.files.update(early, at(20)).expect("trusted").offers, [offer(1, 10_000)], "{written}");
            fleet.offer(2, 10_000, online).expect("the new key signs");
            for channel in [&mut known, early, &mut fleet.channel("late")] {
                let trusted = fleet.files.update(channel, at(30)).expect("trusted");
                assert_eq!(trusted.offers, [offer(2, 10_000)], "{written}");
            }
        }
    }
}

#[test]
fn the_new_key_alone_ends_a_change_of_keys_that_was_cut_off() {
    let fleet = fleet();
    let mut known = fleet.channel("known");
    fleet.files.update(&mut known, at(10)).expect("trusted");
    rotate_cut(&fleet, 3, &keys(&[key(4), key(5)], &[key(20)]), &[key(1), key(2)]);
    let offers = fleet.files.publisher(at(0), Lifetimes::default(), |publisher| publisher.offers());
    assert_eq!(offers.expect("readable"), [offer(1, 10_000)]);
    assert!(fleet.offer(2, 500, 10).is_err(), "the old online key is gone");
    fleet.offer(2, 500, 20).expect("the new key signs");
    let trusted = fleet.files.update(&mut known, at(20)).expect("trusted");
    assert_eq!(trusted.offers, [offer(1, 10_000), offer(2, 500)]);
}

#[test]
fn changes_of_keys_that_are_cut_off_one_after_another_lose_nothing() {
    let (first, roots, onlines) = ([key(4), key(5)], [key(6), key(7)], [key(30)]);
    for written in 0..FILES {
        let fleet = fleet();
        let mut known = fleet.channel("known");
        fleet.files.update(&mut known, at(10)).expect("trusted");
        rotate_cut(&fleet, 3, &keys(&first, &[key(20)]), &[key(1), key(2)]);
        // It is not ended, but other keys are taken at once; and then again.
        rotate_cut(&fleet, written, &keys(&roots, &onlines), &first);
        rotate(&fleet, &keys(&roots, &onlines), &first).expect("the same again");
        assert!(fleet.offer(2, 10_000, 20).is_err(), "{written}: a key that never came to sign");
        for channel in [&mut known, &mut fleet.channel("late")] {
            let trusted = fleet.files.update(channel, at(20)).expect("trusted");
            assert_eq!(trusted.offers, [offer(1, 10_000)], "{written}");
        }
    }
}

#[test]
fn keys_that_were_replaced_say_nothing_of_what_is_offered() {
    let (roots, onlines, old) = ([key(4), key(5)], [key(20)], [key(1), key(2)]);
    let fleet = fleet();
    rotate_cut(&fleet, 3, &keys(&roots, &onlines), &old);
    // Whoever has the old online key and may write there puts its lists in the place of the new ones.
    for role in ["targets", "snapshot"] {
        let whole = fleet.files.0.borrow().clone();
        fleet.files.put(&format!("3.{role}.json"), fleet.files.get(&format!("2.{role}.json")));
        let error = rotate(&fleet, &keys(&roots, &onlines), &old).expect_err("signed by a key that was replaced");
        assert!(matches!(error, Error::Untrusted { .. }), "{role}: {error}");
        assert!(!fleet.files.0.borrow().contains_key("3.root.json"), "nothing was written");
        *fleet.files.0.borrow_mut() = whole;
    }
    rotate(&fleet, &keys(&roots, &onlines), &old).expect("the same again");
}

#[test]
fn a_key_that_was_replaced_does_not_drive_the_versions_up() {
    let fleet = fleet();
    let mut known = fleet.channel("known");
    let old = fleet.files.get("timestamp.json");
    rotate(&fleet, &keys(&[key(4), key(5)], &[key(20)]), &[key(1), key(2)]).expect("rotated");
    fleet.files.update(&mut known, at(10)).expect("trusted");
    // Whoever has the old online key and may write there: beyond such a version nothing could be signed any more.
    fleet.files.put("timestamp.json", old);
    fleet.files.edit("timestamp.json", |envelope| {
        envelope["signed"]["version"] = json!(u64::MAX - 2);
        *envelope = resigned(&envelope["signed"], 10);
    });
    fleet.offer(2, 10_000, 20).expect("the new key signs");
    let written: serde_json::Value = serde_json::from_slice(&fleet.files.get("timestamp.json")).expect("JSON");
    assert_eq!(written["signed"]["version"], written["signed"]["meta"]["snapshot.json"]["version"]);
    for channel in [&mut known, &mut fleet.channel("late")] {
        assert_eq!(fleet.files.update(channel, at(20)).expect("trusted").offers, [offer(2, 10_000)]);
    }
}
