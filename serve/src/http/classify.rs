//! `POST /v1/classify`: which class an image belongs to.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use inarch_core::metrics::most_probable;
use inarch_recipes::label_probabilities;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::App;
use super::auth::Caller;
use super::images::{check_count, from_base64, pixels};
use super::problem::{Problem, ProblemBody};
use super::test_time::{Adapted, adapt};
use crate::adapters::{ClassSet, Head, Loaded, Version};
use crate::engine::Want;

/// Classes of an answer where the request does not say how many.
const TOP_K: usize = 5;
/// Images of a stream that are computed at once.
const AHEAD: usize = 64;

/// A classification as JSON. With an image as the body, the other fields stand in the query.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyRequest {
    /// `name`, `name@alias`, `name@version` or a digest; zero-shot when absent.
    pub(super) model: Option<String>,
    /// One image, base64.
    image: Option<String>,
    /// Several images, base64.
    images: Option<Vec<String>>,
    /// How many classes to answer with.
    top_k: Option<usize>,
    /// Classes to choose from; needed for zero-shot, else those of the adapter.
    pub(super) classes: Option<Vec<String>>,
    /// A template with `{}` or the name of a template set, for zero-shot.
    pub(super) template: Option<String>,
    /// Test-time adaptation: `none`, `tpt`, `zero`, `tda`, ...
    test_time: Option<String>,
}

/// The fields of a request whose body is an image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassifyQuery {
    model: Option<String>,
    top_k: Option<usize>,
    /// Separated by commas.
    classes: Option<String>,
    template: Option<String>,
    test_time: Option<String>,
}

/// A class and its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Prediction {
    label: String,
    score: f32,
}

/// What one image shows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ImageResult {
    /// Best first.
    predictions: Vec<Prediction>,
}

/// The answer: `predictions` for `image`, `results` for `images`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ClassifyResponse {
    /// The adapter, or the backbone for zero-shot.
    model: String,
    /// The version that answered.
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    predictions: Option<Vec<Prediction>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<ImageResult>>,
    /// What the adaptation did, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    test_time: Option<Adapted>,
}

/// A request of any of the three forms.
struct Classify {
    fields: ClassifyRequest,
    images: Vec<Bytes>,
    /// Whether one image was sent as such.
    single: bool,
}

/// Classifies images
///
/// The body is JSON, `multipart/form-data` with the same fields (`image` repeatedly, `classes` separated by commas), or
/// one image with the other fields in the query. With `Accept: application/x-ndjson` each image is answered with a line
/// of its own as soon as it is done, in the order of the images.
#[utoipa::path(
    post, path = "/v1/classify", tag = "inference",
    request_body(content((ClassifyRequest = "application/json"), (String = "multipart/form-data"), (Vec<u8> = "image/*"))),
    responses((status = 200, body = ClassifyResponse), (status = "4XX", body = ProblemBody), (status = "5XX", body = ProblemBody)),
)]
pub(crate) async fn classify(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let lines = accept.contains("application/x-ndjson");
    let Classify { fields, images, single } = read(&app, request).await?;
    check_count(&app, images.len())?;
    if fields.top_k == Some(0) {
        return Err(Problem::invalid("`top_k` must be at least 1").hint("leave it out for the usual number"));
    }
    let (version, head) = head(&app, &caller, fields.model.as_deref(), fields.classes, fields.template).await?;
    let top_k = fields.top_k.unwrap_or(TOP_K);
    app.metrics.images(&version.name, &version.version, images.len());
    let method = fields.test_time.as_deref().filter(|method| *method != "none");
    if lines && method.is_some() {
        return Err(Problem::invalid("a method that adapts sees the images of a request together")
            .hint("leave `Accept: application/x-ndjson` or `test_time` out"));
    }
    if lines {
        return Ok(stream(app, head, images, top_k));
    }
    let (scores, test_time) = match method {
        Some(method) => {
            let (scores, adapted) = adapt(&app, method, &version, &head, images).await?;
            (scores, Some(adapted))
        }
        None => {
            let count = images.len();
            let want = Want::Scores(pixels(&app, images, head.window()).await?);
            (app.compute(&head, want, count).await?, None)
        }
    };
    let mut results: Vec<ImageResult> = scores.iter().map(|logits| result(&head, logits, top_k)).collect();
    let predictions = single.then(|| results.remove(0).predictions);
    let results = (!single).then_some(results);
    let (model, version) = (version.name, version.version);
    Ok(Json(ClassifyResponse { model, version, predictions, results, test_time }).into_response())
}

