//! What images are told apart by: their frozen features.

use inarch_core::data::Example;
use inarch_recipes::Session;

use crate::error::Result;

/// The frozen features of images `[images][dim]`, of length 1.
pub(super) fn unit_features(session: &Session<'_>, examples: &[Example]) -> Result<Vec<Vec<f64>>> {
    let features = session.features(examples)?;
    let unit = |row: &[f32]| -> Vec<f64> {
        let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
        row.iter().map(|value| f64::from(*value) / length).collect()
    };
    Ok(features.values.chunks_exact(features.dim).map(unit).collect())
}
