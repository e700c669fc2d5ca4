//! MTIL's Transfer, Avg and Last equal the figures that the authors printed for their matrices; `generate.py` beside this file
//! read both out of their notebook.

use inarch_continual::AccuracyMatrix;
use serde::Deserialize;

use crate::support::fixture;

#[derive(Deserialize)]
struct Case {
    source: String,
    matrix: Vec<Vec<f64>>,
    transfer: f64,
    avg: f64,
    last: f64,
}

#[test]
fn the_published_matrices_give_the_published_figures() {
    let text = std::fs::read_to_string(fixture("continual/mtil/matrices.json")).expect("a fixture");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("what the generator wrote");
    assert_eq!(cases.len(), 18);
    for case in cases {
        let rows = case.matrix.iter().map(|row| row.iter().map(|value| Some(value / 100.0)).collect()).collect();
        let measures = AccuracyMatrix { rows }.measures(&[]);
        for (name, found, expected) in [
            ("transfer", measures.transfer, case.transfer),
            ("avg", measures.mtil_average, case.avg),
            ("last", measures.last, case.last),
        ] {
            let found = 100.0 * found.expect("a full matrix");
            // Printed with one decimal; the matrix itself is printed with six digits.
            assert!((found - expected).abs() <= 0.05 + 1e-4, "{} {name}: {found} {expected}", case.source);
        }
    }
}
