//! Test-time adaptation of a request, and the streams of the methods that keep a state.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use inarch_core::image::{RgbImage, Window, decode_image_bytes_within};
use inarch_core::{Digest, DigestBuilder};
use inarch_recipes::test_time::{Model, Outcome, TestTime, TestTimeConfig};
use utoipa::ToSchema;

use super::app::App;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use crate::adapters::{Head, Version};
use crate::streams::{Stream, StreamCard};

/// What the adaptation did.
#[derive(Debug, Clone, serde::Serialize, ToSchema)]
pub(crate) struct Adapted {
    method: String,
    /// The stream, for methods that keep a state.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// Images for which the unadapted answer was kept, because the method had collapsed.
    fell_back: usize,
    /// Images whose answer is too unsure to be relied on.
    abstained: usize,
}

/// Adapts to some images; returns the scores of each, and what was done.
pub(super) async fn adapt(
    app: &Arc<App>,
    method: &str,
    version: &Version,
    head: &Arc<Head>,
    images: Vec<Bytes>,
) -> Result<(Vec<Vec<f32>>, Adapted), Problem> {
    let config = TestTimeConfig::new(method, &[])?;
    let needs = config.needs(&app.backbone);
    if needs.judge.is_some() {
        return Err(Problem::invalid(format!("`{method}` needs a second backbone, which this server does not have")));
    }
    let stream = if needs.online { Some(stream(app, method, version, head)?) } else { None };
    let limit = app.settings.timeout;
    let late = |_| Problem::late(limit);
    // One adaptation at a time: it takes all cores, and those who only classify must get their turn.
    let permit = tokio::time::timeout(limit, app.adapting.clone().acquire_owned()).await.map_err(late)?;
    let mut state = match &stream {
        Some(stream) => Some(tokio::time::timeout(limit, stream.clone().lock_owned()).await.map_err(late)?),
        None => None,
    };
    let (app, head) = (app.clone(), head.clone());
    let work = move || -> Result<(Vec<Outcome>, Option<String>), Problem> {
        let _permit = permit;
        let model = Model { backbone: &app.backbone, classifier: &head.classifier, sites: head.sites() };
        let mut tester = TestTime::new(model, &config, None, None)?;
        if let Some(snapshot) = state.as_ref().and_then(|state| state.1.as_ref()) {
            tester.restore(snapshot)?;
        }
        let mut episodes = Vec::with_capacity(images.len());
        let mut left = images.iter().enumerate();
        loop {
            let named = decoded(&app, &mut left, head.window())?;
            if named.is_empty() {
                break;
            }
            let named: Vec<(&str, &RgbImage)> = named.iter().map(|(name, image)| (name.as_str(), image)).collect();
            episodes.extend(tester.episodes(&named)?);
        }
        let outcomes = tester.adapt(&episodes)?;
        let id = state.as_mut().map(|state| {
            state.0.images = tester.position();
            state.1 = Some(tester.snapshot());
            state.0.id.clone()
        });
        Ok((outcomes, id))
    };
    let (outcomes, stream) = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::failed())??;
    let adapted = Adapted {
        method: method.into(),
        stream,
        fell_back: outcomes.iter().filter(|outcome| outcome.fell_back.is_some()).count(),
        abstained: outcomes.iter().filter(|outcome| outcome.abstained).count(),
    };
    Ok((outcomes.into_iter().map(|outcome| outcome.scores).collect(), adapted))
}

/// The next images, as many as have the pixels that one may have: a small file may be a large image. Their names are made of
/// their content, so that equal images have equal views.
fn decoded<'a>(
    app: &App,
    images: &mut impl Iterator<Item = (usize, &'a Bytes)>,
    window: Option<Window>,
) -> Result<Vec<(String, RgbImage)>, Problem> {
    let limit = app.settings.image_pixels;
    let (mut found, mut pixels) = (Vec::new(), 0);
    while pixels < limit.max(1)
        && let Some((at, bytes)) = images.next()
    {
        let name = format!("image {at} of the request");
        let image = decode_image_bytes_within(bytes, FilePath::new(&name), limit, window);
        let image = image.map_err(|error| Problem::from(crate::error::Error::from(error)))?;
        pixels += u64::from(image.width()) * u64::from(image.height());
        found.push((Digest::of(bytes).to_string(), image));
    }
    Ok(found)
}

fn stream(app: &App, method: &str, version: &Version, head: &Head) -> Result<Stream, Problem> {
    let mut id = DigestBuilder::default();
    id.piece(version.digest.as_bytes()).piece(method.as_bytes());
    for text in head.classifier.templates() {
        id.piece(text.to_string().as_bytes());
    }
    for class in head.classifier.classes() {
        id.piece(class.as_bytes());
    }
    let card = StreamCard {
        id: id.finish().short().to_string(),
        model: version.name.clone(),
        version: version.version.clone(),
        method: method.into(),
        images: 0,
    };
    app.streams.get_or_begin(card).ok_or_else(|| {
        Problem::new(StatusCode::INSUFFICIENT_STORAGE, "too_many_streams", "too many streams are kept")
            .hint("`DELETE /v1/streams/ID` forgets one")
    })
}

/// Lists the streams of methods that keep a state
#[utoipa::path(get, path = "/v1/streams", tag = "test-time", responses((status = 200, body = Vec<StreamCard>)))]
pub(crate) async fn streams(State(app): State<Arc<App>>, caller: Caller) -> Json<Vec<StreamCard>> {
    let mut cards = Vec::new();
    for stream in app.streams.list() {
        cards.push(stream.lock().await.0.clone());
    }
    cards.retain(|card| caller.may_use(&card.model));
    Json(cards)
}

/// The state of a stream, as a file that `inarch eval --test-time-state` reads
#[utoipa::path(
    get, path = "/v1/streams/{id}", tag = "test-time",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn snapshot(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stream = app.streams.get(&id).ok_or_else(|| unknown(&id))?;
    let state = stream.lock().await;
    if !caller.may_use(&state.0.model) {
        return Err(unknown(&id));
    }
    let snapshot = state.1.as_ref().ok_or_else(|| unknown(&id))?;
    let bytes = snapshot.encode()?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// Forgets a stream
#[utoipa::path(
    delete, path = "/v1/streams/{id}", tag = "test-time",
    responses((status = 204), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn reset(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    if app.streams.remove(&id) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&id)) }
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown_stream", format!("there is no stream `{id}`"))
        .hint("`GET /v1/streams` lists them")
}
