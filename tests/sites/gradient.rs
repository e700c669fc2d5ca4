//! Gradients reach all of an adapter's parameters and nothing else: the backbone stays on the plain device.

use burn::module::Module;
use inarch_core::backbone::{Frozen, Pass, Sites, Tower, normalise};
use inarch_core::text::Template;
use inarch_peft::{Classifier, all_sites};

use super::bottleneck::Bottleneck;
use super::cocoop::Cocoop;
use super::dora::Dora;
use super::fold::lora;
use super::ia3::Ia3;
use super::maple::Maple;
use super::prefix_tuning::Prefix;
use super::ssf::Ssf;
use super::tip_adapter::Tip;
use super::vpt::Vpt;
use crate::support::{classes, draws, gradients, pixels, plain, same, tiny, tracked};

/// Trains one step's worth of `adapter`, whose values are those of `still` on the plain device.
fn check<M: Module + Sites>(what: &str, adapter: &M, still: &M, parameters: usize) {
    let template = Template::new("X X X {}.").expect("one place");
    let classifier = Classifier::zero_shot(tiny(), &classes(), &[template]).expect("plain names");
    let logits = |sites: &M| {
        let image = tiny().encode_image(pixels(3), sites, &Pass::evaluate());
        let condition = normalise(image.clone());
        let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..Pass::evaluate() };
        let text = classifier.text(classifier.start(sites), sites, &pass);
        classifier.logits(&image, &text, sites, &pass)
    };
    let found = logits(adapter);
    // With and without gradients the same values come out.
    same(what, found.clone().inner(), logits(still), 1e-5);

    let shape = found.dims();
    let loss = (found * draws("loss", shape, 1.0, &plain())).sum();
    let found = gradients(adapter, &loss);
    assert_eq!(found.len(), parameters, "{what}: {found:#?}");
    for gradient in &found {
        let greatest = gradient.greatest.unwrap_or_else(|| panic!("{what}: no gradient reaches `{}`", gradient.name));
        assert!(greatest.is_finite() && greatest > 0.0, "{what}: the gradient of `{}` is {greatest}", gradient.name);
    }
    for site in all_sites(tiny()) {
        let weight = tiny().linear(site).expect("a site of this backbone").weight.val();
        assert!(!weight.is_autodiff(), "{what}: {site} is on an autodiff device");
    }
}

#[test]
fn every_parameter_of_every_adapter_gets_a_gradient() {
    let (on, off) = (tracked(), plain());
    let (image, text) = (tiny().depth(Tower::Image), tiny().depth(Tower::Text));
    check("lora", &lora(&["*"], &on), &lora(&["*"], &off), 2 * (6 * (image + text) + 2));
    check("dora", &Dora::random(&on), &Dora::random(&off), 3 * (image + text + 1 + 2));
    check("ia3", &Ia3::random(&on), &Ia3::random(&off), 3 * (image + text));
    check("ssf", &Ssf::random(&on), &Ssf::random(&off), 2 * (2 * (image + text) + 3));
    check("maple", &Maple::random(&on), &Maple::random(&off), 4);
    check("vpt", &Vpt::random(2, &on), &Vpt::random(2, &off), image);
    check("cocoop", &Cocoop::random(&on), &Cocoop::random(&off), 3);
    check("tip", &Tip::random(&on), &Tip::random(&off), 1);
    check("prefix", &Prefix::random(&on), &Prefix::random(&off), 2 * (image + text));
    for (after, sites) in [(true, 2), (false, 1)] {
        let adapters = [&on, &off].map(|device| Bottleneck::random(after, device));
        check("bottleneck", &adapters[0], &adapters[1], 2 * sites * (image + text));
    }
}

#[test]
fn an_adapter_on_the_autodiff_device_leaves_the_backbone_as_it_was() {
    let before = crate::support::features(tiny(), &Frozen);
    {
        let adapter = lora(&["*"], &tracked());
        let image = tiny().encode_image(pixels(2), &adapter, &Pass::evaluate());
        assert!(image.is_tracked());
        let _ = gradients(&adapter, &image.sum());
    }
    assert!(tiny().verify());
    crate::support::same_features("afterwards", crate::support::features(tiny(), &Frozen), before, 0.0);
}
