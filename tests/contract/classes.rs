//! Which classes an adapter answers for, and that rows and columns do not depend on their neighbours.

use burn::tensor::Tensor;
use inarch_core::backbone::Pass;
use inarch_peft::{Classifier, Error};

use super::case::{artifact, methods, scores, trained};
use crate::support::{classes, pixels, plain, same, templates, tiny};

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
