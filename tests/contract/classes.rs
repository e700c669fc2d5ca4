//! Which classes an adapter answers for, that rows and columns do not depend on their neighbours, and that classes may come later.

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::Pass;
use inarch_peft::{Classifier, Error, Start};

use super::case::{artifact, class_features, methods, scores, trained};
use crate::support::{classes, pixels, plain, randomised, same, templates, tiny};

#[test]
fn the_scores_of_an_image_do_not_depend_on_its_batch() {
    let pass = Pass::evaluate();
    for config in methods() {
        let adapter = trained(&config, &plain());
        let together = scores(&config, &adapter, &classes(), pixels(4), &pass);
        for row in 0..4 {
            let alone = scores(&config, &adapter, &classes(), pixels(4).narrow(0, row, 1), &pass);
            same(config.name(), together.clone().narrow(0, row, 1), alone, 1e-5);
        }
        let reversed = scores(&config, &adapter, &classes(), pixels(4).flip([0]), &pass);
        same(config.name(), reversed.flip([0]), together, 1e-5);
    }
}

#[test]
fn a_subset_of_the_classes_in_another_order_gets_the_same_scores() {
    let pass = Pass::evaluate();
    let order = [3, 0, 2];
    let subset: Vec<String> = order.iter().map(|at| classes()[*at].clone()).collect();
    for config in methods() {
        let adapter = trained(&config, &plain());
        let all = scores(&config, &adapter, &classes(), pixels(2), &pass);
        let expected = Tensor::cat(order.iter().map(|at| all.clone().narrow(1, *at, 1)).collect(), 1);
        same(config.name(), scores(&config, &adapter, &subset, pixels(2), &pass), expected, 1e-5);
    }
}

#[test]
fn classes_that_come_later_leave_the_scores_of_those_before_as_they_are() {
    let (all, pass) = (classes(), Pass::evaluate());
    let known = &all[..2];
    // Methods that start from the images of all classes are not trained on.
    for config in methods().into_iter().filter(|config| !config.needs_support()) {
        let of = |count: usize, seed: u64| {
            let (features, device) = (class_features().narrow(0, 0, count), plain());
            let made = config.init(&Start::new(tiny(), &features, Seed::new(seed), &device));
            made.unwrap_or_else(|error| panic!("{}: {error}", config.name()))
        };
        let before = randomised(of(known.len(), 1), 0.3, &plain());
        let grown = of(all.len(), 2).grown_from(&before.parameters(), known.len(), all.len(), &plain());
        let grown = grown.unwrap_or_else(|reason| panic!("{}: {reason}", config.name()));
        let [found, expected] = [&grown, &before].map(|adapter| scores(&config, adapter, known, pixels(2), &pass));
        same(config.name(), found, expected, 1e-5);
    }
}

#[test]
fn a_class_that_was_never_trained_is_refused_where_it_needs_a_row() {
    let others = ["cat".to_string(), "zebra".to_string()];
    for config in methods() {
        let artifact = artifact(&config);
        match (config.bound_to_classes(), artifact.classifier(tiny(), Some(&others))) {
            (true, Err(Error::UnknownClass { class, method, known, candidates })) => {
                assert_eq!((class.as_str(), method, known), ("zebra", config.name(), 4));
                assert_eq!(candidates, classes());
            }
            (false, Ok(classifier)) => assert_eq!(classifier.classes(), &others),
            (bound, answer) => panic!("{}: bound {bound}, answer {:?}", config.name(), answer.map(drop)),
        }
        let own = artifact.classifier(tiny(), None).expect("its own classes");
        assert_eq!(own.classes(), &classes());
        let none: [String; 0] = [];
        assert!(artifact.classifier(tiny(), Some(&none)).is_err(), "{}: no class at all", config.name());
    }
}

#[test]
fn a_class_whose_name_would_be_cut_is_refused() {
    let long = vec!["one two three four five six seven eight nine ten eleven twelve".to_string()];
    let error = Classifier::zero_shot(tiny(), &long, &templates()).expect_err("a prompt over the context").to_string();
    assert!(error.contains("eleven") && error.contains("20 tokens"), "{error}");
}
