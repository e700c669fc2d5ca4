//! Faults as clients meet them: a status, a stable code, what happened and what to do.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inarch_core::Error as CoreError;
use inarch_peft::Error as PeftError;
use inarch_recipes::Error as RecipeError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Fault;
use crate::error::Error;

/// The body of every answer that is no success.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    error: ProblemDetail,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct ProblemDetail {
    /// Stable, for programs: `unknown_model`, `bad_image`, `queue_full`, ...
    code: &'static str,
    /// What happened, for people.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Why a request is not answered with success.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: ProblemDetail,
    retry_seconds: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, detail: ProblemDetail { code, message: message.into(), hint: None }, retry_seconds: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.detail.hint = Some(hint.into());
        self
    }

    /// A request that does not say what it must say.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// A body, image or number of things beyond its limit.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(crate) fn late(limit: Duration) -> Self {
        let message = format!("no answer within {} s", limit.as_secs_f64());
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    pub(crate) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the computation failed; the server's log says more")
    }

    /// Its code and message, for a line of a stream.
    pub(crate) fn body(&self) -> ProblemBody {
        ProblemBody { error: self.detail.clone() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let mut problem = match fault {
            Fault::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", fault.to_string()),
            Fault::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", fault.to_string()),
            Fault::Late => Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", fault.to_string()),
            Fault::Failed => Self::failed(),
        };
        problem.retry_seconds = matches!(fault, Fault::Busy | Fault::Stopping).then_some(1);
        problem
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

impl From<RecipeError> for Problem {
    fn from(error: RecipeError) -> Self {
        match error {
            RecipeError::Core(error) => Self::of(&Error::Core(error)),
            RecipeError::Peft(error) => Self::of(&Error::Peft(error)),
            other => Self::invalid(other.to_string()),
        }
    }
}

impl From<Arc<Error>> for Problem {
    fn from(error: Arc<Error>) -> Self {
        Self::of(&error)
    }
}

impl Problem {
    /// The fault of an error of this crate.
    pub(super) fn of(error: &Error) -> Self {
        let message = error.to_string();
        let new = |status, code| Self::new(status, code, message.clone());
        match error {
            Error::UnknownModel { candidates, .. } => {
                new(StatusCode::NOT_FOUND, "unknown_model").hint(match &candidates[..] {
                    [] => "no adapters are known; `GET /v1/models` lists them".into(),
                    known => format!("known: {}", known.iter().take(12).cloned().collect::<Vec<_>>().join(", ")),
                })
            }
            Error::Conflict { .. } => new(StatusCode::CONFLICT, "conflict"),
            Error::Changed { .. } => new(StatusCode::CONFLICT, "changed"),
            Error::Refused { .. } => new(StatusCode::CONFLICT, "refused"),
            Error::TooLarge { .. } => new(StatusCode::INSUFFICIENT_STORAGE, "adapter_too_large"),
            Error::Shared(error) => Self::of(error),
            Error::Source { .. } => new(StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable"),
            Error::Core(core) | Error::Peft(PeftError::Core(core)) => match core {
                CoreError::BadImage { .. } => new(StatusCode::UNPROCESSABLE_ENTITY, "bad_image"),
                CoreError::Refused { .. } | CoreError::Mismatch { .. } => new(StatusCode::CONFLICT, "incompatible"),
                CoreError::Unknown { candidates, .. } => {
                    new(StatusCode::BAD_REQUEST, "invalid_request").hint(format!("known: {}", candidates.join(", ")))
                }
                CoreError::Invalid { .. } => new(StatusCode::BAD_REQUEST, "invalid_request"),
                // What lies where on this machine is nobody else's business.
                CoreError::Io { .. } => Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "unreadable_adapter",
                    "the adapter's files cannot be read; the server's log says more",
                ),
                _ => new(StatusCode::UNPROCESSABLE_ENTITY, "unreadable_adapter"),
            },
            Error::Peft(PeftError::UnknownClass { candidates, .. }) => {
                let known: Vec<&str> = candidates.iter().take(20).map(String::as_str).collect();
                new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_class").hint(format!("known: {}", known.join(", ")))
            }
            Error::Peft(PeftError::SelfTest { .. }) => new(StatusCode::CONFLICT, "self_test_failed"),
            Error::Peft(_) => new(StatusCode::UNPROCESSABLE_ENTITY, "unreadable_adapter"),
            Error::Listen { .. } | Error::Tls { .. } | Error::Tokens { .. } => Self::failed(),
        }
    }
}
