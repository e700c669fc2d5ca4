//! Weight-space adapters written into the weights give the same features, and leave the backbone as it was.

use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{BlockSite, BranchSite, Entry, Frozen, Pass, Sites, Stack, Tower};
use inarch_peft::{Lora, LoraConfig};

use super::ia3::Ia3;
use crate::support::{begin, differs, features, plain, randomised, same_features, tiny};

/// LoRA with random non-zero factors and a scale that is not 1.
pub(super) fn lora(targets: &[&str], device: &Device) -> Lora {
    let targets = targets.iter().map(|target| (*target).to_string()).collect();
    let config = LoraConfig { rank: 3, alpha: 2.0, targets, ..LoraConfig::default() };
    assert!((config.scale() - 1.0).abs() > 0.1);
    let fresh = begin(&config, device).expect("targets of every backbone");
    randomised(fresh, 0.2, device)
}

#[test]
fn lora_at_every_linear_layer_folds() {
    let lora = lora(&["*"], &plain());
    let found = features(tiny(), &lora);
    for (found, frozen) in found.clone().into_iter().zip(features(tiny(), &Frozen)) {
        differs("adapted", found, frozen);
    }
    same_features("folded", features(&tiny().fold(&lora).expect("folds"), &Frozen), found, 1e-5);
}

#[test]
fn a_stack_folds_in_the_order_in_which_it_runs() {
    let (lora, ia3) = (lora(&["*"], &plain()), Ia3::random(&plain()));
    let orders = [Stack(vec![&lora, &ia3]), Stack(vec![&ia3, &lora])];
    for stack in &orders {
        same_features("folded", features(&tiny().fold(stack).expect("folds"), &Frozen), features(tiny(), stack), 1e-5);
    }
    let [left, right] = orders.map(|stack| features(tiny(), &stack)[0].clone());
    differs("the two orders", left, right);
}

#[test]
fn the_backbone_is_left_as_it_was() {
    let before = features(tiny(), &Frozen);
    {
        let lora = lora(&["*"], &plain());
        let folded = tiny().fold(&lora).expect("folds");
        assert_ne!(folded.digest(), tiny().digest());
        assert!(folded.verify());
        let _ = features(tiny(), &lora);
    }
    assert!(tiny().verify());
    same_features("after an adapter", features(tiny(), &Frozen), before, 0.0);
    assert_eq!(tiny().fold(&Frozen).expect("folds").digest(), tiny().digest());
}

#[test]
fn an_adapter_that_weights_cannot_express_is_not_folded_in_part() {
    struct Shift;
    impl Sites for Shift {
        fn entry(&self, _tower: Tower) -> Entry {
            Entry::Feature
        }

        fn feature(&self, _tower: Tower, feature: Tensor<2>, _pass: &Pass<'_>) -> Tensor<2> {
            feature + 1.0
        }
    }
    let lora = lora(&["*"], &plain());
    assert!(tiny().fold(&Shift).is_err());
    assert!(tiny().fold(&Stack(vec![&lora, &Shift])).is_err());
}

#[test]
fn an_adapter_that_mixes_tokens_sees_all_of_them_in_the_last_block() {
    /// Adds the mean over all tokens to each, after every MLP.
    struct Mix {
        all: bool,
    }
    impl Sites for Mix {
        fn entry(&self, tower: Tower) -> Entry {
            if tower == Tower::Image { Entry::Block(0) } else { Entry::Never }
        }

        fn needs_all_tokens(&self, _tower: Tower) -> bool {
            self.all
        }

        fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
            let last = tiny().depth(Tower::Image) - 1;
            match at {
                BranchSite::Mlp(BlockSite { block, .. }) if block == last && self.all => {
                    assert_eq!(output.dims()[1], tiny().spec().image.tokens());
                    output + input.clone().mean_dim(1)
                }
                _ => output,
            }
        }
    }
    let [all, _] = features(tiny(), &Mix { all: true });
    let [frozen, _] = features(tiny(), &Mix { all: false });
    differs("the mean of all tokens", all, frozen);
}
