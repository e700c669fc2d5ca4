//! Bearer tokens and what each of them allows.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use inarch_core::file;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::app::App;
use super::problem::Problem;
use crate::error::{Error, Result};

/// Fewer characters could be guessed.
const SHORTEST: usize = 16;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Classify, embed, compare, list.
    Predict,
    /// Load, unload and move adapters.
    Admin,
    /// Read `/metrics`.
    Metrics,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    token: String,
    scopes: Vec<Scope>,
    /// The models that it is for; all when absent.
    models: Option<Vec<String>>,
}

/// Who asks, as far as routes have to know.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    models: Option<Arc<[String]>>,
}

impl Caller {
    /// Whether it may know of a model: an adapter's name, with a version or alias or without, or the backbone's.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        let name = model.split_once('@').map_or(model, |(name, _)| name);
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        self.models.as_ref().is_none_or(|models| models.iter().any(fits))
    }

    /// A fault as this caller may hear it: of what there is instead, its own models only.
    pub(crate) fn told(&self, error: &Error) -> Problem {
        match error {
            Error::UnknownModel { reference, candidates } => {
                let candidates = candidates.iter().filter(|name| self.may_use(name)).cloned().collect();
                Problem::of(&Error::UnknownModel { reference: reference.clone(), candidates })
            }
            error => Problem::of(error),
        }
    }

    /// Refuses a model that is somebody else's. Whether there is such a model is not told.
    pub(crate) fn check(&self, model: &str) -> Result<(), Problem> {
        if self.may_use(model) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("this token is not for model `{model}`"))
            .hint("`GET /v1/models` lists those that it is for; a version is asked for by name, not by digest"))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Without a file of tokens everyone may do everything.
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Everyone who may do something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    #[serde(rename = "token")]
    tokens: Vec<Token>,
}

impl Tokens {
    /// Reads a file of `[[token]]` tables with `name`, `token`, `scopes` and perhaps `models`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Tokens { path: path.to_path_buf(), reason };
        let tokens: Self = toml::from_str(&file::read_text(path)?).map_err(|error| wrong(error.message().into()))?;
        if let Some(both) =
            tokens.tokens.iter().find(|token| token.models.is_some() && token.scopes.contains(&Scope::Admin))
        {
            let name = &both.name;
            return Err(wrong(format!("`{name}` has `models` and the scope `admin`, which is for all models")));
        }
        match tokens.tokens.iter().find(|token| token.token.len() < SHORTEST) {
            Some(short) => Err(wrong(format!("the token of `{}` has fewer than {SHORTEST} characters", short.name))),
            None if tokens.tokens.is_empty() => Err(wrong("it names no token".into())),
            None => Ok(tokens),
        }
    }

    /// The token that was given, compared in a time that tells nothing about the others.
    fn find(&self, given: &str) -> Option<&Token> {
        let same = |token: &Token| bool::from(token.token.as_bytes().ct_eq(given.as_bytes()));
        self.tokens.iter().fold(None, |found, token| if same(token) { Some(token) } else { found })
    }
}

/// Lets a request pass whose token has the scope.
async fn require(app: &App, scope: Scope, mut request: Request, next: Next) -> Response {
    let Some(tokens) = &app.tokens else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let Some(token) = given.and_then(|(_, token)| tokens.find(token.trim())) else {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
            .hint("send `Authorization: Bearer TOKEN`");
        let mut response = problem.into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        return response;
    };
    if !token.scopes.contains(&scope) {
        let scope = format!("{scope:?}").to_lowercase();
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("this token lacks the scope `{scope}`"))
            .into_response();
    }
    request.extensions_mut().insert(Caller { models: token.models.clone().map(Arc::from) });
    next.run(request).await
}

pub(crate) async fn predict(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    require(&app, Scope::Predict, request, next).await
}

pub(crate) async fn admin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    require(&app, Scope::Admin, request, next).await
}

pub(crate) async fn metrics(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    require(&app, Scope::Metrics, request, next).await
}
