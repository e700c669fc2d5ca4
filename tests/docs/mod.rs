//! The guide against the program.

mod examples;
mod keys;
mod stream_recipes;

use std::path::Path;

pub(crate) use keys::documented;

/// A page of the guide.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
