//! `POST /v1/embeddings`: features of texts and images, in the shape of OpenAI's route of this name.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::App;
use super::auth::Caller;
use super::classify::{named, rejected};
use super::images::{from_base64, pixels};
use super::problem::{Problem, ProblemBody};
use crate::adapters::{ClassSet, Head, Loaded, Version};
use crate::engine::Want;

/// One thing to embed: a text, or `{"image": base64}`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Image { image: String },
}

/// One or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Inputs {
    One(Input),
    Many(Vec<Input>),
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    #[default]
    Float,
    /// Little-endian f32.
    Base64,
}

/// Things to embed under an adapter, or under the frozen backbone.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    model: Option<String>,
    input: Inputs,
    #[serde(default)]
    encoding_format: Encoding,
    /// Whether features are scaled to length 1; they are unless this is false.
    #[serde(default = "yes")]
    normalize: bool,
}

fn yes() -> bool {
    true
}

/// Numbers or their base64.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

/// A feature and the place of its input.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Features in the order of the inputs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

/// Embeds texts and images
///
/// Both towers share one space: the inner product of a text and an image of length 1 is their similarity.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "inference", request_body = EmbeddingsRequest,
    responses((status = 200, body = EmbeddingsResponse), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Result<Json<EmbeddingsRequest>, JsonRejection>,
) -> Result<Json<EmbeddingsResponse>, Problem> {
    let Json(EmbeddingsRequest { model, input, encoding_format, normalize }) = request.map_err(rejected)?;
    let inputs = match input {
        Inputs::One(input) => vec![input],
        Inputs::Many(inputs) => inputs,
    };
    let most = app.settings.images;
    if inputs.is_empty() || inputs.len() > most {
        return Err(Problem::invalid(format!("`input` holds {} things; 1 to {most} are taken", inputs.len())));
    }
    app.backbone.need_features("embeddings").map_err(crate::error::Error::from)?;
    let (version, head) = featurer(&app, &caller, model.as_deref()).await?;
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for (at, input) in inputs.iter().enumerate() {
        match input {
            Input::Text(text) => texts.push((at, text.as_str())),
            Input::Image { image } => images.push((at, from_base64(image)?)),
        }
    }
    let mut features: Vec<Vec<f32>> = vec![Vec::new(); inputs.len()];
    let mut tokens = 0;
    if !texts.is_empty() {
        let words: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
        let rows = app.backbone.tokenize(&words).map_err(|error| Problem::from(crate::error::Error::from(error)))?;
        tokens = rows.iter().map(Vec::len).sum();
        let found = app.compute(&head, Want::TextFeatures(rows), texts.len()).await?;
        for ((at, _), feature) in texts.into_iter().zip(found) {
            features[at] = feature;
        }
    }
    if !images.is_empty() {
        let (places, bytes): (Vec<usize>, Vec<_>) = images.into_iter().unzip();
        let count = bytes.len();
        app.metrics.images(&version.name, &version.version, count);
        let found = app.compute(&head, Want::ImageFeatures(pixels(&app, bytes, head.window()).await?), count).await?;
        for (at, feature) in places.into_iter().zip(found) {
            features[at] = feature;
        }
    }
    let data = features.into_iter().enumerate().map(|(index, feature)| {
        let feature = if normalize { unit(feature) } else { feature };
        let embedding = match encoding_format {
            Encoding::Float => Numbers::Float(feature),
            Encoding::Base64 => Numbers::Base64(
                STANDARD.encode(feature.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()),
            ),
        };
        Embedding { object: "embedding", index, embedding }
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Json(EmbeddingsResponse { object: "list", data: data.collect(), model: version.name, usage }))
}

/// A head for features alone: its classes are of no account.
pub(super) async fn featurer(app: &App, caller: &Caller, model: Option<&str>) -> Result<(Version, Arc<Head>), Problem> {
    let (version, adapter) = named(app, caller, model).await?;
    // Any one class does where the adapter has none.
    let own = adapter.as_deref().is_some_and(Loaded::knows_classes);
    let classes = if own { Vec::new() } else { vec!["image".to_string()] };
    Ok((version, app.shelf.head(adapter, ClassSet { classes, template: None }).await?))
}

/// A feature scaled to length 1.
pub(super) fn unit(feature: Vec<f32>) -> Vec<f32> {
    let length = feature.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    feature.into_iter().map(|value| value / length).collect()
}
