//! `/v1/adapters`, and the two routes that clients of vLLM know: adapters come and go while requests are answered.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::App;
use super::classify::rejected;
use super::models::Card;
use super::problem::{Problem, ProblemBody};
use crate::adapters::{Bind, Version};

/// An adapter to load: from a folder under a name, or from the registry by reference.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadRequest {
    /// The name for an adapter in a folder.
    name: Option<String>,
    /// The folder, below the server's adapter root.
    path: Option<String>,
    /// `name`, `name@alias` or `name@version` of the registry, to be kept in memory.
    reference: Option<String>,
    /// Whether it stays in memory however many others are asked for.
    #[serde(default)]
    pin: bool,
    /// Whether the name may stand for another version now.
    #[serde(default)]
    replace: bool,
    /// The digest that the name must stand for now.
    expected_digest: Option<String>,
}

/// What vLLM's clients send.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct LoadLoraRequest {
    lora_name: String,
    lora_path: String,
    #[serde(default)]
    load_inplace: bool,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct UnloadLoraRequest {
    lora_name: String,
}

/// Where an alias shall stand.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRequest {
    version: String,
    /// Where it must stand now; anywhere when absent.
    expected: Option<String>,
}

/// Where it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct AliasResponse {
    name: String,
    alias: String,
    version: String,
    digest: String,
}

/// Loads an adapter
#[utoipa::path(
    post, path = "/v1/adapters", tag = "adapters", request_body = LoadRequest,
    responses((status = 201, body = Card), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    request: Result<Json<LoadRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Card>), Problem> {
    let Json(LoadRequest { name, path, reference, pin, replace, expected_digest: expected }) =
        request.map_err(rejected)?;
    let version = match (name, path, reference) {
        (Some(name), Some(path), None) => {
            let folder = below_root(&app, &path)?;
            bind(&app, Bind { name, folder, pin, replace, expected }).await?
        }
        (None, None, Some(reference)) if pin => app.shelf.pin(&reference).await?,
        (None, None, Some(reference)) => app.shelf.adapter(&reference).await?.0,
        _ => {
            return Err(Problem::invalid("what is to be loaded is unclear")
                .hint("give `name` and `path` of a folder, or `reference` of an adapter of the registry"));
        }
    };
    // The same content may go by another name as well.
    let (_, loaded) = app.shelf.adapter(&version.digest).await?;
    Ok((StatusCode::CREATED, Json(Card::new(&app, version, Some(&loaded)))))
}

/// Takes the name of an adapter in a folder away
#[utoipa::path(
    delete, path = "/v1/adapters/{name}", tag = "adapters",
    responses((status = 204), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn unload(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    app.shelf.unbind(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Moves an alias of the registry
#[utoipa::path(
    put, path = "/v1/adapters/{name}/aliases/{alias}", tag = "adapters", request_body = AliasRequest,
    responses((status = 200, body = AliasResponse), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn alias(
    State(app): State<Arc<App>>,
    Path((name, alias)): Path<(String, String)>,
    request: Result<Json<AliasRequest>, JsonRejection>,
) -> Result<Json<AliasResponse>, Problem> {
    let Json(AliasRequest { version, expected }) = request.map_err(rejected)?;
    // Nobody is sent to a version that cannot be served: it is this one that moves, whatever `version` stands for by then.
    let (served, _) = app.shelf.adapter(&format!("{name}@{version}")).await?;
    let (name_, alias_, app_) = (name.clone(), alias.clone(), app.clone());
    let work = move || app_.shelf.promote(&name_, &alias_, &served.version, expected.as_deref());
    let Version { version, digest, .. } = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::failed())??;
    Ok(Json(AliasResponse { name, alias, version, digest }))
}

/// Loads an adapter, as vLLM's route of this name
#[utoipa::path(
    post, path = "/v1/load_lora_adapter", tag = "adapters", request_body = LoadLoraRequest,
    responses((status = 200, body = String), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn load_lora_adapter(
    State(app): State<Arc<App>>,
    request: Result<Json<LoadLoraRequest>, JsonRejection>,
) -> Result<String, Problem> {
    let Json(LoadLoraRequest { lora_name: name, lora_path, load_inplace: replace }) = request.map_err(rejected)?;
    let folder = below_root(&app, &lora_path)?;
    let version = bind(&app, Bind { name, folder, pin: false, replace, expected: None }).await?;
    Ok(format!("Success: LoRA adapter '{}' added successfully.", version.name))
}

/// Takes an adapter's name away, as vLLM's route of this name
#[utoipa::path(
    post, path = "/v1/unload_lora_adapter", tag = "adapters", request_body = UnloadLoraRequest,
    responses((status = 200, body = String), (status = "4XX", body = ProblemBody)),
)]
pub(crate) async fn unload_lora_adapter(
    State(app): State<Arc<App>>,
    request: Result<Json<UnloadLoraRequest>, JsonRejection>,
) -> Result<String, Problem> {
    let Json(UnloadLoraRequest { lora_name }) = request.map_err(rejected)?;
    app.shelf.unbind(&lora_name).await?;
    Ok(format!("Success: LoRA adapter '{lora_name}' removed successfully."))
}

async fn bind(app: &App, bind: Bind) -> Result<Version, Problem> {
    let name = &bind.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(plain) || *name == app.backbone.name() {
        return Err(Problem::invalid(format!("`{name}` is no name for an adapter"))
            .hint("letters, digits, `-`, `_` and `.`, and not the backbone's name"));
    }
    Ok(app.shelf.bind(bind).await?)
}

/// A folder that a request names, if the operator allows folders and it lies below theirs, links followed.
fn below_root(app: &App, path: &str) -> Result<PathBuf, Problem> {
    let forbidden = |message: &str| Problem::new(StatusCode::FORBIDDEN, "path_not_allowed", message);
    let Some(root) = &app.settings.adapter_root else {
        return Err(
            forbidden("adapters are not loaded by path here").hint("start the server with `--adapter-root FOLDER`")
        );
    };
    // The same words whether it is missing or elsewhere: a request must not be able to look around.
    let outside = || forbidden("there is no such folder below the adapter root");
    let root = root.canonicalize().map_err(|_| outside())?;
    let folder = root.join(path).canonicalize().map_err(|_| outside())?;
    if folder.starts_with(&root) && folder.is_dir() { Ok(folder) } else { Err(outside()) }
}
