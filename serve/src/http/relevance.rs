//! `POST /v1/relevance`: which parts of an image a prediction rests on.
//!
//! Each cell of a grid is hidden behind the mean colour in turn, and the loss of probability of the class is its relevance
//! (occlusion; Zeiler and Fergus, 2014, arXiv 1311.2901). It treats the adapter as a whole, so it means the same for every
//! method.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use inarch_core::metrics::softmax;
use inarch_recipes::label_probabilities;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::App;
use super::auth::Caller;
use super::classify::{head, rejected};
use super::images::{from_base64, pixels};
use super::problem::{Problem, ProblemBody};
use crate::engine::Want;

/// Cells along each side.
const GRID: usize = 7;
const MOST: usize = 14;

/// An image and the class that is to be explained.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelevanceRequest {
    model: Option<String>,
    /// Base64.
    image: String,
    /// The class; the most probable one when absent.
    label: Option<String>,
    classes: Option<Vec<String>>,
    template: Option<String>,
    /// Cells along each side, 2 to 14.
    grid: Option<usize>,
}

/// How much each part of the image matters.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RelevanceResponse {
    model: String,
    version: String,
    label: String,
    /// Its probability for the whole image.
    score: f32,
    /// Loss of probability when a cell is hidden, row by row from the top; negative where hiding it helps.
    grid: Vec<Vec<f32>>,
}

/// Shows which parts of an image matter
#[utoipa::path(
    post, path = "/v1/relevance", tag = "inference", request_body = RelevanceRequest,
    responses((status = 200, body = RelevanceResponse), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn relevance(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Result<Json<RelevanceRequest>, JsonRejection>,
) -> Result<Json<RelevanceResponse>, Problem> {
    let Json(RelevanceRequest { model, image, label, classes, template, grid }) = request.map_err(rejected)?;
    let grid = grid.unwrap_or(GRID);
    if !(2..=MOST).contains(&grid) {
        return Err(Problem::invalid(format!("`grid` must be 2 to {MOST}, found {grid}")));
    }
    let (version, head) = head(&app, &caller, model.as_deref(), classes, template).await?;
    let whole = pixels(&app, vec![from_base64(&image)?], head.window()).await?;
    let views = Arc::new(hidden(&whole, grid, app.backbone.spec().image.size));
    let count = grid * grid + 1;
    app.metrics.images(&version.name, &version.version, count);
    let scores = app.compute(&head, Want::Scores(views), count).await?;
    let labels = head.classifier.classes();
    // Of images with several labels, each class has a probability of its own.
    let probable = |logits: &Vec<f32>| match &head.offsets {
        Some(offsets) => label_probabilities(logits, labels.len(), Some(offsets)),
        None => softmax(logits),
    };
    let probabilities: Vec<Vec<f32>> = scores.iter().map(probable).collect();
    let best = || (0..labels.len()).max_by(|left, right| probabilities[0][*left].total_cmp(&probabilities[0][*right]));
    let at = match &label {
        Some(label) => labels.iter().position(|known| known == label),
        None => best(),
    };
    let Some(at) = at else {
        let label = label.unwrap_or_default();
        return Err(Problem::invalid(format!("class `{label}` is not among those of this model")));
    };
    let score = probabilities[0][at];
    let losses: Vec<f32> = probabilities[1..].iter().map(|hidden| score - hidden[at]).collect();
    Ok(Json(RelevanceResponse {
        model: version.name,
        version: version.version,
        label: labels[at].clone(),
        score,
        grid: losses.chunks(grid).map(<[f32]>::to_vec).collect(),
    }))
}

/// The image, then copies with each cell hidden, row by row. The mean colour is zero once normalised.
fn hidden(whole: &[f32], grid: usize, size: usize) -> Vec<f32> {
    let mut views = Vec::with_capacity(whole.len() * (grid * grid + 1));
    views.extend_from_slice(whole);
    let edge = |cell: usize| cell * size / grid;
    for row in 0..grid {
        for column in 0..grid {
            let start = views.len();
            views.extend_from_slice(whole);
            for channel in 0..3 {
                for y in edge(row)..edge(row + 1) {
                    let line = start + (channel * size + y) * size;
                    views[line + edge(column)..line + edge(column + 1)].fill(0.0);
                }
            }
        }
    }
    views
}
