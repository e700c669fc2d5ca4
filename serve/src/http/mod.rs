//! The routes. One file for each kind of request.

mod adapters;
mod app;
mod auth;
mod classify;
mod embeddings;
mod health;
mod images;
mod models;
mod page;
mod problem;
mod relevance;
mod router;
mod similarity;
mod test_time;

pub(crate) use app::App;
pub(crate) use auth::Tokens;
pub(crate) use router::{openapi, router};
