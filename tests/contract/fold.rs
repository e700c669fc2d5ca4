//! What is written into the weights is what runs beside them.

use inarch_core::backbone::{Frozen, Pass, Sites as _};
use inarch_peft::{Adapter, MethodConfig};

use super::case::{methods, scores, trained};
use crate::support::{classes, features, pixels, plain, randomised, same, same_features, tiny};

#[test]
fn folded_is_unfolded() {
    let mut folding = 0;
    for config in methods() {
        let name = config.name();
        let adapter = trained(&config, &plain());
        if !adapter.folds() {
            let message = tiny().fold(&adapter).expect_err("an adapter that is more than weights").to_string();
            assert!(message.contains("fold"), "{name}: {message}");
            continue;
        }
        folding += 1;
        let found = features(tiny(), &adapter);
        let folded = tiny().fold(&adapter).expect("it says that it folds");
        assert_ne!(folded.digest(), tiny().digest(), "{name}: another backbone has another identity");
        same_features(name, features(&folded, &Frozen), found.clone(), 1e-5);
        let moved = found.into_iter().zip(features(tiny(), &Frozen)).any(|(found, frozen)| {
            let distance = (found.clone() - frozen.clone()).abs().max().into_scalar::<f32>();
            distance > 1e-2
        });
        assert!(moved, "{name}: nothing was folded");
        assert!(tiny().verify(), "{name}: the backbone changed");
    }
    assert!(folding > 5, "{folding} methods fold");
}

#[test]
fn a_second_adapter_never_alters_the_first() {
    let methods = methods();
    let found =
        |config: &MethodConfig, adapter: &Adapter| scores(config, adapter, &classes(), pixels(3), &Pass::evaluate());
    let all: Vec<_> = methods.iter().map(|config| trained(config, &plain())).collect();
    let before: Vec<_> =
        methods.iter().zip(&all).map(|(config, adapter)| (adapter.parameters(), found(config, adapter))).collect();
    // Every one of them is attached, run and dropped while the first ones live on.
    for (config, adapter) in methods.iter().zip(&all) {
        drop(found(config, &randomised(adapter.clone(), 0.1, &plain())));
    }
    for ((config, adapter), (parameters, before)) in methods.iter().zip(&all).zip(before) {
        assert_eq!(adapter.parameters(), parameters, "{}", config.name());
        same(config.name(), found(config, adapter), before, 0.0);
    }
    assert!(tiny().verify(), "the backbone changed");
}
