//! What the tests share: fixtures, the tiny backbone, comparisons, random values, a naive reference.

mod compare;
mod fixture;
mod parameter;
mod reference;
mod tiny;

pub(crate) use compare::{close, differs, same};
pub(crate) use fixture::{copied, data_folder, edit_json, edit_tensors, fixture};
pub(crate) use parameter::{Gradient, draws, gradients, learned, randomised};
pub(crate) use reference::{Edits, Reference, Rows, flat};
pub(crate) use tiny::{CLASSES, classes, pixels, plain, rebuilt, rows, templates, tiny, tracked};
