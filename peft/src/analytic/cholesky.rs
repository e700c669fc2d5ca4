//! Cholesky factors in blocks: nearly all work is in matrix products, which are fast.

use nalgebra::DMatrix;

/// Rows of a block.
const BLOCK: usize = 96;

/// The lower factor of a symmetric positive definite matrix.
pub(super) struct Cholesky {
    lower: DMatrix<f64>,
}

impl Cholesky {
    /// Factors a matrix of which only the lower triangle is read; `None` when it is not positive definite.
    pub(super) fn new(mut matrix: DMatrix<f64>) -> Option<Self> {
        let size = matrix.nrows();
        for from in (0..size).step_by(BLOCK) {
            let width = BLOCK.min(size - from);
            let to = from + width;
            let corner = nalgebra::Cholesky::new(matrix.view((from, from), (width, width)).into_owned())?.unpack();
            matrix.view_mut((from, from), (width, width)).copy_from(&corner);
            if to == size {
                break;
            }
            // The panel below: X L^T = A, so L X^T = A^T.
            let panel = matrix.view((to, from), (size - to, width)).transpose();
            let panel = corner.solve_lower_triangular(&panel)?;
            matrix.view_mut((to, from), (size - to, width)).copy_from(&panel.transpose());
            // The rest, one column of blocks after the other, below the diagonal only.
            for column in (to..size).step_by(BLOCK) {
                let columns = BLOCK.min(size - column);
                let left = panel.columns(column - to, size - column).transpose();
                let right = panel.columns(column - to, columns);
                matrix.view_mut((column, column), (size - column, columns)).gemm(-1.0, &left, &right, 1.0);
            }
        }
        Some(Self { lower: matrix })
    }

    /// `X` with `L L^T X = B`.
    pub(super) fn solve(&self, mut right: DMatrix<f64>) -> DMatrix<f64> {
        let (size, columns) = right.shape();
        let starts: Vec<usize> = (0..size).step_by(BLOCK).collect();
        for &from in &starts {
            let width = BLOCK.min(size - from);
            let done = right.rows(0, from).into_owned();
            let mut block = right.view_mut((from, 0), (width, columns));
            if from > 0 {
                block.gemm(-1.0, &self.lower.view((from, 0), (width, from)), &done, 1.0);
            }
            self.lower.view((from, from), (width, width)).solve_lower_triangular_mut(&mut block);
        }
        for &from in starts.iter().rev() {
            let width = BLOCK.min(size - from);
            let to = from + width;
            let done = right.rows(to, size - to).into_owned();
            let mut block = right.view_mut((from, 0), (width, columns));
            if to < size {
                let below = self.lower.view((to, from), (size - to, width)).transpose();
                block.gemm(-1.0, &below, &done, 1.0);
            }
            self.lower.view((from, from), (width, width)).tr_solve_lower_triangular_mut(&mut block);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::Cholesky;

    #[test]
    fn blocks_solve_what_they_were_given() {
        for size in [1, 7, 96, 97, 250] {
            let root =
                DMatrix::from_fn(size, size + 3, |row, column| ((row * 31 + column * 17) % 23) as f64 / 7.0 - 1.5);
            let matrix = &root * root.transpose() + DMatrix::identity(size, size) * 0.5;
            let right = DMatrix::from_fn(size, 3, |row, column| (row as f64 - column as f64).sin());
            let solved = Cholesky::new(matrix.clone()).expect("positive definite").solve(right.clone());
            assert!((matrix * solved - right).norm() < 1e-8, "{size}");
        }
        assert!(Cholesky::new(DMatrix::from_diagonal_element(3, 3, -1.0)).is_none());
    }
}
