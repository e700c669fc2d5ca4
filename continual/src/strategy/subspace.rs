//! What the inputs of a layer have needed so far, as a subspace of growing dimension that is stored by whichever of its
//! two sides is smaller (DualGPM: Liang and Li, CVPR 2023, in InfLoRA: arXiv 2404.00228, section 3.3).

use inarch_core::backbone::HostTensor;
use nalgebra::{DMatrix, SymmetricEigen};

/// Below this share of the inputs' energy a direction is rounding.
const NEGLIGIBLE: f64 = 1e-6;

/// A subspace `S` of `R^width`, by an orthonormal basis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subspace {
    side: Side,
    /// `[width, dimension]`.
    basis: DMatrix<f64>,
}

/// Which side of a subspace a basis spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The subspace.
    Inside,
    /// What is orthogonal to it.
    Outside,
}

impl Subspace {
    /// The subspace of no direction.
    pub(super) fn none(width: usize) -> Self {
        Self { side: Side::Inside, basis: DMatrix::zeros(width, 0) }
    }

    /// `P C P` for a symmetric `C` `[width, width]` with the projection `P` on what is orthogonal to the subspace.
    pub(super) fn outside(&self, moment: &DMatrix<f64>) -> DMatrix<f64> {
        let project = |matrix: &DMatrix<f64>| {
            let kept = &self.basis * (self.basis.transpose() * matrix);
            match self.side {
                Side::Inside => matrix - kept,
                Side::Outside => kept,
            }
        };
        let projected = project(&project(moment).transpose());
        (&projected + projected.transpose()) * 0.5
    }

    /// With the fewest greatest directions of inputs of the second moment `C` that let the subspace hold the share
    /// `threshold` of their energy `tr C`. Values are rounded to those that are stored, so that a run that goes on from
    /// a file goes on from the same.
    pub(super) fn extended(self, moment: &DMatrix<f64>, threshold: f64) -> Self {
        let total = moment.trace();
        let left = self.outside(moment);
        let mut missing = left.trace() - (1.0 - threshold) * total;
        let (energies, directions) = descending(left);
        let mut count = 0;
        while count < energies.len() && missing > 0.0 && energies[count] > NEGLIGIBLE * total {
            missing -= energies[count];
            count += 1;
        }
        let fresh = directions.columns(0, count);
        let width = moment.nrows();
        let basis = match self.side {
            Side::Inside => DMatrix::from_fn(width, self.basis.ncols() + count, |row, at| {
                let own = self.basis.ncols();
                if at < own { self.basis[(row, at)] } else { fresh[(row, at - own)] }
            }),
            Side::Outside => {
                let left = &self.basis - fresh * (fresh.transpose() * &self.basis);
                span(&left, self.basis.ncols().saturating_sub(count))
            }
        };
        Self { side: self.side, basis }.by_the_smaller_side().rounded()
    }

    fn by_the_smaller_side(self) -> Self {
        let (width, dimension) = self.basis.shape();
        if 2 * dimension <= width {
            return self;
        }
        let side = match self.side {
            Side::Inside => Side::Outside,
            Side::Outside => Side::Inside,
        };
        let rest = DMatrix::identity(width, width) - &self.basis * self.basis.transpose();
        Self { side, basis: span(&rest, width - dimension) }
    }

    fn rounded(mut self) -> Self {
        self.basis.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        self
    }

    /// For a file: a name made of that of the site, and the basis `[width, dimension]`.
    pub(super) fn saved(&self, site: &str) -> (String, HostTensor) {
        let side = match self.side {
            Side::Inside => "inside",
            Side::Outside => "outside",
        };
        let name = format!("{site}.{side}");
        let data = self.basis.transpose().iter().map(|value| *value as f32).collect();
        (name.clone(), HostTensor { shape: vec![self.basis.nrows(), self.basis.ncols()], data, origin: name })
    }

