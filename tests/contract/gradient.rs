//! Training moves the declared parameters and nothing else.

use inarch_core::Seed;
use inarch_core::backbone::{Entry, Frames, Pass, Sites as _, Tower};

use super::case::{methods, scores, trained};
use crate::support::{classes, draws, gradients, pixels, plain, tiny, tracked};

/// Parameters that no score depends on smoothly: the loss alone moves them (`pools.rs` looks at them).
const BY_LOSS: &[(&str, &str)] = &[("l2p", "keys"), ("dual-prompt", "keys")];

#[test]
fn every_declared_parameter_gets_a_gradient_and_the_backbone_none() {
    for config in methods() {
        let name = config.name();
        let adapter = trained(&config, &tracked());
        let (fixed, declared): (Vec<String>, Vec<String>) =
            adapter.parameters().into_keys().partition(|name| name.ends_with(".fixed"));
        // A single frame leaves nothing to compare: what does so is shown clips.
        let compares = adapter.entry(Tower::Image) == Entry::Pool || name == "vita-clip";
        let frames = if compares { 3 } else { 1 };
        let pass = Pass { frames: Frames::of(frames), ..Pass::train(Seed::new(3)) };
        let found = scores(&config, &adapter, &classes(), pixels(3 * frames), &pass);
        let loss = (found.clone() * draws("loss", found.dims(), 1.0, &plain())).sum();
        if declared.is_empty() {
            // Nothing is trained, so nothing may be followed backwards.
            assert!(!loss.is_autodiff(), "{name}: a gradient leads nowhere");
            continue;
        }
        let mut found = gradients(&adapter, &loss);
        found.sort_by(|left, right| left.name.cmp(&right.name));
        let (held, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.name.ends_with(".fixed"));
        assert_eq!(held.len(), fixed.len(), "{name}");
        assert!(held.iter().all(|one| one.greatest.is_none()), "{name}: a fixed tensor has a gradient: {held:#?}");
        assert_eq!(found.len(), declared.len(), "{name}: {found:#?}");
        for (gradient, declared) in found.iter().zip(&declared) {
            // The path begins with the variant of the enum, which files leave out.
            assert!(gradient.name.ends_with(declared), "{name}: `{}` is not `{declared}`", gradient.name);
            if BY_LOSS.contains(&(name, declared)) {
                assert_eq!(gradient.greatest, None, "{name}: `{declared}`");
                continue;
            }
            let greatest = gradient.greatest.unwrap_or_else(|| panic!("{name}: no gradient reaches `{declared}`"));
            assert!(greatest.is_finite() && greatest > 0.0, "{name}: the gradient of `{declared}` is {greatest}");
        }
        for site in inarch_peft::all_sites(tiny()) {
            assert!(!tiny().linear(site).expect("a site").weight.val().is_autodiff(), "{name}: {site}");
        }
        assert!(tiny().verify(), "{name}: the backbone changed");
    }
}
