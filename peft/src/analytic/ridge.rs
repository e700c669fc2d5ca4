//! Ridge regression to one-hot classes over frozen features, in three forms.
//!
//! `ranpac`: RanPAC without first-session training (McDonnell et al., NeurIPS 2023, arXiv 2307.02251).
//! `acil`: ACIL (Zhuang et al., NeurIPS 2022, arXiv 2205.14922). `rail`: primal RAIL (Xu et al., NeurIPS 2024,
//! arXiv 2406.18868). With expanded features `h` `[images, width]` (`h = relu(u W)`, in `rail` `[1, u, relu(u W)]`; `u` the
//! normalised image feature, `W` `[dim, projections]` drawn from N(0, 1) and fixed):
//!
//! `V = argmin |Y - H V|^2 + lambda |V - V0|^2`, `logits = sharpness * h V`
//!
//! `V0` is zero, in `rail` zero-shot as a ridge score: `V0_c = [b, k t_c, 0]` with normalised text features `t` and the `k`, `b`
//! that fit the samples best. `rail` also answers for classes that it has no row for: an image whose zero-shot class is one of
//! those keeps its zero-shot scores, any other gets the scores above. Nothing is trained by steps; stored are `V` `[classes,
//! width]` and `W`. Sites: logits; features alone suffice.
//!
//! Departures. Lambda: RanPAC takes the best of 17 on the last 20 % of the newest task alone, so it jumps from task to task;
//! here it is chosen on a fifth of everything that was ever added, from sums. ACIL and RAIL leave it to the user (0.1).
//! RAIL mixes 0.2 of zero-shot probabilities with 0.8 of unbounded ridge scores; here zero-shot is what the ridge holds on to,
//! so it fades as samples come. Projections: the authors' 10,000 and 15,000 cost 25 to 56 times the default's memory.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Tower, normalise, values};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::Analytic;
use super::expansion::Expansion;
use super::lambda::ridge_weights;
use super::statistics::{Second, Settings, Statistics};
use super::support::{class_names, statistics_of};
use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Random features by default.
const PROJECTIONS: usize = 2000;
/// The seed of class orders in the field, as good as any.
const SEED: u64 = 1993;
/// Factor between ridge scores, about 0 to 1, and logits.
const SHARPNESS: f64 = 10.0;

/// Settings of RanPAC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RanPacConfig {
    /// Number of random features.
    pub projections: usize,
    /// Weight of the ridge; chosen on held samples when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Decides the random features. Statistics add up only under one seed.
    pub seed: u64,
}

impl Default for RanPacConfig {
    fn default() -> Self {
        Self { projections: PROJECTIONS, lambda: None, seed: SEED }
    }
}

/// Settings of ACIL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcilConfig {
    /// Number of random features.
    pub projections: usize,
    /// Weight of the ridge.
    pub lambda: f64,
    /// Decides the random features. Statistics add up only under one seed.
    pub seed: u64,
}

impl Default for AcilConfig {
    fn default() -> Self {
        Self { projections: PROJECTIONS, lambda: 0.1, seed: SEED }
    }
}

/// Settings of RAIL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RailConfig {
    /// Number of random features.
    pub projections: usize,
    /// Weight of the ridge; chosen on held samples when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Whether the ridge holds on to zero-shot instead of zero.
    pub prior: bool,
    /// Decides the random features. Statistics add up only under one seed.
    pub seed: u64,
}

impl Default for RailConfig {
    fn default() -> Self {
        Self { projections: PROJECTIONS, lambda: None, prior: true, seed: SEED }
    }
}

/// A linear head over expanded features.
#[derive(Module, Debug)]
pub struct Ridge {
    /// `[classes, width]`.
    weights: Fixed<2>,
    /// `[dim, projections]`.
    projection: Fixed<2>,
    /// Whether the constant and the feature itself are there.
    raw: bool,
}

/// What the three forms differ in.
#[derive(Clone, Copy)]
struct Form {
    expansion: Expansion,
    lambda: Option<f64>,
    prior: bool,
}

impl Form {
    fn statistics(self) -> Result<Statistics> {
        self.expansion.check()?;
        if let Some(lambda) = self.lambda.filter(|lambda| !(lambda.is_finite() && *lambda > 0.0)) {
            return Err(Error::Setting { setting: "lambda", reason: format!("must be above 0, found {lambda}") });
        }
        Ok(Statistics::new(Settings { expansion: self.expansion, second: Second::Gram }))
    }

