//! `GET /v1/models`: what can be asked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::app::App;
use super::auth::Caller;
use super::classify::backbone_version;
use super::problem::{Problem, ProblemBody};
use crate::adapters::{Loaded, Version, Words, nearest_words};

/// An adapter, or the backbone itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Card {
    /// What requests call `model`.
    id: String,
    object: &'static str,
    owned_by: &'static str,
    /// The backbone of an adapter.
    parent: Option<String>,
    version: String,
    digest: String,
    /// Whether it is in memory.
    resident: bool,
    /// Whether it is written into a copy of the weights at the moment.
    folded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl Card {
    pub(super) fn new(app: &App, version: Version, loaded: Option<&Loaded>) -> Self {
        Self {
            id: version.name,
            object: "model",
            owned_by: "inarch",
            parent: Some(app.backbone.name().into()),
            version: version.version,
            digest: version.digest,
            resident: loaded.is_some(),
            folded: loaded.is_some_and(|loaded| loaded.folded().is_some()),
            method: loaded.map(|loaded| loaded.artifact.manifest.method.name()),
            classes: loaded.map(|loaded| loaded.artifact.manifest.classes.clone()),
            parameters: loaded.map(|loaded| loaded.artifact.manifest.parameters),
            bytes: loaded.map(|loaded| loaded.bytes),
        }
    }

    fn backbone(app: &App) -> Self {
        let card = Self::new(app, backbone_version(app), None);
        Self { parent: None, resident: true, parameters: Some(app.backbone.parameters()), ..card }
    }
}

/// All that can be asked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Cards {
    object: &'static str,
    data: Vec<Card>,
}

/// Lists the backbone and all adapters
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = Cards)))]
pub(crate) async fn models(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Cards>, Problem> {
    let mut data = vec![Card::backbone(&app)];
    for (version, loaded) in app.shelf.list().await? {
        data.push(Card::new(&app, version, loaded.as_deref()));
    }
    data.retain(|card| caller.may_use(&card.id));
    Ok(Json(Cards { object: "list", data }))
}

/// Shows one adapter, loading it if needed
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models",
    responses((status = 200, body = Card), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(model): Path<String>,
) -> Result<Json<Card>, Problem> {
    caller.check(&model)?;
    if model == app.backbone.name() {
        return Ok(Json(Card::backbone(&app)));
    }
    let (version, loaded) = app.shelf.adapter(&model).await.map_err(|error| caller.told(&error))?;
    Ok(Json(Card::new(&app, version, Some(&loaded))))
}

/// How many words to show.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct WordsQuery {
    #[serde(default = "three")]
    count: usize,
}

fn three() -> usize {
    3
}

/// The words nearest to an adapter's learned prompts
///
/// Empty for adapters that learn no prompt among the embedded words.
#[utoipa::path(
    get, path = "/v1/models/{model}/words", tag = "models", params(WordsQuery),
    responses((status = 200, body = Vec<Words>), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn words(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(model): Path<String>,
    Query(query): Query<WordsQuery>,
) -> Result<Json<Vec<Words>>, Problem> {
    caller.check(&model)?;
    let (_, loaded) = app.shelf.adapter(&model).await.map_err(|error| caller.told(&error))?;
    let backbone = app.backbone.clone();
    let work = move || nearest_words(&loaded.artifact.adapter.parameters(), &backbone, query.count.clamp(1, 20));
    Ok(Json(tokio::task::spawn_blocking(work).await.map_err(|_| Problem::failed())?))
}
