//! Small dense linear algebra on the host, in double precision. Deterministic on every device.

use burn::tensor::Tensor;
use inarch_core::backbone::values;
use nalgebra::DMatrix;

/// The leading part of a singular value decomposition, `m = u diag(s) v^T`.
pub(crate) struct Svd {
    /// `[rows, rank]`, orthonormal columns.
    pub(crate) u: DMatrix<f64>,
    /// Descending.
    pub(crate) s: Vec<f64>,
    /// `[columns, rank]`, orthonormal columns.
    pub(crate) v: DMatrix<f64>,
}

impl Svd {
    /// The `rank` greatest singular values and vectors; fewer when the matrix has fewer. The sign of each pair is fixed
    /// by a positive greatest entry of its left vector, so that the result does not depend on the algorithm.
    pub(crate) fn leading(matrix: &DMatrix<f64>, rank: usize) -> Self {
        // The decomposition is faster and more accurate for tall matrices.
        let (rows, columns) = matrix.shape();
        if rows < columns {
            let Self { u, s, v } = Self::leading(&matrix.transpose(), rank);
            return Self { u: v, s, v: u }.signed();
        }
        let svd = matrix.clone().svd(true, true);
        let (Some(u), Some(v)) = (svd.u, svd.v_t.map(|v| v.transpose())) else {
            unreachable!("both factors were asked for")
        };
        let mut order: Vec<usize> = (0..svd.singular_values.len()).collect();
        order.sort_by(|left, right| svd.singular_values[*right].total_cmp(&svd.singular_values[*left]));
        order.truncate(rank);
        let s = order.iter().map(|at| svd.singular_values[*at]).collect();
        Self { u: u.select_columns(&order), s, v: v.select_columns(&order) }.signed()
    }

    fn signed(mut self) -> Self {
        for column in 0..self.s.len() {
            let greatest = self
                .u
                .column(column)
                .iter()
                .copied()
                .fold(0.0f64, |greatest, value| if value.abs() > greatest.abs() { value } else { greatest });
            if greatest < 0.0 {
                self.u.column_mut(column).neg_mut();
                self.v.column_mut(column).neg_mut();
            }
        }
        self
    }
}

/// A matrix on the host.
pub(crate) fn to_host(tensor: Tensor<2>) -> DMatrix<f64> {
    let [rows, columns] = tensor.dims();
    DMatrix::from_row_iterator(rows, columns, values(tensor).into_iter().map(f64::from))
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::Svd;

    #[test]
    fn all_singular_values_give_the_matrix_back_and_fewer_the_nearest_one() {
        for (rows, columns) in [(5, 3), (3, 5), (4, 4)] {
            let matrix = DMatrix::from_fn(rows, columns, |row, column| ((row * 7 + column * 3) % 11) as f64 - 4.0);
            let whole = Svd::leading(&matrix, 99);
            let back = &whole.u * DMatrix::from_diagonal(&whole.s.clone().into()) * whole.v.transpose();
            assert!((back - &matrix).norm() < 1e-10);
            let part = Svd::leading(&matrix, 2);
            let near = &part.u * DMatrix::from_diagonal(&part.s.clone().into()) * part.v.transpose();
            let rest: f64 = whole.s[2..].iter().map(|s| s * s).sum();
            assert!(((near - &matrix).norm() - rest.sqrt()).abs() < 1e-10);
            assert!(part.u.column(0).iter().any(|value| *value > 0.0));
        }
    }
}
