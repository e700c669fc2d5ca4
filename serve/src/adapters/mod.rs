//! Adapters by name: where they come from, which are in memory, and what they score with.

mod head;
mod loaded;
mod registry;
mod shelf;
mod source;
mod words;

pub(crate) use head::{ClassSet, Head};
pub(crate) use loaded::Loaded;
pub(crate) use shelf::{Bind, Shelf};
pub use source::{Files, Source, Version};
pub(crate) use words::{Words, nearest_words};