/// What scores are taken over. Without a model it is the backbone, which needs classes.
pub(super) async fn head(
    app: &App,
    caller: &Caller,
    model: Option<&str>,
    classes: Option<Vec<String>>,
    template: Option<String>,
) -> Result<(Version, Arc<Head>), Problem> {
    let classes = classes.unwrap_or_default();
    if classes.len() > app.settings.classes {
        let most = app.settings.classes;
        return Err(Problem::too_large(format!("{} classes; at most {most} fit one request", classes.len())));
    }
    if let Some(empty) = classes.iter().position(|class| class.trim().is_empty()) {
        return Err(Problem::invalid(format!("class {empty} is an empty name")));
    }
    let (version, adapter) = named(app, caller, model).await?;
    if classes.is_empty() && !adapter.as_deref().is_some_and(Loaded::knows_classes) {
        let hint = "send `classes`, e.g. [\"cat\", \"dog\"], or a `model` that knows its own";
        return Err(Problem::invalid("this model knows no classes").hint(hint));
    }
    if template.is_some() && adapter.is_some() {
        return Err(Problem::invalid("an adapter brings its own template").hint("leave `template` out"));
    }
    Ok((version, app.shelf.head(adapter, ClassSet { classes, template }).await?))
}

/// The adapter that a request names, or the backbone alone. It is looked up once: an alias that moves meanwhile moves for the
/// next request.
pub(super) async fn named(
    app: &App,
    caller: &Caller,
    model: Option<&str>,
) -> Result<(Version, Option<Arc<Loaded>>), Problem> {
    caller.check(model.filter(|model| !model.is_empty()).unwrap_or(app.backbone.name()))?;
    match model.filter(|model| !model.is_empty() && *model != app.backbone.name()) {
        Some(model) => {
            let (version, loaded) = app.shelf.adapter(model).await.map_err(|error| caller.told(&error))?;
            Ok((version, Some(loaded)))
        }
        None => Ok((backbone_version(app), None)),
    }
}

/// How the backbone itself is called in answers.
pub(super) fn backbone_version(app: &App) -> Version {
    let digest = app.backbone.digest();
    Version { name: app.backbone.name().into(), version: digest.short().into(), digest: digest.to_string() }
}

