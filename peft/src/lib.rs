//! What is trained beside a frozen backbone, and where it enters.
//!
//! In flow a frozen [`Backbone`](inarch_core::backbone::Backbone) and a [`MethodConfig`]; out flow an [`Adapter`], the
//! [`Classifier`] that scores with it and the [`Artifact`] that stores it. This crate knows no data sets and no training
//! loops.
#![forbid(unsafe_code)]

mod adapter;
mod artifact;
mod classifier;
mod coop;
mod error;
mod fixed;
mod learner;
mod linear_probe;
mod linear_sites;
mod lora;
mod method;
mod parameters;

pub use adapter::{Adapter, METHODS, MethodConfig};
pub use artifact::{Artifact, BackboneRef, MANIFEST_FILE, Manifest, Provenance, SCHEMA, SelfTest, TENSORS_FILE};
pub use classifier::{ClassText, Classifier};
pub use coop::{Coop, CoopConfig};
pub use error::{Error, Result};
pub use fixed::Fixed;
pub use learner::{Averaging, Guide, Learner, Loss, Step, cross_entropy};
pub use linear_probe::{LinearProbe, LinearProbeConfig};
pub use linear_sites::{LinearSites, all_sites};
pub use lora::{Lora, LoraConfig};
pub use method::{Method, Prior, Start, Support, VisitPixels};
pub use parameters::{Parameters, identified};
