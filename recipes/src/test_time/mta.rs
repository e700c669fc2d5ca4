//! MTA: the mode of the views' features by a mean shift whose weights find the inliers (Zanella and Ben Ayed, 2024, arXiv
//! 2405.02266).
//!
//! With features `f_p` `[views, dim]`, probabilities `s_p`, bandwidths `h_p` (of the nearest 30 %) and inlierness `y`:
//! `y = softmax((K(f - m) + lambda_q A y) / lambda_y)` with `K = exp(-|f - m|^2 / 2 h^2)`, `A = s s^T`, and
//! `m = sum y K f / sum y K`, normalised, five rounds each. Nothing is trained. The answer is the score of `m`.

use inarch_core::backbone::Backbone;
use inarch_core::image::ViewRecipe;
use serde::{Deserialize, Serialize};

use super::confidence::softmax;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::rows::{Rows, add_scaled, dot, to_unit};
use super::world::World;
use crate::error::Result;

/// Rounds of each of the nested loops.
const ROUNDS: usize = 5;
/// A change below which a loop has converged.
const CONVERGED: f32 = 1e-6;
/// Share of the other views that set a bandwidth.
const NEIGHBOURS: f64 = 0.3;

/// Settings of MTA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MtaConfig {
    /// Weight of the agreement between views.
    pub lambda_q: f64,
    /// Temperature of the inlierness.
    pub lambda_y: f64,
}

impl Default for MtaConfig {
    fn default() -> Self {
        Self { lambda_q: 4.0, lambda_y: 0.2 }
    }
}

impl MethodSettings for MtaConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { recipe: ViewRecipe::Crop, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lambda_q", self.lambda_q, 0.0..=1e6)?;
        within("lambda_y", self.lambda_y, 1e-6..=1e6)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Mta(self.clone())))
    }
}

struct Mta(MtaConfig);

impl Adapt for Mta {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        let answer = |episode: &Episode| {
            let mode = Rows::new(world.dim, mode(&self.0, episode));
            Answer::scores(world.logits(&mode, &episode.text).into_values())
        };
        Ok(episodes.iter().map(answer).collect())
    }
}

fn mode(config: &MtaConfig, episode: &Episode) -> Vec<f32> {
    let features = &episode.features;
    let views = features.count();
    let neighbours = (NEIGHBOURS * (views - 1) as f64) as usize;
    if neighbours == 0 {
        // Too few views for a density: the centre view stands for itself.
        return features.row(0).to_vec();
    }
    let bandwidths: Vec<f32> = (0..views)
        .map(|view| {
            let mut distances: Vec<f32> =
                features.iter().map(|other| squared_distance(features.row(view), other)).collect();
            distances.sort_by(f32::total_cmp);
            // The nearest is the view itself.
            let mean = distances[1..=neighbours].iter().sum::<f32>() / neighbours as f32;
            (0.5 * mean).max(f32::MIN_POSITIVE).sqrt()
        })
        .collect();
    let probabilities: Vec<Vec<f32>> = episode.logits.iter().map(softmax).collect();
    let affinity: Vec<Vec<f32>> =
        probabilities.iter().map(|left| probabilities.iter().map(|right| dot(left, right)).collect()).collect();
    let density = |mode: &[f32]| -> Vec<f32> {
        let kernel =
            |(view, bandwidth): (&[f32], &f32)| (-squared_distance(view, mode) / (2.0 * bandwidth * bandwidth)).exp();
        features.iter().zip(&bandwidths).map(kernel).collect()
    };
    let (lambda_q, lambda_y) = (config.lambda_q as f32, config.lambda_y as f32);
    let mut weights = vec![1.0 / views as f32; views];
    let mut mode = features.row(0).to_vec();
    for _ in 0..ROUNDS {
        let near = density(&mode);
        for _ in 0..ROUNDS {
            let agreed = |(near, row): (&f32, &Vec<f32>)| (near + lambda_q * dot(row, &weights)) / lambda_y;
            let found = softmax(&near.iter().zip(&affinity).map(agreed).collect::<Vec<_>>());
            let change = squared_distance(&found, &weights).sqrt();
            weights = found;
            if change < CONVERGED {
                break;
            }
        }
        for _ in 0..ROUNDS {
            let mut found = vec![0.0; features.width()];
            for ((view, near), weight) in features.iter().zip(density(&mode)).zip(&weights) {
                add_scaled(&mut found, near * weight, view);
            }
            to_unit(&mut found);
            let change = squared_distance(&found, &mode).sqrt();
            mode = found;
            if change < CONVERGED {
                break;
            }
        }
    }
    mode
}

fn squared_distance(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| (left - right) * (left - right)).sum()
}
