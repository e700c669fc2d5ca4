//! Methods of layers inside convolutional image towers: the pointwise convolutions of ALIGN's EfficientNet and of CLIP's
//! ResNet are linear sites. `trunks.py` beside this file made the values of HF PEFT.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{
    Backbone, Entry, Frozen, LinearSite, Mixed, Partial, Pass, Pointwise, Sites, Tower, TrunkSite, values,
};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{Adapter, Artifact, MethodConfig, Provenance, all_sites};

use super::methods::{classes, fresh, templates};
use super::{Case, TOLERANCE};
use crate::contract::case::configured;
use crate::support::{close, differs_by, draws, fixture, gradients, plain, randomised, same, tracked};

const FAMILIES: [&str; 2] = ["align", "resnet"];

/// Every method of layers, in settings that fit layers this narrow.
const METHODS: [(&str, &str); 14] = [
    ("lora", "rank = 2"),
    ("lora", "rank = 2\ninit = \"eva\""),
    ("lora", "rank = 2\ninit = \"pissa\""),
    ("dora", "rank = 2"),
    ("loha", "rank = 2"),
    ("lokr", "rank = 2"),
    ("vera", "rank = 8"),
    ("sd-lora", "rank = 2\nexperiences = 2"),
    ("fourierft", "coefficients = 2\nscale = 2.0"),
    ("ia3", "inputs = [\"image.trunk.blocks.1.*\"]"),
    ("oft", "block = 4"),
    ("boft", "block = 4\nfactors = 1"),
    ("ssf", ""),
    ("bitfit", ""),
];

fn method(family: &str, name: &str, settings: &str) -> MethodConfig {
    let targets = match (family, name) {
        // A squeezed map has fewer channels than a block of rotations.
        ("align", "oft" | "boft") => "[\"*.expand\", \"*.project\"]",
        _ => "[\"image.trunk.*\"]",
    };
    let place = match name {
        "ssf" | "bitfit" => format!("norms = []\nlinear = {targets}"),
        _ => format!("targets = {targets}"),
    };
    configured(name, &format!("{settings}\n{place}"))
}

fn methods(family: &str) -> Vec<MethodConfig> {
    METHODS.iter().map(|(name, settings)| method(family, name, settings)).collect()
}

/// LoRA at the sites that a pattern selects, with something to say.
fn lora(pattern: &str, backbone: &Backbone) -> Adapter {
    let config = configured("lora", &format!("targets = [\"{pattern}\"]"));
    randomised(fresh(&config, backbone).expect("sites of this backbone"), 0.3, &plain())
}

fn features(backbone: &Backbone, pixels: Tensor<4>, sites: &dyn Sites) -> Tensor<2> {
    backbone.encode_image(pixels, sites, &Pass::evaluate())
}

#[test]
fn updates_of_pointwise_convolutions_equal_those_of_peft() {
    let (expected, _) = read_safetensors(&fixture("parity/families/trunks.safetensors")).expect("a fixture");
    for family in FAMILIES {
        let case = Case::open(family);
        for method in ["lora", "dora"] {
            let settings =
                "rank = 3\nalpha = 4.0\nrank_stabilised = true\ndropout = 0.0\ntargets = [\"image.trunk.*\"]";
            let adapter = fresh(&configured(method, settings), &case.backbone).expect("settings that fit");
            let mut parameters = adapter.parameters();
            let prefix = format!("{family}.{method}.");
            assert_eq!(parameters.len() + 1, expected.keys().filter(|name| name.starts_with(&prefix)).count());
            for (name, tensor) in &mut parameters {
                let own = name.trim_start_matches("sites.").replace(".factors.", ".");
                let given = &expected[&format!("{prefix}{own}")];
                assert_eq!(given.shape, tensor.shape, "{name}");
                tensor.data.clone_from(&given.data);
            }
            let adapter = adapter.with_parameters(parameters, &plain()).expect("the same shapes");
            let expected = &expected[&format!("{prefix}features")].data;
            let found = features(&case.backbone, case.pixels(), &adapter);
            close(&format!("{method} on {family}"), &values(found), expected, TOLERANCE);
            let folded = case.backbone.fold(&adapter).expect("an adapter of weights");
            let found = features(&folded, case.pixels(), &Frozen);
            close(&format!("{method} folded into {family}"), &values(found), expected, TOLERANCE);
        }
    }
}

