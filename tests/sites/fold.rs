//! Weight-space adapters written into the weights give the same features, and leave the backbone as it was.

use burn::tensor::Device;
use inarch_core::Seed;
use inarch_core::backbone::{Frozen, Stack};
use inarch_peft::{Lora, LoraConfig};

use super::ia3::Ia3;
use crate::support::{differs, features, plain, randomised, same_features, tiny};

/// LoRA with random non-zero factors and a scale that is not 1.
pub(super) fn lora(targets: &[&str], device: &Device) -> Lora {
    let targets = targets.iter().map(|target| (*target).to_string()).collect();
    let config = LoraConfig { rank: 3, alpha: 2.0, targets, ..LoraConfig::default() };
    assert!((config.scale() - 1.0).abs() > 0.1);
    let fresh = Lora::init(&config, tiny(), Seed::new(1), device).expect("targets of every backbone");
    randomised(fresh, 0.2, device)
}

#[test]
fn lora_at_every_linear_layer_folds() {
    let lora = lora(&["*"], &plain());
    let found = features(tiny(), &lora);
    for (found, frozen) in found.clone().into_iter().zip(features(tiny(), &Frozen)) {
        differs("adapted", found, frozen);
    }
    same_features("folded", features(&tiny().fold(&lora), &Frozen), found, 1e-5);
}

#[test]
fn a_stack_folds_in_the_order_in_which_it_runs() {
    let (lora, ia3) = (lora(&["*"], &plain()), Ia3::random(&plain()));
    let orders = [Stack(vec![&lora, &ia3]), Stack(vec![&ia3, &lora])];
    for stack in &orders {
        same_features("folded", features(&tiny().fold(stack), &Frozen), features(tiny(), stack), 1e-5);
    }
    let [left, right] = orders.map(|stack| features(tiny(), &stack)[0].clone());
    differs("the two orders", left, right);
}

#[test]
fn the_backbone_is_left_as_it_was() {
    let before = features(tiny(), &Frozen);
    {
        let lora = lora(&["*"], &plain());
        let folded = tiny().fold(&lora);
        assert_ne!(folded.digest(), tiny().digest());
        assert!(folded.verify());
        let _ = features(tiny(), &lora);
    }
    assert!(tiny().verify());
    same_features("after an adapter", features(tiny(), &Frozen), before, 0.0);
    assert_eq!(tiny().fold(&Frozen).digest(), tiny().digest());
}