/// One line an image, in order, computed a few at a time.
fn stream(app: Arc<App>, head: Arc<Head>, images: Vec<Bytes>, top_k: usize) -> Response {
    let one = move |image: Bytes| {
        let (app, head) = (app.clone(), head.clone());
        async move {
            let answer = async {
                let want = Want::Scores(pixels(&app, vec![image], head.window()).await?);
                app.compute(&head, want, 1).await
            };
            let line = match answer.await {
                Ok(scores) => serde_json::to_string(&result(&head, &scores[0], top_k)),
                Err(problem) => serde_json::to_string(&problem.body()),
            };
            line.map(|line| line + "\n")
        }
    };
    let body = Body::from_stream(futures_util::stream::iter(images).map(one).buffered(AHEAD));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The `top_k` most probable classes; of an image with several labels each has a probability of its own.
fn result(head: &Head, logits: &[f32], top_k: usize) -> ImageResult {
    let classes = head.classifier.classes();
    if head.offsets.is_some() {
        let scores = label_probabilities(logits, classes.len(), head.offsets.as_deref());
        let mut predictions: Vec<Prediction> =
            classes.iter().zip(scores).map(|(label, score)| Prediction { label: label.clone(), score }).collect();
        predictions.sort_by(|left, right| right.score.total_cmp(&left.score));
        predictions.truncate(top_k.max(1));
        return ImageResult { predictions };
    }
    let prediction = |(class, score): (usize, f32)| Prediction { label: classes[class].clone(), score };
    ImageResult { predictions: most_probable(logits, top_k.max(1)).into_iter().map(prediction).collect() }
}

/// Reads a request of any of the three forms.
async fn read(app: &Arc<App>, request: Request) -> Result<Classify, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" | "" => {
            let Json(mut fields) = Json::<ClassifyRequest>::from_request(request, app).await.map_err(rejected)?;
            let (image, images) = (fields.image.take(), fields.images.take());
            let single = image.is_some();
            if single && images.is_some() {
                return Err(Problem::invalid("`image` and `images` exclude each other"));
            }
            let images: Vec<String> = image.into_iter().chain(images.unwrap_or_default()).collect();
            check_count(app, images.len())?;
            let images = images.iter().map(|image| from_base64(image)).collect::<Result<_, _>>()?;
            Ok(Classify { fields, images, single })
        }
        "multipart/form-data" => form(app, request).await,
        kind if kind.starts_with("image/") || kind == "application/octet-stream" => {
            let Query(query) = Query::<ClassifyQuery>::try_from_uri(request.uri())
                .map_err(|error| Problem::invalid(error.body_text()))?;
            let body = Bytes::from_request(request, app).await.map_err(rejected)?;
            let ClassifyQuery { model, top_k, classes, template, test_time } = query;
            let classes = classes.map(|classes| list(&classes));
            let fields = ClassifyRequest { model, top_k, classes, template, test_time, ..Default::default() };
            Ok(Classify { fields, images: vec![body], single: true })
        }
        other => Err(Problem::new(
            axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("a body of type `{other}` is not read"),
        )
        .hint("send application/json, multipart/form-data, or an image as image/jpeg, image/png, ...")),
    }
}

/// Reads a form; files are images, the rest are the fields of JSON.
async fn form(app: &Arc<App>, request: Request) -> Result<Classify, Problem> {
    let mut form = Multipart::from_request(request, app).await.map_err(rejected)?;
    let (mut fields, mut images) = (ClassifyRequest::default(), Vec::new());
    while let Some(field) = form.next_field().await.map_err(rejected)? {
        let name = field.name().unwrap_or_default().to_string();
        let bytes = field.bytes().await.map_err(rejected)?;
        let text = || {
            let text = std::str::from_utf8(&bytes).map(str::trim).map(String::from);
            text.map_err(|_| Problem::invalid(format!("field `{name}` is not UTF-8")))
        };
        match name.as_str() {
            "image" | "images" => {
                images.push(bytes);
                check_count(app, images.len())?;
            }
            "model" => fields.model = Some(text()?),
            "template" => fields.template = Some(text()?),
            "test_time" => fields.test_time = Some(text()?),
            "classes" => fields.classes.get_or_insert_default().extend(list(&text()?)),
            "top_k" => {
                let wrong = |_| Problem::invalid("`top_k` must be a whole number");
                fields.top_k = Some(text()?.parse().map_err(wrong)?);
            }
            other => return Err(Problem::invalid(format!("unknown field `{other}`"))),
        }
    }
    let single = images.len() == 1;
    Ok(Classify { fields, images, single })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|class| class.trim().to_string()).collect()
}

/// A body that could not be read: too large, cut short, not what it says it is.
pub(super) fn rejected(rejection: impl IntoResponse + std::fmt::Display) -> Problem {
    let message = rejection.to_string();
    match rejection.into_response().status() {
        status @ axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "too_large", "the body is larger than this server takes")
        }
        _ => Problem::invalid(message),
    }
}
