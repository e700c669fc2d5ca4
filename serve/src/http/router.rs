//! All routes with their layers, and their description as OpenAPI.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::problem::Problem;
use super::{adapters, auth, classify, embeddings, health, models, page, relevance, similarity, test_time};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(OpenApi)]
#[openapi(info(
    title = "inarch",
    description = "One frozen backbone, many adapters. Errors are `{\"error\": {\"code\", \"message\", \"hint\"}}`."
))]
struct Description;

fn described(app: &Arc<App>) -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    let predict = OpenApiRouter::new()
        .routes(routes!(classify::classify))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(similarity::similarity))
        .routes(routes!(relevance::relevance))
        .routes(routes!(models::models))
        .routes(routes!(models::model))
        .routes(routes!(models::words))
        .routes(routes!(test_time::streams))
        .routes(routes!(test_time::snapshot))
        .route_layer(from_fn_with_state(app.clone(), auth::predict));
    let admin = OpenApiRouter::new()
        .routes(routes!(adapters::load))
        .routes(routes!(adapters::unload))
        .routes(routes!(adapters::alias))
        .routes(routes!(adapters::load_lora_adapter))
        .routes(routes!(test_time::reset))
        .routes(routes!(adapters::unload_lora_adapter))
        .route_layer(from_fn_with_state(app.clone(), auth::admin));
    let metrics = OpenApiRouter::new()
        .routes(routes!(health::metrics))
        .route_layer(from_fn_with_state(app.clone(), auth::metrics));
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .merge(predict)
        .merge(admin)
        .merge(metrics)
        .split_for_parts()
}

/// The description of all routes, as JSON.
pub(crate) fn openapi(app: &Arc<App>) -> String {
    json(&described(app).1)
}

fn json(description: &utoipa::openapi::OpenApi) -> String {
    description.to_pretty_json().unwrap_or_default()
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, description) = described(&app);
    let description: Arc<str> = json(&description).into();
    let description = move || async move { ([(header::CONTENT_TYPE, "application/json")], description.to_string()) };
    routes
        .route("/openapi.json", get(description))
        .route("/", get(page::index))
        .route("/style.css", get(page::style))
        .route("/app.js", get(page::script))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(app.settings.body_bytes))
        .layer(CatchPanicLayer::custom(|_| Problem::failed().into_response()))
        .layer(from_fn_with_state(app.clone(), observed))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(cors(&app.settings.cors))
        .with_state(app)
}

/// No page elsewhere may call this server unless its origin is named.
fn cors(origins: &[String]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::ACCEPT])
}

/// Counts and logs every request, and refuses them once the server is about to stop.
async fn observed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The pattern of the route and not the path: a path is the client's text and would make ever new labels.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown".to_string(), |path| path.as_str().into());
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_string();
    let watching = matches!(route.as_str(), "/health" | "/ready" | "/metrics");
    let request = request.map(|body| awaited(body, app.settings.silence));
    let response = if app.ready() || watching {
        next.run(request).await
    } else {
        Problem::from(crate::engine::Fault::Stopping).into_response()
    };
    let (status, took) = (response.status(), started.elapsed());
    app.metrics.request(&route, status.as_u16(), took);
    tracing::info!(
        request_id = id, %method, route, status = status.as_u16(), milliseconds = took.as_secs_f64() * 1e3, "request"
    );
    response
}

/// A body that fails once nothing more of it comes: whoever stops sending does not keep its connection for ever.
fn awaited(body: Body, silence: Duration) -> Body {
    let next = move |mut body: BodyDataStream| async move {
        match tokio::time::timeout(silence, body.next()).await {
            Ok(next) => next.map(|piece| (piece, body)),
            Err(late) => Some((Err(axum::Error::new(late)), body)),
        }
    };
    Body::from_stream(unfold(body.into_data_stream(), next))
}

async fn unknown_route(request: Request) -> Problem {
    let message = format!("there is no `{}` here", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "unknown_route", message).hint("`GET /openapi.json` describes all routes")
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("`{}` does not take {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}
