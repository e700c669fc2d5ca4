//! Heads from statistics.

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_core::backbone::Frozen;
use inarch_core::data::ClipConfig;
use inarch_core::text::Template;
use inarch_peft::{Artifact, Classifier, MethodConfig, Provenance, Start, Statistics};

use crate::error::{Error, Result};

/// The adapter of an analytic method over some classes, as an artifact.
pub(crate) fn solve_head(
    backbone: &inarch_core::backbone::Backbone,
    method: &MethodConfig,
    statistics: &Statistics,
    classes: &[String],
    (templates, clips): (&[Template], Option<&ClipConfig>),
) -> Result<Artifact> {
    let analytic = method.analytic().ok_or_else(|| {
        Error::setting(format!("method `{}`", method.name()), "it is not solved from statistics; use e.g. `rail`")
    })?;
    let features = Classifier::zero_shot(backbone, classes, templates)?.features(&Frozen);
    let start = Start::new(backbone, &features, Seed::new(0), backbone.device());
    let adapter = analytic.solve(statistics, classes, &start)?;
    let provenance = Provenance {
        classes: classes.to_vec(),
        templates: templates.to_vec(),
        data: None,
        clips: clips.cloned(),
        metrics: BTreeMap::new(),
    };
    Ok(Artifact::new(adapter, method.clone(), backbone, provenance)?)
}

/// Statistics of no samples for a method.
pub(crate) fn empty_statistics(method: &MethodConfig, dim: usize) -> Result<Statistics> {
    let analytic = method.analytic().ok_or_else(|| {
        Error::setting(format!("method `{}`", method.name()), "it is not solved from statistics; use e.g. `rail`")
    })?;
    Ok(analytic.statistics(dim)?)
}
