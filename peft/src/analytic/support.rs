//! Statistics of the training images that a method starts from.

use inarch_core::backbone::values;

use super::{Analytic, Rows, Statistics};
use crate::error::Result;
use crate::method::Start;

/// Names of the classes of a start, which knows only their number.
pub(super) fn class_names(start: &Start<'_>) -> Vec<String> {
    (0..start.classes()).map(|class| class.to_string()).collect()
}

/// The statistics of the training images, every view a sample; empty without images.
pub(super) fn statistics_of(method: &dyn Analytic, start: &Start<'_>) -> Result<Statistics> {
    let mut statistics = method.statistics(start.backbone.spec().dim)?;
    if let Some(support) = start.support {
        let labels = support.row_labels();
        let classes: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let ids: Vec<String> = (0..labels.len()).map(|row| (row / support.views).to_string()).collect();
        // Views of one image share an id, so that none of them is held from the others; stored samples need their own.
        let ids = if statistics.stores_samples() { (0..ids.len()).map(|row| row.to_string()).collect() } else { ids };
        statistics.add(&Rows { ids: &ids, classes: &classes, features: &values(support.features.clone()) })?;
    }
    Ok(statistics)
}