#[test]
fn every_method_of_layers_keeps_its_laws_in_a_trunk() {
    for family in FAMILIES {
        let case = Case::open(family);
        let backbone = &case.backbone;
        let frozen = features(backbone, case.pixels(), &Frozen);
        for config in methods(family) {
            let what = format!("{} on {family}", config.name());
            let adapter = fresh(&config, backbone).unwrap_or_else(|error| panic!("{what}: {error}"));
            let entries = [Tower::Image, Tower::Text].map(|tower| adapter.entry(tower));
            assert_eq!(entries, [Entry::Trunk(0), Entry::Never], "{what}");
            assert_eq!(adapter.trainable(), config.trainable(backbone, 3, 6), "{what}");
            if config.starts_as_zero_shot() {
                same(&what, features(backbone, case.pixels(), &adapter), frozen.clone(), 1e-5);
            }
            let adapter = randomised(adapter, 0.3, &plain());
            let whole = features(backbone, case.pixels(), &adapter);
            differs_by(&what, whole.clone(), frozen.clone(), 2e-3);
            for image in 0..case.pixels().dims()[0] {
                let one = features(backbone, case.pixels().narrow(0, image, 1), &adapter);
                same(&what, one, whole.clone().narrow(0, image, 1), 1e-4);
            }
            let folded = backbone.fold(&adapter).expect("an adapter of weights");
            assert_ne!(folded.digest(), backbone.digest(), "{what}");
            same(&format!("{what}, folded"), features(&folded, case.pixels(), &Frozen), whole.clone(), 1e-4);
            let metrics = BTreeMap::new();
            let provenance =
                Provenance { classes: classes(), templates: templates(), data: None, clips: None, metrics };
            let saved = Artifact::new(adapter, config, backbone, provenance).expect("plain names");
            let folder = tempfile::tempdir().expect("a folder");
            saved.save(folder.path()).expect("a writable folder");
            let loaded = Artifact::load(folder.path(), backbone).expect("what was saved");
            assert_eq!(loaded.adapter.parameters(), saved.adapter.parameters(), "{what}");
            same(&format!("{what}, loaded"), features(backbone, case.pixels(), &loaded.adapter), whole, 0.0);
        }
        assert!(backbone.verify(), "{family}: the backbone changed");
    }
}

#[test]
fn gradients_in_a_trunk_reach_what_is_trained_and_nothing_else() {
    for family in FAMILIES {
        let case = Case::open(family);
        let backbone = &case.backbone;
        for config in methods(family) {
            let what = format!("{} on {family}", config.name());
            let adapter = fresh(&config, backbone).unwrap_or_else(|error| panic!("{what}: {error}"));
            let adapter = randomised(adapter, 0.3, &tracked());
            let declared = adapter.parameters().into_keys().filter(|name| !name.ends_with(".fixed")).count();
            let found = backbone.encode_image(case.pixels(), &adapter, &Pass::train(Seed::new(3)));
            let loss = (found.clone() * draws("loss", found.dims(), 1.0, &plain())).sum();
            let (held, found): (Vec<_>, Vec<_>) =
                gradients(&adapter, &loss).into_iter().partition(|one| one.name.ends_with(".fixed"));
            assert!(held.iter().all(|one| one.greatest.is_none()), "{what}: a fixed tensor has a gradient: {held:#?}");
            assert_eq!(found.len(), declared, "{what}");
            for gradient in found {
                let name = &gradient.name;
                let greatest = gradient.greatest.unwrap_or_else(|| panic!("{what}: no gradient reaches `{name}`"));
                assert!(greatest.is_finite() && greatest > 0.0, "{what}: the gradient of `{name}` is {greatest}");
            }
        }
        for site in all_sites(backbone) {
            assert!(!backbone.linear(site).expect("a site").weight.val().is_autodiff(), "{family}: {site}");
        }
        assert!(backbone.verify(), "{family}: the backbone changed");
    }
}

/// Is asked at every site and changes nothing.
struct Onlooker;

impl Sites for Onlooker {
    fn entry(&self, tower: Tower) -> Entry {
        if tower == Tower::Image { Entry::Trunk(0) } else { Entry::Never }
    }
}

#[test]
fn an_adapter_that_changes_nothing_leaves_every_bit_of_a_trunk() {
    for family in FAMILIES {
        let case = Case::open(family);
        let frozen = features(&case.backbone, case.pixels(), &Frozen);
        same(family, features(&case.backbone, case.pixels(), &Onlooker), frozen, 0.0);
    }
    // Nor one that enters every tower at its very first stage, where that is another one.
    let case = Case::open("vit");
    let frozen = features(&case.backbone, case.pixels(), &Frozen);
    same("vit", features(&case.backbone, case.pixels(), &Onlooker), frozen, 0.0);
}

