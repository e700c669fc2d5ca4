//! One file for each command.

pub(crate) mod agent;
pub(crate) mod backbone;
pub(crate) mod captions;
pub(crate) mod combine;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod corrupt;
pub(crate) mod data_sets;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod encode;
pub(crate) mod eval;
pub(crate) mod fit;
#[cfg(feature = "remote")]
pub(crate) mod lend;
pub(crate) mod memory;
pub(crate) mod merge;
pub(crate) mod predict;
pub(crate) mod pretrain;
pub(crate) mod registry;
pub(crate) mod serve;
pub(crate) mod stream;
pub(crate) mod update;
