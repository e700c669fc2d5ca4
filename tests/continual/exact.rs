//! Learning in parts gives the adapter of all data, and forgetting the adapter of the rest, to the last digits.

use inarch_core::Seed;
use inarch_core::backbone::{Pass, values};
use inarch_peft::{Adapter, MethodConfig, Rows, Start, Statistics};

use crate::contract::case::{configured, scores};
use crate::support::{classes, pixels, plain, tiny};

/// Methods that are solved from statistics, in a size that fits the tiny backbone.
fn analytic() -> Vec<MethodConfig> {
    let settings = [
        ("simple-cil", ""),
        ("ranpac", "projections = 40"),
        ("acil", "projections = 40"),
        ("rail", "projections = 40"),
        ("rail", "projections = 40\nlambda = 0.5\nprior = false"),
        ("rail-dual", ""),
        ("fecam", ""),
    ];
    settings.map(|(name, settings)| configured(name, settings)).into()
}

struct Samples {
    ids: Vec<String>,
    classes: Vec<String>,
    features: Vec<f32>,
}

fn samples(count: usize) -> Samples {
    let dim = tiny().spec().dim;
    let classes = classes();
    let mut features = Seed::new(5).normals(count * dim, 1.0);
    // Each class leans to its own side.
    for at in 0..count {
        features[at * dim + at % 4] += 1.5;
    }
    Samples {
        ids: (0..count).map(|at| format!("{at}")).collect(),
        classes: (0..count).map(|at| classes[at % 4].clone()).collect(),
        features,
    }
}

impl Samples {
    fn rows(&self, range: std::ops::Range<usize>) -> Rows<'_> {
        let dim = tiny().spec().dim;
        Rows {
            ids: &self.ids[range.clone()],
            classes: &self.classes[range.clone()],
            features: &self.features[range.start * dim..range.end * dim],
        }
    }
}

fn solved(method: &MethodConfig, statistics: &Statistics) -> Adapter {
    let features = inarch_peft::Classifier::zero_shot(tiny(), &classes(), &crate::support::templates())
        .expect("plain names")
        .features(&inarch_core::backbone::Frozen);
    let device = plain();
    let start = Start::new(tiny(), &features, Seed::new(0), &device);
    method.analytic().expect("an analytic method").solve(statistics, &classes(), &start).expect("solves")
}

fn found(method: &MethodConfig, statistics: &Statistics) -> Vec<f32> {
    values(scores(method, &solved(method, statistics), &classes(), pixels(3), &Pass::evaluate()))
}

#[track_caller]
fn alike(method: &MethodConfig, left: &[f32], right: &[f32]) {
    for (left, right) in left.iter().zip(right) {
        assert!((left - right).abs() <= 1e-5 * left.abs().max(1.0), "{}: {left} {right}", method.name());
    }
}

#[test]
fn parts_in_any_order_give_the_head_of_all_and_a_removal_the_head_of_the_rest() {
    let samples = samples(80);
    for method in analytic() {
        let empty = || method.analytic().expect("analytic").statistics(tiny().spec().dim).expect("valid settings");
        let of = |parts: &[(usize, usize)]| {
            let mut statistics = empty();
            parts.iter().for_each(|(from, to)| statistics.add(&samples.rows(*from..*to)).expect("adds"));
            statistics
        };
        let whole = of(&[(0, 80)]);
        let mut merged = of(&[(50, 80), (0, 9)]);
        merged.merge(&of(&[(9, 50)])).expect("merges");
        assert!(whole.distance(&merged) < 1e-13, "{}: {}", method.name(), whole.distance(&merged));
        alike(&method, &found(&method, &whole), &found(&method, &merged));

        merged.remove(&samples.rows(0..9)).expect("removes");
        let rest = of(&[(9, 80)]);
        assert!(rest.distance(&merged) < 1e-13, "{}: {}", method.name(), rest.distance(&merged));
        alike(&method, &found(&method, &rest), &found(&method, &merged));
        assert_ne!(found(&method, &whole), found(&method, &merged), "{}", method.name());

        // Two sites that started from one version: what they share counts once.
        let (base, mut left, mut right) = (of(&[(0, 20)]), of(&[(0, 50)]), of(&[(0, 20), (50, 80)]));
        right.subtract(&base).expect("subtracts");
        left.merge(&right).expect("merges");
        assert!(whole.distance(&left) < 1e-13, "{}", method.name());
        let read = Statistics::decode(&left.encode()).expect("what was written");
        assert_eq!(read.distance(&left), 0.0, "{}", method.name());
    }
}

