//! Rotations by the Cayley transform of skew-symmetric matrices.

use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::values;
use nalgebra::DMatrix;

/// Skew-symmetric matrices `[count, width, width]` from their upper triangles, row by row:
/// `[count, width (width - 1) / 2]`.
pub(super) fn skew_symmetric(triangles: Tensor<2>, width: usize) -> Tensor<3> {
    let [count, entries] = triangles.dims();
    let device = triangles.device();
    // A column of zeros stands for the diagonal; entry (j, i) below it is minus entry (i, j).
    let zeros = Tensor::<2>::zeros([count, 1], &device);
    let both = Tensor::cat(vec![triangles.clone(), -triangles, zeros], 1);
    let mut places = vec![2 * entries as i32; width * width];
    let mut entry = 0;
    for row in 0..width {
        for column in row + 1..width {
            places[row * width + column] = entry;
            places[column * width + row] = entries as i32 + entry;
            entry += 1;
        }
    }
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [width * width]), &device);
    both.select(1, places).reshape([count, width, width])
}

/// Rotations `(I - Q)(I + Q)^-1`, `[count, width, width]`, of the skew-symmetric `Q` with these upper triangles.
///
/// The inverse is found on the host and refined by one Newton step `X (2 I - (I + Q) X)`, which changes no value and carries
/// the gradient of the inverse.
pub(super) fn cayley(triangles: Tensor<2>, width: usize) -> Tensor<3> {
    let q = skew_symmetric(triangles, width);
    let device = q.device();
    let eye = Tensor::<2>::eye(width, &device).unsqueeze::<3>();
    let plus = q.clone() + eye.clone();
    let inverse = inverse(plus.clone().without_autodiff()).to_device(&device);
    let inverse = inverse.clone().matmul(eye.clone() * 2.0 - plus.matmul(inverse));
    (eye - q).matmul(inverse)
}

/// Inverses of matrices `[count, width, width]` of the form `I + Q` with skew `Q`, which always exist.
fn inverse(matrices: Tensor<3>) -> Tensor<3> {
    let [count, width, _] = matrices.dims();
    let device = matrices.device();
    let data = values(matrices);
    let mut found = Vec::with_capacity(data.len());
    for block in data.chunks(width * width) {
        let matrix = DMatrix::from_row_iterator(width, width, block.iter().map(|value| f64::from(*value)));
        let inverse = matrix.try_inverse().unwrap_or_else(|| DMatrix::identity(width, width));
        found.extend(inverse.transpose().iter().map(|value| *value as f32));
    }
    Tensor::from_data(TensorData::new(found, [count, width, width]), &device)
}
