//! What is trained beside a frozen backbone, and where it enters.
//!
//! In flow a frozen [`Backbone`](inarch_core::backbone::Backbone) and a [`MethodConfig`]; out flow an [`Adapter`], the
//! [`Classifier`] that scores with it and the [`Artifact`] that stores it. This crate knows no data sets and no training
//! loops.
#![forbid(unsafe_code)]

mod adapter;
mod affine;
mod analytic;
mod artifact;
mod branch;
mod class_parts;
mod classifier;
mod compose;
mod error;
mod feature;
mod fixed;
mod foreign;
mod judgement;
mod learner;
mod linear;
mod logits;
mod matrix;
mod method;
mod norm;
mod parameters;
mod self_test;
mod temporal;
mod tokens;

pub use adapter::{Adapter, METHODS, MethodConfig};
pub use analytic::*;
pub use artifact::{Artifact, BackboneRef, MANIFEST_FILE, Manifest, Provenance, SCHEMA, STAGED_FILE, TENSORS_FILE};
pub use branch::*;
pub use class_parts::{ClassPart, ClassParts};
pub use classifier::{ClassText, Classifier};
pub use compose::*;
pub use error::{Error, Result};
pub use feature::*;
pub use fixed::Fixed;
pub use foreign::{
    Import, ImportFormat, PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, import, open_adapter, read_peft, write_peft,
};
pub use judgement::{Judgement, Several, cross_entropy};
pub use learner::{Averaging, Correction, Guide, Learner, Loss, Step};
pub use linear::*;
pub use logits::*;
pub use method::{Method, Prior, Stacking, Start, Support, VisitPixels, Words};
pub use norm::*;
pub use parameters::{Parameters, identified};
pub use self_test::{ProbeFormula, ProbeInputs, SelfTest};
pub use temporal::*;
pub use tokens::*;