#[test]
fn a_class_without_samples_is_no_fault_and_never_the_nearest() {
    let (samples, dim) = (samples(80), tiny().spec().dim);
    let three: Vec<usize> = (0..80).filter(|at| at % 4 < 3).collect();
    let ids: Vec<String> = three.iter().map(|at| samples.ids[*at].clone()).collect();
    let names: Vec<String> = three.iter().map(|at| samples.classes[*at].clone()).collect();
    let features: Vec<f32> = three.iter().flat_map(|at| &samples.features[at * dim..(at + 1) * dim]).copied().collect();
    for method in analytic() {
        let mut statistics = method.analytic().expect("analytic").statistics(dim).expect("valid settings");
        statistics.add(&Rows { ids: &ids, classes: &names, features: &features }).expect("adds");
        let scores = found(&method, &statistics);
        assert!(scores.iter().all(|score| score.is_finite()), "{}: {scores:?}", method.name());
        // Zeros would be a mean as near as any, and an image that is a little apart from the others nearest to it.
        if method.name() == "fecam" {
            for row in scores.chunks_exact(4) {
                assert!(row[..3].iter().all(|score| *score > row[3]), "{row:?}");
            }
        }
    }
    // A single sample has no covariance.
    let fecam = configured("fecam", "");
    let mut statistics = fecam.analytic().expect("analytic").statistics(dim).expect("valid settings");
    statistics.add(&samples.rows(0..4)).expect("adds");
    let scores = found(&fecam, &statistics);
    assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
}

#[test]
fn a_class_without_a_row_is_left_to_zero_shot() {
    let samples = samples(80);
    let known: Vec<String> = classes()[..2].to_vec();
    for method in [configured("rail", "projections = 40"), configured("rail-dual", "")] {
        let mut statistics = method.analytic().expect("analytic").statistics(tiny().spec().dim).expect("valid");
        let two: Vec<usize> = (0..80).filter(|at| at % 4 < 2).collect();
        let dim = tiny().spec().dim;
        statistics
            .add(&Rows {
                ids: &two.iter().map(|at| samples.ids[*at].clone()).collect::<Vec<_>>(),
                classes: &two.iter().map(|at| samples.classes[*at].clone()).collect::<Vec<_>>(),
                features: &two
                    .iter()
                    .flat_map(|at| &samples.features[at * dim..(at + 1) * dim])
                    .copied()
                    .collect::<Vec<_>>(),
            })
            .expect("adds");
        let templates = crate::support::templates();
        let zero_shot = inarch_peft::Classifier::zero_shot(tiny(), &classes(), &templates).expect("plain names");
        let frozen = inarch_core::backbone::Frozen;
        let text = zero_shot.features(&frozen);
        let device = plain();
        let known_text = text.clone().narrow(0, 0, 2);
        let start = Start::new(tiny(), &known_text, Seed::new(0), &device);
        let adapter = method.analytic().expect("analytic").solve(&statistics, &known, &start).expect("solves");
        let classifier =
            inarch_peft::Classifier::adapted(tiny(), &method, &known, &classes(), &templates).expect("open to others");
        let pass = Pass::evaluate();
        let images = tiny().encode_image(pixels(16), &frozen, &pass);
        let of = |rows: Vec<f32>| rows.chunks_exact(4).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let expected = of(values(zero_shot.logits(&images, &text, &frozen, &pass)));
        let adapted_text = classifier.text(classifier.start(adapter.sites()), adapter.sites(), &pass);
        let found = of(values(classifier.logits(&images, &adapted_text, adapter.sites(), &pass)));
        let best = |row: &[f32]| (1..4).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        for (expected, found) in expected.iter().zip(&found) {
            match best(expected) {
                other @ 2.. => assert_eq!(best(found), other, "{}", method.name()),
                _ => assert!(best(found) < 2, "{}: {found:?}", method.name()),
            }
        }
    }
}
