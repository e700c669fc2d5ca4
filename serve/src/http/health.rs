//! Whether the server lives, whether it takes requests, and what Prometheus reads.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::app::App;

/// The state of a server.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
    backbone: String,
    version: &'static str,
}

/// Whether the process lives
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    let (backbone, version) = (app.backbone.name().into(), env!("CARGO_PKG_VERSION"));
    Json(Health { status: "ok", backbone, version })
}

/// Whether requests are taken
#[utoipa::path(get, path = "/ready", tag = "service", responses((status = 200), (status = 503)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> StatusCode {
    if app.ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Counters and times, in the format of Prometheus
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, body = String)))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let page = app.metrics.page(app.engine.waiting(), app.shelf.resident().await);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page).into_response()
}
