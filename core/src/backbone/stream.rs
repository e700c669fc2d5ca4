//! The residual stream of a tower, in which rows may share their beginning.

use burn::tensor::Tensor;

/// `[rows, tokens, width]`. In a causal tower a token sees only those before it, so rows that begin with the same tokens have
/// the same values there in every block: such a beginning is kept, and computed, once.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// `[groups, tokens, width]`: the beginning that the rows of each group share, where there is one.
    pub(super) beginning: Option<Tensor<3>>,
    /// How many tokens come before those of `rest`: those of the beginning, also when nobody reads it any more.
    pub(super) shared: usize,
    /// What comes after it, `[rows, tokens, width]`, group by group.
    pub(super) rest: Tensor<3>,
}

impl Stream {
    pub(super) fn whole(tokens: Tensor<3>) -> Self {
        Self { beginning: None, shared: 0, rest: tokens }
    }

    /// Takes the first `count` tokens of each of `groups` groups of rows together; they must be equal within a group.
    pub(super) fn split(tokens: Tensor<3>, count: usize, groups: usize) -> Self {
        let [rows, length, width] = tokens.dims();
        let beginning = tokens.clone().narrow(1, 0, count);
        let beginning = match groups {
            1 => beginning.narrow(0, 0, 1),
            _ => {
                let firsts = beginning.reshape([groups, rows / groups, count * width]).narrow(1, 0, 1);
                firsts.reshape([groups, count, width])
            }
        };
        Self { beginning: Some(beginning), shared: count, rest: tokens.narrow(1, count, length - count) }
    }

    /// All tokens of all rows.
    pub(super) fn into_whole(self) -> Tensor<3> {
        match self.beginning {
            None => self.rest,
            Some(beginning) => behind(beginning, self.rest),
        }
    }

    /// Streams whose rows all share one beginning, or none.
    pub(super) fn join(parts: Vec<Self>) -> Self {
        let (beginning, shared) = (parts[0].beginning.clone(), parts[0].shared);
        Self { beginning, shared, rest: Tensor::cat(parts.into_iter().map(|part| part.rest).collect(), 0) }
    }

    pub(super) fn values(&self) -> usize {
        let values = |tensor: &Tensor<3>| tensor.dims().iter().product::<usize>();
        values(&self.rest) + self.beginning.as_ref().map_or(0, values)
    }
}

/// Each row of `rest` behind the beginning of its group.
pub(super) fn behind(beginning: Tensor<3>, rest: Tensor<3>) -> Tensor<3> {
    let ([groups, count, width], [rows, _, _]) = (beginning.dims(), rest.dims());
    let spread = beginning.unsqueeze_dim::<4>(1).expand([groups, rows / groups, count, width]);
    Tensor::cat(vec![spread.reshape([rows, count, width]), rest], 1)
}