#[test]
fn an_adapter_that_enters_at_block_i_of_a_trunk_goes_on_from_there() {
    let pass = Pass::evaluate();
    for family in FAMILIES {
        let case = Case::open(family);
        let backbone = &case.backbone;
        let spec = &backbone.spec().image;
        let trunk = spec.style.trunk.as_ref().expect("a trunk");
        assert_eq!(backbone.trunk_depth(), trunk.blocks());
        let frozen = features(backbone, case.pixels(), &Frozen);
        for block in 0..trunk.blocks() {
            let what = format!("block {block} of {family}");
            let adapter = lora(&format!("image.trunk.blocks.{block}.*"), backbone);
            assert_eq!(adapter.entry(Tower::Image), Entry::Trunk(block));
            let start = |entry: Entry| backbone.start_image(case.pixels(), entry);
            let whole = backbone.finish(Tower::Image, start(Entry::Trunk(0)), &adapter, &pass);
            differs_by(&what, whole.clone(), frozen.clone(), 2e-3);
            let cached = start(Entry::Trunk(block));
            assert_eq!(cached.entry, Entry::Trunk(block));
            let stream = cached.stream().expect("a map");
            let [side, channels] = trunk.map(spec.size, block);
            assert_eq!(stream.dims(), [case.pixels().dims()[0], side * side, channels], "{what}");
            // What was stored as rows of places goes on like the map itself.
            let stored = Partial::image_stream(cached.entry, stream);
            for partial in [cached.clone(), cached, stored] {
                same(&what, backbone.finish(Tower::Image, partial, &adapter, &pass), whole.clone(), 0.0);
            }
        }
    }
}

#[test]
fn rows_of_a_trunk_with_different_adapters_equal_row_by_row() {
    for family in FAMILIES {
        let case = Case::open(family);
        let backbone = &case.backbone;
        let size = backbone.spec().image.size;
        let pixels = draws("rows of a trunk", [6, 3, size, size], 1.0, &plain());
        let adapted = |name: &str, settings: &str| {
            let adapter = fresh(&method(family, name, settings), backbone).expect("settings that fit");
            randomised(adapter, 0.3, &plain())
        };
        let (early, late) = (lora("image.trunk.*", backbone), lora("image.trunk.blocks.3.*", backbone));
        let (dora, ssf) = (adapted("dora", "rank = 2"), adapted("ssf", ""));
        let members: [&dyn Sites; 6] = [&early, &late, &dora, &Frozen, &early, &ssf];
        let rows = members.iter().map(|member| (1, *member)).collect();
        let together = features(backbone, pixels.clone(), &Mixed::new(rows, Vec::new()));
        for (row, member) in members.iter().enumerate() {
            let alone = features(backbone, pixels.clone().narrow(0, row, 1), *member);
            same(&format!("{family} row {row}"), together.clone().narrow(0, row, 1), alone, 1e-4);
        }
    }
}

#[test]
fn the_sites_of_a_trunk_are_named_and_a_wrong_name_is_told_one() {
    let names = |family: &'static str| -> Vec<String> {
        let case = Case::open(family);
        let trunk = all_sites(&case.backbone).map(|site| site.to_string());
        trunk.filter(|name| name.starts_with("image.trunk.blocks.0.")).collect()
    };
    let name = |layer: &str| format!("image.trunk.blocks.0.{layer}");
    assert_eq!(names("align"), ["reduce", "excite", "project"].map(name));
    assert_eq!(names("resnet"), ["conv1", "conv3", "downsample"].map(name));
    let case = Case::open("resnet");
    let layer = |block: usize, layer: Pointwise| case.backbone.linear(LinearSite::Trunk(TrunkSite::new(block, layer)));
    // Its second block goes from 4 * 4 channels to those of the next stage, 2 * 4 inside and 8 * 4 outside.
    let [first, third, shortcut] = [Pointwise::First, Pointwise::Third, Pointwise::Downsample]
        .map(|one| layer(1, one).expect("a layer of every first block of a stage").weight.val().dims());
    assert_eq!([first, third, shortcut], [[16, 8], [8, 32], [16, 32]]);
    assert!(layer(0, Pointwise::Expand).is_none() && layer(5, Pointwise::First).is_none());
    let config = configured("lora", "targets = [\"image.trunk.*.conv9\"]");
    let refused = fresh(&config, &case.backbone).expect_err("no such layer").to_string();
    assert!(refused.contains("conv9") && refused.contains("image.trunk.blocks.0.conv1"), "{refused}");
}
