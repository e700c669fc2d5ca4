//! Merged adapters equal those of HF PEFT; `generate.py` beside this file made the expected ones.

use std::collections::BTreeMap;

use inarch_core::backbone::{Sites as _, StateDict, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{Artifact, Combination, LoraConfig, Merge, MethodConfig, Provenance, all_sites};

use crate::support::{begin, close, fixture, plain, tiny};

const WEIGHTS: [f64; 2] = [0.7, -0.4];

fn expected() -> StateDict {
    read_safetensors(&fixture("parity/combine/expected.safetensors")).expect("a fixture").0
}

/// One of the two adapters of the fixture.
fn part(name: &str) -> Artifact {
    let targets = ["image.blocks.0.q_proj", "text.blocks.1.fc1"].map(String::from).to_vec();
    let config =
        LoraConfig { rank: 2, alpha: 4.0, rank_stabilised: false, dropout: 0.0, targets, ..LoraConfig::default() };
    let tensors = expected()
        .into_iter()
        .filter_map(|(key, tensor)| Some((format!("sites.{}", key.strip_prefix(&format!("{name}."))?), tensor)))
        .collect();
    let adapter = inarch_peft::Adapter::Lora(begin(&config, &plain()).expect("sites of the tiny backbone"));
    let adapter = adapter.with_parameters(tensors, &plain()).expect("the shapes of the fixture");
    let provenance = Provenance {
        classes: crate::support::classes(),
        templates: crate::support::templates(),
        data: None,
        clips: None,
        metrics: BTreeMap::new(),
    };
    Artifact::new(adapter, MethodConfig::Lora(config), tiny(), provenance).expect("plain names")
}

/// The change that an adapter makes to the weights, by site.
fn changes(artifact: &Artifact) -> BTreeMap<String, Vec<f32>> {
    let change = |site| {
        let layer = tiny().linear(site)?;
        let folded = artifact.adapter.fold(site, &layer)?;
        Some((site.to_string(), values(folded.weight.val() - layer.weight.val())))
    };
    all_sites(tiny()).filter_map(change).collect()
}

#[test]
fn merged_adapters_equal_those_of_peft() {
    let parts = [part("first"), part("second")];
    let expected = expected();
    for merge in [Merge::Linear, Merge::Ties, Merge::MagnitudePrune] {
        let combination = Combination { merge, weights: WEIGHTS.to_vec(), rank: Some(3), ..Combination::default() };
        let combined = combination.combine(&parts, tiny()).expect("two adapters of one backbone");
        assert_eq!(combined.manifest.parents.len(), 2);
        let name = serde_json::to_value(merge).expect("a name");
        let found = changes(&combined);
        assert_eq!(found.len(), 2);
        for (site, found) in found {
            let key = format!("{}.{site}", name.as_str().expect("a name"));
            // Both round to single precision, PEFT before its decomposition.
            close(&key, &found, &expected[&key].data, 1e-5);
        }
    }
}

#[test]
fn an_exact_sum_has_the_rank_of_its_parts_and_keeps_everything() {
    let parts = [part("first"), part("second")];
    let combination = Combination { weights: WEIGHTS.to_vec(), ..Combination::default() };
    let combined = combination.combine(&parts, tiny()).expect("two adapters of one backbone");
    let MethodConfig::Lora(config) = &combined.manifest.method else { panic!("{:?}", combined.manifest.method) };
    assert_eq!(config.rank, 4);
    let [first, second] = [0, 1].map(|at: usize| changes(&parts[at]));
    for (site, found) in changes(&combined) {
        let sum: Vec<f32> =
            first[&site].iter().zip(&second[&site]).map(|(first, second)| 0.7 * first - 0.4 * second).collect();
        close(&site, &found, &sum, 1e-5);
    }
}

#[test]
fn equal_adapters_merge_to_themselves_where_no_weights_are_given() {
    let parts = [part("first"), part("first")];
    let original = changes(&parts[0]);
    for merge in [Merge::Linear, Merge::MagnitudePrune, Merge::Ties, Merge::DareLinear, Merge::DareTies] {
        let combination = Combination { merge, density: 1.0, ..Combination::default() };
        for (site, found) in changes(&combination.combine(&parts, tiny()).expect("two adapters of one backbone")) {
            close(&format!("{merge:?} {site}"), &found, &original[&site], 1e-5);
        }
    }
}

#[test]
fn dropping_at_random_keeps_the_share_and_the_mean_and_follows_the_seed() {
    let one = [part("first")];
    let combine = |merge, density, seed| {
        let combination = Combination { merge, weights: vec![1.0], density, seed, ..Combination::default() };
        changes(&combination.combine(&one, tiny()).expect("one adapter"))
    };
    let [whole, again, other] = [(1.0, 1), (0.5, 1), (0.5, 2)].map(|(d, seed)| combine(Merge::DareLinear, d, seed));
    let original = changes(&one[0]);
    for (site, values) in &whole {
        close(site, values, &original[site], 1e-5);
    }
    assert_ne!(again, other);
    assert_eq!(again, combine(Merge::DareLinear, 0.5, 1));
    for (site, values) in &again {
        let kept = values.iter().filter(|value| value.abs() > 1e-4).count() as f64 / values.len() as f64;
        assert!((kept - 0.5).abs() < 0.06, "{site}: {kept} of the entries are kept");
    }
    // With everything kept, the elected sign of one adapter is its own.
    for (site, values) in combine(Merge::DareTies, 1.0, 1) {
        close(&site, &values, &original[&site], 1e-5);
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let parts = [part("first"), part("second")];
    let message = |combination: Combination, parts: &[Artifact]| {
        combination.combine(parts, tiny()).expect_err("no combination").to_string()
    };
    let base = Combination::default;
    assert!(message(Combination { weights: vec![1.0], ..base() }, &parts).contains("one for each adapter"));
    assert!(message(Combination { weights: vec![1.0, f64::NAN], ..base() }, &parts).contains("numbers"));
    assert!(message(Combination { rank: Some(0), ..base() }, &parts).contains("rank"));
    assert!(message(Combination { density: 0.0, ..base() }, &parts).contains("density"));
    assert!(message(base(), &[]).contains("at least one"));
    assert!(
        message(Combination { weights: vec![1.0, -1.0], ..base() }, &[parts[0].clone(), parts[0].clone()])
            .contains("nothing is left")
    );
}
