//! The measures of a report equal scikit-learn's.
//!
//! The fixture is made by `generate.py` beside this file. Tolerance: 1e-9, both sums being in double precision; scores are
//! the log-probabilities of the same single-precision logits, so that ties are the same ties. Intervals over patients are
//! compared with `groups.json`, which `groups.py` draws with numpy.

use inarch_core::metrics::{ClassRanking, Detail, DetailConfig, Metrics, RankingConfig};
use serde_json::Value;

use crate::support::fixture;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|value| value.as_f64().expect("a number")).collect()
}

#[track_caller]
fn close(found: Option<f64>, expected: &Value, what: &str) {
    let (found, expected) = (found.expect(what), expected.as_f64().expect("a number"));
    assert!((found - expected).abs() < 1e-9, "{what}: {found} {expected}");
}

#[test]
fn every_case_equals_scikit_learn() {
    let text = std::fs::read_to_string(fixture("parity/measures/expected.json")).expect("the fixture");
    let root: Value = serde_json::from_str(&text).expect("JSON");
    let mut config = DetailConfig::default();
    config.ranking.specificity = root["specificity"].as_f64().expect("a number");
    config.ranking.resamples = 0;
    let cases = root["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let classes = case["classes"].as_u64().expect("a number") as usize;
        let logits: Vec<f32> = numbers(&case["logits"]).iter().map(|value| *value as f32).collect();
        let labels: Vec<usize> = numbers(&case["labels"]).iter().map(|value| *value as usize).collect();
        let detail = if case["several"] == true {
            let truth: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
            let detail = Detail::from_labels(&logits, classes, &truth, None, config).expect("valid scores");
            close(detail.mean_average_precision, &case["map"], "mAP");
            detail
        } else {
            let metrics = Metrics::from_logits(&logits, classes, &labels).expect("valid logits");
            close(Some(metrics.macro_f1), &case["macro_f1"], "macro F1");
            let detail = Detail::from_logits(&logits, classes, &labels, None, config).expect("valid logits");
            close(detail.balanced_accuracy, &case["balanced_accuracy"], "balanced accuracy");
            detail
        };
        close(detail.auroc, &case["auroc"], "AUROC");
        for (found, expected) in detail.ranking.iter().zip(case["per_class"].as_array().expect("classes")) {
            let found = found.as_ref().expect("both kinds of examples");
            close(Some(found.auroc.value), &expected["auroc"], "AUROC of a class");
            close(Some(found.average_precision.value), &expected["average_precision"], "average precision");
            close(Some(found.sensitivity.value), &expected["sensitivity"], "sensitivity");
        }
    }
}

/// The draws are others than numpy's, so the ends of an interval agree as far as so many resamples settle them: their
/// spread is 0.002.
#[test]
fn intervals_over_patients_are_those_of_a_cluster_bootstrap() {
    let text = std::fs::read_to_string(fixture("parity/measures/groups.json")).expect("the fixture");
    let root: Value = serde_json::from_str(&text).expect("JSON");
    let scores = numbers(&root["scores"]);
    let positive: Vec<bool> = numbers(&root["positive"]).iter().map(|value| *value == 1.0).collect();
    let groups: Vec<usize> = numbers(&root["groups"]).iter().map(|value| *value as usize).collect();
    let config = RankingConfig { resamples: 20_000, ..RankingConfig::default() };
    let found = ClassRanking::grouped(&scores, &positive, &groups, config).expect("both kinds");
    let apart = ClassRanking::of(&scores, &positive, config).expect("both kinds");
    for (name, found, apart) in
        [("auroc", found.auroc, apart.auroc), ("average_precision", found.average_precision, apart.average_precision)]
    {
        close(Some(found.value), &root[name]["value"], name);
        let (ends, expected) = (found.interval.expect("resamples"), numbers(&root[name]["interval"]));
        for (found, expected) in ends.iter().zip(&expected) {
            assert!((found - expected).abs() < 0.01, "{name}: {ends:?} {expected:?}");
        }
        // Images drawn one by one look surer than they are.
        let width = |[low, high]: [f64; 2]| high - low;
        assert!(width(apart.interval.expect("resamples")) < 0.8 * width(ends), "{name}: {:?} {ends:?}", apart.interval);
    }
}
