//! Rows that belong to classes.

use burn::tensor::Tensor;
use inarch_core::backbone::{Pass, indices};

/// The rows `[count, dim]` of the classes at hand, from rows `[classes, dim]` of all that were trained. Where prompts
/// depend on the image, the classes repeat for each image.
pub(crate) fn class_rows(rows: Tensor<2>, count: usize, pass: &Pass<'_>) -> Tensor<2> {
    let [trained, dim] = rows.dims();
    let rows = match pass.classes {
        None => rows,
        Some(classes) if classes.len() == trained && classes.iter().enumerate().all(|(row, class)| row == *class) => {
            rows
        }
        Some(classes) => {
            let ids = indices(classes.iter().copied(), &rows.device());
            rows.select(0, ids)
        }
    };
    let [classes, _] = rows.dims();
    if count <= classes {
        return rows;
    }
    let images = count / classes;
    rows.unsqueeze::<3>().expand([images, classes, dim]).reshape([images * classes, dim])
}
