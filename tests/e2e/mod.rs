//! The binary as a user meets it: from an empty folder, through arguments, files, stdout, stderr and exit codes.

mod adapters;
mod compare;
mod errors;
mod features;
mod fleet;
mod pairs;
mod program;
mod real_images;
mod registry;
mod resume;

use program::Program;
