//! How the scores of a training step are judged: one label or several an image, classes alike or weighted.

use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Tensor, TensorData};

/// What a step's scores are judged by, beside the labels. The default is plain cross entropy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judgement<'a> {
    /// A weight for each class: cross entropy becomes the weighted mean; of several labels it weighs the positives.
    pub weights: Option<&'a [f32]>,
    /// What is added to the scores of each class in training only (logit adjustment: Menon et al., 2021, arXiv 2007.07314,
    /// equation 10): `tau log prior`.
    pub shift: Option<&'a [f32]>,
    /// Where images have several labels.
    pub several: Option<Several<'a>>,
}

/// The labels of images that have any number of them.
#[derive(Debug, Clone, Copy)]
pub struct Several<'a> {
    /// Row-major `[images, classes]`: 1 for a class that an image has, else 0.
    pub truth: &'a [f32],
    /// The score of each class at which it is as likely as not.
    pub offsets: &'a [f32],
}

impl<'a> Judgement<'a> {
    /// The truth of some images, in the order given; nothing where each has one label.
    pub(crate) fn truth_of(&self, rows: &[usize]) -> Vec<f32> {
        let Some(Several { truth, offsets }) = self.several else { return Vec::new() };
        let classes = offsets.len();
        rows.iter().flat_map(|row| &truth[row * classes..(row + 1) * classes]).copied().collect()
    }

    /// The same over other images, whose truth is given.
    pub(crate) fn with_truth<'b>(&self, truth: &'b [f32]) -> Judgement<'b>
    where
        'a: 'b,
    {
        Judgement { several: self.several.map(|several| Several { truth, ..several }), ..*self }
    }

    /// The loss `[1]` of scores `[images, classes]`: the mean over the images of cross entropy, or where they have several
    /// labels of the sum over the classes of binary cross entropy, whose gradient is of the same size.
    pub(crate) fn loss(&self, logits: Tensor<2>, labels: &[usize]) -> Tensor<1> {
        let device = logits.device().without_autodiff();
        let row = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), &device);
        let logits = match self.shift {
            Some(shift) => logits + row(shift),
            None => logits,
        };
        let [images, classes] = logits.dims();
        if let Some(Several { truth, offsets }) = self.several {
            let logits = logits - row(offsets);
            let truth = Tensor::<2>::from_data(TensorData::new(truth.to_vec(), [images, classes]), &device);
            let mut held = log_sigmoid(logits.clone()) * truth.clone();
            if let Some(weights) = self.weights {
                held = held * row(weights);
            }
            let missing = log_sigmoid(logits * -1.0) * (truth * -1.0 + 1.0);
            return (held + missing).sum() / -(images as f32);
        }
        let weight = |label: usize| self.weights.map_or(1.0, |weights| weights[label]);
        let total: f32 = labels.iter().map(|label| weight(*label)).sum();
        let mut targets = vec![0.0f32; images * classes];
        for (image, label) in labels.iter().enumerate() {
            targets[image * classes + label] = weight(*label);
        }
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [images, classes]), &device);
        (log_softmax(logits, 1) * targets).sum() / -total
    }
}

/// Mean cross entropy `[1]` of scores `[rows, classes]`.
pub fn cross_entropy(logits: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    Judgement::default().loss(logits, labels)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use inarch_core::backbone::values;

    use super::{Judgement, Several};

    fn loss(judgement: Judgement<'_>) -> f64 {
        let logits = Tensor::<2>::from_data([[1.0, 0.0], [2.0, -1.0], [0.0, 0.5]], &Device::flex());
        f64::from(values(judgement.loss(logits, &[0, 1, 1]))[0])
    }

    fn entropy(gap: f64) -> f64 {
        (1.0 + (-gap).exp()).ln()
    }

    #[test]
    fn three_rows_by_hand() {
        let rows = [entropy(1.0), entropy(-3.0), entropy(0.5)];
        assert!((loss(Judgement::default()) - rows.iter().sum::<f64>() / 3.0).abs() < 1e-6);
        let weighted = loss(Judgement { weights: Some(&[3.0, 0.5]), ..Judgement::default() });
        assert!((weighted - (3.0 * rows[0] + 0.5 * (rows[1] + rows[2])) / 4.0).abs() < 1e-6);
        let shifted = loss(Judgement { shift: Some(&[0.7, -0.3]), ..Judgement::default() });
        assert!((shifted - (entropy(2.0) + entropy(-4.0) + entropy(-0.5)) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn several_labels_are_judged_class_by_class() {
        let several = Several { truth: &[1.0, 1.0, 0.0, 0.0, 1.0, 0.0], offsets: &[0.5, -0.25] };
        let plain = loss(Judgement { several: Some(several), ..Judgement::default() });
        let parts = [entropy(0.5), entropy(0.25), entropy(-1.5), entropy(0.75), entropy(-0.5), entropy(-0.75)];
        assert!((plain - parts.iter().sum::<f64>() / 3.0).abs() < 1e-6);
        let weighted = loss(Judgement { weights: Some(&[2.0, 4.0]), several: Some(several), shift: None });
        let expected = plain + (parts[0] + 3.0 * parts[1] + parts[4]) / 3.0;
        assert!((weighted - expected).abs() < 1e-6);
    }
}
