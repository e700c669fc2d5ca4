//! The binary as a user meets it: from an empty folder, through arguments, files, stdout, stderr and exit codes.

mod adapters;
#[cfg(unix)]
mod at_work;
mod clips;
mod closed_model;
mod compare;
mod crop;
mod crossing;
mod devices;
mod drift;
mod errors;
mod examples;
mod expire;
mod features;
mod fleet;
mod forget;
mod fusion;
mod gate;
mod hub;
mod hub_server;
#[cfg(unix)]
mod in_clear;
mod json;
mod medical;
mod pairs;
mod plan;
mod program;
mod real_images;
mod recipes;
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
mod trunks;
mod update;
mod videos;
mod views;

use program::Program;
