//! Learned rows for the places in time.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;

/// One row for each of so many frames; clips of another length read between the rows.
#[derive(Module, Debug)]
pub(super) struct Positions {
    table: Param<Tensor<2>>,
}

impl Positions {
    /// `[frames, width]`, normal with deviation 0.5: rows are added to maps of features of length 1.
    pub(super) fn new(frames: usize, width: usize, seed: Seed, device: &Device) -> Self {
        Self::given(seed.normals(frames * width, 0.5), frames, device)
    }

    /// These values, as many for each of so many frames.
    pub(super) fn given(values: Vec<f32>, frames: usize, device: &Device) -> Self {
        let width = values.len() / frames;
        Self { table: Param::from_tensor(Tensor::from_data(TensorData::new(values, [frames, width]), device)) }
    }

    /// Those of the frames of clips for all tokens of each, `[rows, 1, width]`.
    pub(super) fn of_rows(&self, rows: usize, frames: usize) -> Tensor<3> {
        let ([_, width], clips) = (self.table.dims(), rows / frames);
        let each: Tensor<3> = self.of(frames).unsqueeze::<3>().expand([clips, frames, width]);
        each.reshape([rows, 1, width])
    }

    /// The places of the frames of a clip, `[frames, width]`: the rows themselves, or linear between them, the first and last
    /// frames standing in the middle of their shares of time.
    pub(super) fn of(&self, frames: usize) -> Tensor<2> {
        let table = self.table.val();
        let [rows, _] = table.dims();
        if rows == frames {
            return table;
        }
        let between = TensorData::new(weights(rows, frames), [frames, rows]);
        Tensor::<2>::from_data(between, &table.device().without_autodiff()).matmul(table)
    }
}

/// `[frames, rows]`: how much of each row a frame reads.
fn weights(rows: usize, frames: usize) -> Vec<f32> {
    let mut weights = vec![0.0; frames * rows];
    for frame in 0..frames {
        let place = ((frame as f32 + 0.5) * rows as f32 / frames as f32 - 0.5).clamp(0.0, (rows - 1) as f32);
        let (low, share) = (place as usize, place.fract());
        weights[frame * rows + low] += 1.0 - share;
        weights[frame * rows + (low + 1).min(rows - 1)] += share;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::weights;

    #[test]
    fn places_lie_between_the_rows() {
        assert_eq!(weights(4, 2), [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]);
        assert_eq!(weights(2, 4), [1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert_eq!(weights(3, 1), [0.0, 1.0, 0.0]);
        assert_eq!(weights(1, 3), [1.0; 3]);
    }
}
