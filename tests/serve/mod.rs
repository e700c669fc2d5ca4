//! A server on a loopback port, asked as a client would: answers equal those of the library, row by row.

mod adapters;
mod classify;
mod client;
mod embeddings;
mod limits;
mod page;
mod registry;
mod soak;
mod test_time;
mod tokens;
mod world;
