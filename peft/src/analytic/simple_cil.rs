//! SimpleCIL: class means of frozen features as cosine prototypes (Zhou et al., 2023, arXiv 2303.07338).
//!
//! `logits = s u m_c / |m_c|` with normalised image features `u` and their class means `m`. Nothing is trained. The result is
//! that of [`LinearProbe`], `classes * dim` values. Site: the text feature.

use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use super::Analytic;
use super::expansion::Expansion;
use super::statistics::{Second, Settings, Statistics};
use super::support::{class_names, statistics_of};
use crate::adapter::Adapter;
use crate::error::Result;
use crate::feature::LinearProbe;
use crate::method::{Method, Start, Words};

/// Settings of SimpleCIL. There are none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimpleCilConfig {}

/// The sums that only class means need.
pub(super) fn raw_settings(dim: usize, second: Second) -> Settings {
    Settings { expansion: Expansion { dim, raw: true, projections: 0, seed: 0 }, second }
}

impl SimpleCilConfig {
    fn head(statistics: &Statistics, classes: &[String], start: &Start<'_>) -> LinearProbe {
        let whole = statistics.whole();
        let dim = start.backbone.spec().dim;
        let mut rows = Vec::with_capacity(classes.len() * dim);
        for class in classes {
            match whole.classes.get(class) {
                Some(sums) => rows.extend(sums.sum.iter().skip(1).map(|value| (value / sums.count as f64) as f32)),
                None => rows.extend(std::iter::repeat_n(0.0, dim)),
            }
        }
        LinearProbe::of(rows, dim, start.device)
    }
}

impl Analytic for SimpleCilConfig {
    fn statistics(&self, dim: usize) -> Result<Statistics> {
        Ok(Statistics::new(raw_settings(dim, Second::None)))
    }

    fn solve(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Adapter> {
        Ok(Adapter::SimpleCil(Self::head(statistics, classes, start)))
    }
}

impl Method for SimpleCilConfig {
    type Adapter = LinearProbe;

    fn init(&self, start: &Start<'_>) -> Result<LinearProbe> {
        Ok(Self::head(&statistics_of(self, start)?, &class_names(start), start))
    }

    fn black_box(&self) -> bool {
        true
    }

    fn words(&self) -> Words {
        Words::Replaced
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        classes * backbone.spec().dim
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn bound_to_classes(&self) -> bool {
        true
    }

    fn needs_support(&self) -> bool {
        true
    }

    fn analytic(&self) -> Option<&dyn Analytic> {
        Some(self)
    }
}
