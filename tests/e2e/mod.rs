//! The binary as a user meets it: from an empty folder, through arguments, files, stdout, stderr and exit codes.

mod adapters;
mod clips;
mod closed_model;
mod compare;
mod crop;
mod crossing;
mod devices;
mod errors;
mod examples;
mod features;
mod fleet;
mod forget;
mod fusion;
mod gate;
mod hub;
mod hub_server;
mod medical;
mod pairs;
mod plan;
mod program;
mod real_images;
mod registry;
mod rehearsal;
#[cfg(feature = "remote")]
mod remote;
mod resume;
mod shards;
mod slides;
mod store;
mod strategies;
mod stream;
mod test_time;
mod update;
mod videos;

use program::Program;
