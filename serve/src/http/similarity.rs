//! `POST /v1/similarity`: how well texts fit images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::App;
use super::auth::Caller;
use super::classify::rejected;
use super::embeddings::{featurer, unit};
use super::images::{check_count, from_base64, pixels};
use super::problem::{Problem, ProblemBody};
use crate::engine::Want;

/// Images and texts to compare, each with each.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimilarityRequest {
    model: Option<String>,
    /// Base64.
    images: Vec<String>,
    texts: Vec<String>,
}

/// Cosines.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SimilarityResponse {
    model: String,
    version: String,
    /// Cosine of each image (rows) with each text (columns).
    similarities: Vec<Vec<f32>>,
    /// The factor that turns cosines into scores of a softmax.
    logit_scale: f32,
}

/// Compares images with texts
#[utoipa::path(
    post, path = "/v1/similarity", tag = "inference", request_body = SimilarityRequest,
    responses((status = 200, body = SimilarityResponse), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn similarity(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Result<Json<SimilarityRequest>, JsonRejection>,
) -> Result<Json<SimilarityResponse>, Problem> {
    let Json(SimilarityRequest { model, images, texts }) = request.map_err(rejected)?;
    check_count(&app, images.len())?;
    if texts.is_empty() || texts.len() > app.settings.classes {
        let most = app.settings.classes;
        return Err(Problem::invalid(format!("{} texts; 1 to {most} are taken", texts.len())));
    }
    app.backbone.need_features("similarities").map_err(crate::error::Error::from)?;
    let (version, head) = featurer(&app, &caller, model.as_deref()).await?;
    let images = images.iter().map(|image| from_base64(image)).collect::<Result<Vec<_>, _>>()?;
    let (rows, columns) = (images.len(), texts.len());
    app.metrics.images(&version.name, &version.version, rows);
    let tokens = app.backbone.tokenize(&texts).map_err(|error| Problem::from(crate::error::Error::from(error)))?;
    let images = app.compute(&head, Want::ImageFeatures(pixels(&app, images, head.window()).await?), rows).await?;
    let texts = app.compute(&head, Want::TextFeatures(tokens), columns).await?;
    let [images, texts] = [images, texts].map(|features| features.into_iter().map(unit).collect::<Vec<_>>());
    let dot = |left: &[f32], right: &[f32]| left.iter().zip(right).map(|(left, right)| left * right).sum();
    let row = |image: &Vec<f32>| texts.iter().map(|text| dot(image, text)).collect();
    Ok(Json(SimilarityResponse {
        model: version.name,
        version: version.version,
        similarities: images.iter().map(row).collect(),
        logit_scale: app.backbone.logit_scale(),
    }))
}