    fn head(self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Ridge> {
        let expected = self.statistics()?.settings;
        if statistics.settings != expected {
            let [expected, found] =
                [&expected, &statistics.settings].map(|settings| serde_json::to_string(settings).unwrap_or_default());
            return Err(inarch_core::Error::mismatch("settings of the statistics", expected, found).into());
        }
        let prior = if self.prior {
            self.zero_shot(statistics, classes, start)
        } else {
            DMatrix::zeros(self.expansion.width(), classes.len())
        };
        let weights = ridge_weights(statistics, classes, &prior, self.lambda)?;
        let device = start.device.clone().without_autodiff();
        // Stored by columns: one class after the other.
        let data = weights.iter().map(|value| *value as f32).collect::<Vec<_>>();
        let weights = Tensor::from_data(TensorData::new(data, [classes.len(), self.expansion.width()]), &device);
        let projection = self.expansion.projection(&device);
        Ok(Ridge { weights: Fixed::new(weights), projection: Fixed::new(projection), raw: self.expansion.raw })
    }

    /// Zero-shot as ridge weights: the factor and offset of the cosines that fit the samples of the classes best.
    fn zero_shot(self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> DMatrix<f64> {
        let Expansion { dim, .. } = self.expansion;
        let texts = values(normalise(start.class_features.clone()));
        let text =
            |class: usize| DVector::from_iterator(dim, texts[class * dim..][..dim].iter().map(|v| f64::from(*v)));
        let mut prior = DMatrix::zeros(self.expansion.width(), classes.len());
        let whole = statistics.whole();
        let Some(gram) = &whole.gram else { return prior };
        // Sums over samples and classes: of the squared cosine, the cosine, its product with the target, the target.
        let (features, mean) = (gram.view((1, 1), (dim, dim)), gram.view((1, 0), (dim, 1)));
        let (mut squares, mut sum, mut product, mut learned) = (0.0, 0.0, 0.0, 0.0);
        for (class, name) in classes.iter().enumerate() {
            let Some(sums) = whole.classes.get(name) else { continue };
            let text = text(class);
            squares += (features * &text).dot(&text);
            sum += mean.column(0).dot(&text);
            product += sums.sum.rows(1, dim).dot(&text);
            learned += 1.0;
        }
        let samples = whole.count() as f64;
        let all = samples * learned;
        let spread = squares - sum * sum / all.max(1.0);
        let factor = if spread > 1e-12 { ((product - sum * samples / all.max(1.0)) / spread).max(0.0) } else { 0.0 };
        let offset = (samples - factor * sum) / all.max(1.0);
        for class in 0..classes.len() {
            prior[(0, class)] = offset;
            prior.view_mut((1, class), (dim, 1)).copy_from(&(text(class) * factor));
        }
        prior
    }
}

macro_rules! ridge {
    ($config:ident, $variant:ident, $open:literal, |$own:ident, $dim:ident| $form:expr) => {
        impl $config {
            fn form(&self, $dim: usize) -> Form {
                let $own = self;
                $form
            }
        }

        impl Analytic for $config {
            fn statistics(&self, dim: usize) -> Result<Statistics> {
                self.form(dim).statistics()
            }

            fn solve(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Adapter> {
                let form = self.form(start.backbone.spec().dim);
                Ok(Adapter::$variant(form.head(statistics, classes, start)?))
            }
        }

        impl Method for $config {
            type Adapter = Ridge;

            /// [`Error::Setting`] for no random features, too many, or a lambda that is not above 0.
            fn init(&self, start: &Start<'_>) -> Result<Ridge> {
                let statistics = statistics_of(self, start)?;
                self.form(start.backbone.spec().dim).head(&statistics, &class_names(start), start)
            }

            fn black_box(&self) -> bool {
                true
            }

            fn words(&self) -> Words {
                if self.open_to_classes() { Words::Needed } else { Words::Replaced }
            }

            fn trainable(&self, _backbone: &Backbone, _classes: usize, _images: usize) -> usize {
                0
            }

            fn starts_as_zero_shot(&self) -> bool {
                false
            }

            fn bound_to_classes(&self) -> bool {
                !$open
            }

            fn open_to_classes(&self) -> bool {
                $open
            }

            fn needs_support(&self) -> bool {
                true
            }

            fn analytic(&self) -> Option<&dyn Analytic> {
                Some(self)
            }
        }
    };
}

ridge!(RanPacConfig, RanPac, false, |own, dim| Form {
    expansion: Expansion { dim, raw: false, projections: own.projections, seed: own.seed },
    lambda: own.lambda,
    prior: false,
});
ridge!(AcilConfig, Acil, false, |own, dim| Form {
    expansion: Expansion { dim, raw: false, projections: own.projections, seed: own.seed },
    lambda: Some(own.lambda),
    prior: false,
});
ridge!(RailConfig, Rail, true, |own, dim| Form {
    expansion: Expansion { dim, raw: true, projections: own.projections, seed: own.seed },
    lambda: own.lambda,
    prior: own.prior,
});

impl Learner for Ridge {}

impl Sites for Ridge {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let random = scores.image.clone().matmul(self.projection.val()).clamp_min(0.0);
        let expanded = if self.raw {
            let [images, _] = scores.image.dims();
            let one = Tensor::ones([images, 1], &scores.image.device());
            Tensor::cat(vec![one, scores.image.clone(), random], 1)
        } else {
            random
        };
        answer(expanded.matmul(self.weights.val().transpose()) * SHARPNESS, scores, pass)
    }
}

/// Scores of the classes at hand from scores of all rows `[images, rows]`. Where some of the classes have no row, an image
/// whose zero-shot class is one of those keeps its zero-shot scores; in any other, those classes come last.
pub(super) fn answer(own: Tensor<2>, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
    let Some(classes) = pass.classes else { return own };
    let [images, columns] = scores.logits.dims();
    let (own, zero_shot) = (values(own), values(scores.logits.clone()));
    let rows = own.len() / images.max(1);
    let known = |column: usize| classes[column] < rows;
    let mut found = Vec::with_capacity(images * columns);
    for image in 0..images {
        let (own, zero_shot) = (&own[image * rows..][..rows], &zero_shot[image * columns..][..columns]);
        let best = |wanted: bool| {
            let scores = (0..columns).filter(|column| known(*column) == wanted).map(|column| zero_shot[column]);
            scores.fold(f32::NEG_INFINITY, f32::max)
        };
        let (inside, outside) = (best(true), best(false));
        if outside > inside {
            found.extend_from_slice(zero_shot);
            continue;
        }
        let score = |column: usize| own[classes[column]];
        let least = (0..columns).filter(|column| known(*column)).map(score).fold(f32::INFINITY, f32::min);
        found.extend((0..columns).map(|column| {
            // The order among those is kept; all of them are below what has a row.
            if known(column) { score(column) } else { least - 1.0 + zero_shot[column] - outside }
        }));
    }
    Tensor::from_data(TensorData::new(found, [images, columns]), &scores.logits.device())
}
