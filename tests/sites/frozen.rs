//! The no-op adapter, and the naive reference that the other files lean on.

use inarch_core::backbone::{Entry, Frozen, Mode, Sites, Stack, Tower};

use crate::support::{Reference, features, like_reference, pixels, rows, same, same_features, tiny};

/// An adapter that claims every site and changes nothing.
struct Transparent;

impl Sites for Transparent {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Tokens
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }
}

#[test]
fn the_reference_equals_the_backbone() {
    let reference = Reference::new(tiny().spec(), tiny().state_dict());
    like_reference("frozen", features(tiny(), &Frozen), reference.features(pixels(3), &rows(), &()));
}

#[test]
fn visiting_every_site_changes_nothing() {
    let frozen = features(tiny(), &Frozen);
    let visited = features(tiny(), &Transparent);
    same("transparent, images", visited[0].clone(), frozen[0].clone(), 0.0);
    // Frozen texts run in parts and in another order, which shows in the last bit.
    same("transparent, texts", visited[1].clone(), frozen[1].clone(), 1e-6);
    same_features("stack of two", features(tiny(), &Stack(vec![&Transparent, &Frozen])), visited, 0.0);
    same_features("empty stack", features(tiny(), &Stack(Vec::new())), frozen, 0.0);
    assert_eq!(Stack(Vec::new()).entry(Tower::Image), Entry::Never);
}