    /// From a file, with the name of the site.
    pub(super) fn read(name: &str, tensor: &HostTensor) -> Option<(String, Self)> {
        let (site, side) = name.rsplit_once('.')?;
        let side = match side {
            "inside" => Side::Inside,
            "outside" => Side::Outside,
            _ => return None,
        };
        let [width, dimension] = tensor.shape[..] else { return None };
        let values = tensor.data.iter().map(|value| f64::from(*value));
        Some((site.to_string(), Self { side, basis: DMatrix::from_row_iterator(width, dimension, values) }))
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix, the greatest first.
fn descending(matrix: DMatrix<f64>) -> (Vec<f64>, DMatrix<f64>) {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(matrix);
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|left, right| eigenvalues[*right].total_cmp(&eigenvalues[*left]));
    (order.iter().map(|at| eigenvalues[*at]).collect(), eigenvectors.select_columns(&order))
}

/// An orthonormal basis `[width, dimension]` of the greatest directions of the columns of a matrix.
fn span(columns: &DMatrix<f64>, dimension: usize) -> DMatrix<f64> {
    descending(columns * columns.transpose()).1.columns(0, dimension).into_owned()
}

/// The `rank` greatest directions of a second moment, `[width, rank]`; zeros where the rest is less than rounding of
/// `total`.
pub(super) fn leading(moment: &DMatrix<f64>, total: f64, rank: usize) -> DMatrix<f64> {
    let (energies, directions) = descending(moment.clone());
    DMatrix::from_fn(moment.nrows(), rank, |row, at| match energies.get(at) {
        Some(energy) if *energy > NEGLIGIBLE * total => directions[(row, at)],
        _ => 0.0,
    })
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;
    use nalgebra::DMatrix;

    use super::{Side, Subspace, leading};

    const WIDTH: usize = 8;

    /// Inputs `[rows, WIDTH]` in so many directions, and their second moment.
    fn inputs(seed: u64, directions: usize) -> (DMatrix<f64>, DMatrix<f64>) {
        let draw = |name: &str, rows: usize, columns: usize| {
            let values = Seed::new(seed).split(name).normals(rows * columns, 1.0);
            DMatrix::from_iterator(rows, columns, values.into_iter().map(f64::from))
        };
        let rows = draw("rows", 20, directions) * draw("directions", directions, WIDTH);
        let moment = rows.transpose() * &rows;
        (rows, moment)
    }

    #[test]
    fn new_directions_leave_what_was_needed_before_where_it_is() {
        let ((old, old_moment), (_, new_moment)) = (inputs(1, 3), inputs(2, 3));
        let subspace = Subspace::none(WIDTH).extended(&old_moment, 1.0);
        assert_eq!((subspace.side, subspace.basis.ncols()), (Side::Inside, 3));
        let down = leading(&subspace.outside(&new_moment), new_moment.trace(), 2);
        assert!((&old * &down).amax() < 1e-5, "{}", &old * &down);
        assert!((down.transpose() * &down - DMatrix::identity(2, 2)).amax() < 1e-9);
        // What the new inputs share with the old ones is all that is taken from them.
        let rest = subspace.outside(&new_moment);
        assert!(rest.trace() > 0.0 && rest.trace() < new_moment.trace());
        // Nothing is left for the inputs that were there before.
        assert_eq!(leading(&subspace.outside(&old_moment), old_moment.trace(), 2).amax(), 0.0);
    }

    #[test]
    fn a_subspace_takes_no_more_directions_than_the_energy_asks_for() {
        let (_, moment) = inputs(3, WIDTH);
        let held = |subspace: &Subspace| 1.0 - subspace.outside(&moment).trace() / moment.trace();
        let (some, fewer) = (0.9, 0.6);
        let [some, fewer] = [some, fewer].map(|threshold| Subspace::none(WIDTH).extended(&moment, threshold));
        assert!(held(&some) >= 0.9 && held(&fewer) >= 0.6 && held(&fewer) < held(&some));
        let without_last =
            Subspace { side: Side::Inside, basis: fewer.basis.columns(0, fewer.basis.ncols() - 1).into() };
        assert!(held(&without_last) < 0.6);
        // Enough is held: nothing is added.
        assert_eq!(fewer.clone().extended(&moment, 0.6), fewer);
    }

    #[test]
    fn both_sides_are_the_same_subspace() {
        let [one, two, three] = [(4, 3), (5, 2), (6, 1)].map(|(seed, directions)| inputs(seed, directions).1);
        let grown = Subspace::none(WIDTH).extended(&one, 1.0).extended(&two, 1.0);
        assert_eq!((grown.side, grown.basis.ncols()), (Side::Outside, 3), "five of eight directions");
        let further = grown.clone().extended(&three, 1.0);
        assert_eq!((further.side, further.basis.ncols()), (Side::Outside, 2));
        for (subspace, inputs) in [(&grown, [&one, &two, &two]), (&further, [&one, &two, &three])] {
            for moment in inputs {
                assert!(subspace.outside(moment).trace().abs() < 1e-5 * moment.trace());
            }
            let basis = subspace.basis.transpose() * &subspace.basis;
            assert!((basis - DMatrix::identity(subspace.basis.ncols(), subspace.basis.ncols())).amax() < 1e-6);
            let (name, tensor) = subspace.saved("image.blocks.0.k_proj");
            let (site, read) = Subspace::read(&name, &tensor).expect("as it was saved");
            assert_eq!((site.as_str(), &read), ("image.blocks.0.k_proj", subspace));
        }
        // Everything: nothing is left.
        let whole = further.extended(&DMatrix::identity(WIDTH, WIDTH), 1.0);
        assert_eq!((whole.side, whole.basis.ncols()), (Side::Outside, 0));
        assert_eq!(whole.outside(&one).amax(), 0.0);
    }
}
