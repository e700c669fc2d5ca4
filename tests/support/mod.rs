//! What the tests share: fixtures, data sets, the tiny backbone, comparisons, random values, a naive reference.

mod compare;
mod dataset;
mod fixture;
mod parameter;
mod reference;
mod tiny;

pub(crate) use compare::{close, differs, differs_by, like_reference, same, same_features};
pub(crate) use dataset::{FeatureRow, feature_dataset};
pub(crate) use fixture::{copied, data_folder, edit_json, edit_tensors, fixture};
pub(crate) use parameter::{draws, gradients, learned, randomised};
pub(crate) use reference::{Edits, Reference, Rows, flat, layer_name, product, rows_of};
pub(crate) use tiny::{begin, classes, features, pixels, plain, rebuilt, rows, templates, tiny, tracked};
