//! Several trained adapters merged into one of the same size, by weights.
//!
//! Weight-space adapters (whatever [`fold`](inarch_core::backbone::Sites::fold)s into linear weights: LoRA, DoRA, LoHa, ..)
//! become one LoRA: at each linear site the changes `D_i = fold_i(W) - W`, `[d_input, d_output]`, are merged to `D`, and
//! `A B` is the singular value decomposition of `D`, whole or cut to a rank. How `D` comes from the `D_i` and weights `w_i`:
//!
//! - `linear`: `sum w_i D_i`.
//! - `magnitude-prune`: `sum w_i keep(D_i)`, of which the greatest share `density` by magnitude is kept.
//! - `ties`: kept as above; a sign is elected for each entry by the sum over members, and the members of that sign are
//!   averaged (Yadav et al., 2023, arXiv 2306.01708).
//! - `dare-linear`, `dare-ties`: a random share `density` is kept and divided by it, in place of the greatest (Yu et al.,
//!   2024, arXiv 2311.03099).
//!
//! Adapters of any other method are merged by the weighted mean of their parameters, which needs equal settings (model
//! soups: Wortsman et al., 2022, arXiv 2203.05482).

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, LinearSite, Sites as _};
use nalgebra::DMatrix;
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::reading::CommonReading;
use crate::adapter::MethodConfig;
use crate::artifact::{Artifact, Provenance};
use crate::error::{Error, Result};
use crate::linear::{LoraConfig, all_sites};
use crate::matrix::{Svd, to_host};
use crate::method::Start;
use crate::parameters::Parameters;

/// Singular values below this share of the greatest are rounding of single precision.
const NOISE: f64 = 1e-5;

/// How changes of one weight are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// The weighted sum.
    #[default]
    Linear,
    /// The weighted sum of the greatest entries of each.
    MagnitudePrune,
    /// The greatest entries, with an elected sign.
    Ties,
    /// The weighted sum of random entries of each, enlarged.
    DareLinear,
    /// Random entries, enlarged, with an elected sign.
    DareTies,
}

impl Merge {
    /// The weight of each of so many equal adapters under which they merge to themselves.
    fn share(self, parts: usize) -> f64 {
        match self {
            Self::Linear | Self::MagnitudePrune | Self::DareLinear => 1.0 / parts as f64,
            Self::Ties | Self::DareTies => 1.0,
        }
    }
}

/// Settings of a combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Combination {
    /// How changes are merged.
    pub merge: Merge,
    /// One weight for each adapter; when empty equal shares that sum to 1, or 1 each where members are averaged already.
    pub weights: Vec<f64>,
    /// Rank of the result; `None` keeps every singular value that is more than rounding.
    pub rank: Option<usize>,
    /// Share of entries that are kept, where some are dropped.
    pub density: f64,
    /// Decides which entries are kept at random.
    pub seed: u64,
}

impl Default for Combination {
    fn default() -> Self {
        Self { merge: Merge::Linear, weights: Vec::new(), rank: None, density: 0.5, seed: 1 }
    }
}

impl Combination {
    /// Merges `parts`, all trained beside `backbone`. Classes and templates are those of the first; parents are all, and data is read
    /// as they agree on ([`CommonReading`]).
    ///
    /// # Errors
    /// [`Error::Setting`] for weights, rank or density outside their domain; a mismatch for adapters of another backbone
    /// or of settings that cannot be merged; as [`CommonReading::of`].
    pub fn combine(&self, parts: &[Artifact], backbone: &Backbone) -> Result<Artifact> {
        let weights = self.checked_weights(parts, backbone)?;
        let CommonReading { clips, group_by, .. } = CommonReading::of(parts)?;
        let (adapter, method) = if parts.iter().all(|part| in_weights(part, backbone)) {
            self.as_lora(parts, &weights, backbone)?
        } else {
            mean(parts, &weights, backbone, self.merge)?
        };
        let first = &parts[0];
        let provenance = Provenance {
            classes: first.manifest.classes.clone(),
            templates: first.templates()?,
            data: None,
            clips,
            metrics: BTreeMap::new(),
        };
        let mut combined = Artifact::new(adapter, method, backbone, provenance)?;
        combined.manifest.parents = parts.iter().map(|part| part.manifest.tensors.clone()).collect();
        let mut combined = parts.iter().fold(combined, Artifact::with_reading_of);
        combined.manifest.group_by = group_by;
        Ok(combined)
    }

    fn checked_weights(&self, parts: &[Artifact], backbone: &Backbone) -> Result<Vec<f64>> {
        let fault = |setting, reason: String| Err(Error::Setting { setting, reason });
        if parts.is_empty() {
            return Err(inarch_core::Error::invalid("combination", "name at least one adapter").into());
        }
        for part in parts {
            let (expected, found) = (backbone.digest(), &part.manifest.backbone.digest);
            if expected != found {
                let what = "backbone of the adapters to be combined";
                return Err(inarch_core::Error::mismatch(what, expected.short(), found.short()).into());
            }
            if part.manifest.classes != parts[0].manifest.classes
                && (part.manifest.method.bound_to_classes() || part.manifest.method.open_to_classes())
            {
                let [expected, found] = [&parts[0], part].map(|part| part.manifest.classes.join(", "));
                let what = "classes of the adapters to be combined";
                return Err(inarch_core::Error::mismatch(what, expected, found).into());
            }
        }
        let weights = match self.weights.len() {
            0 => vec![self.merge.share(parts.len()); parts.len()],
            given if given == parts.len() => self.weights.clone(),
            given => {
                return fault("weights", format!("expected {} (one for each adapter), found {given}", parts.len()));
            }
        };
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return fault("weights", format!("must be numbers, found {weight}"));
        }
        if self.rank == Some(0) {
            return fault("rank", "must be at least 1; leave it out for the smallest exact one".into());
        }
        if !(self.density > 0.0 && self.density <= 1.0) {
            return fault("density", format!("must be above 0 and at most 1, found {}", self.density));
        }
        Ok(weights)
    }

    /// The merged change of every site as one LoRA.
    fn as_lora(
        &self,
        parts: &[Artifact],
        weights: &[f64],
        backbone: &Backbone,
    ) -> Result<(crate::Adapter, MethodConfig)> {
        let mut factors = Vec::new();
        for site in all_sites(backbone) {
            let changes: Vec<_> = parts.iter().map(|part| change(part, site, backbone)).collect::<Result<_>>()?;
            if changes.iter().all(Option::is_none) {
                continue;
            }
            let [rows, columns] = layer_dims(backbone, site);
            let changes: Vec<_> =
                changes.into_iter().map(|change| change.unwrap_or_else(|| DMatrix::zeros(rows, columns))).collect();
            let merged = self.merged(&changes, weights, Seed::new(self.seed).split(site));
            factors.push((site, Svd::leading(&merged, self.rank.unwrap_or(usize::MAX))));
        }
        let greatest = factors.iter().filter_map(|(_, svd)| svd.s.first()).copied().fold(0.0, f64::max);
        let significant = |svd: &Svd| svd.s.iter().filter(|s| **s > NOISE * greatest).count();
        let rank = self.rank.unwrap_or_else(|| factors.iter().map(|(_, svd)| significant(svd)).max().unwrap_or(0));
        if factors.is_empty() || rank == 0 {
            return Err(inarch_core::Error::invalid("combination", "nothing is left of the adapters").into());
        }
        // One rank for all: a site with fewer directions is filled with zeros.
        let rank = rank.min(factors.iter().map(|(_, svd)| svd.u.nrows().max(svd.v.nrows())).min().unwrap_or(rank));
        let config = LoraConfig {
            rank,
            alpha: rank as f64,
            rank_stabilised: false,
            dropout: 0.0,
            targets: factors.iter().map(|(site, _)| site.to_string()).collect(),
            ..LoraConfig::default()
        };
        let mut parameters = Parameters::new();
        for (site, svd) in &factors {
            let [rows, columns] = [svd.u.nrows(), svd.v.nrows()];
            let root = |at: usize| svd.s.get(at).map_or(0.0, |s| s.sqrt());
            let a = DMatrix::from_fn(
                rows,
                rank,
                |row, at| if at < svd.s.len() { svd.u[(row, at)] * root(at) } else { 0.0 },
            );
            let b =
                DMatrix::from_fn(
                    rank,
                    columns,
                    |at, column| if at < svd.s.len() { svd.v[(column, at)] * root(at) } else { 0.0 },
                );
            for (name, matrix) in [("a", a), ("b", b)] {
                let name = format!("sites.{site}.{name}");
                let shape = vec![matrix.nrows(), matrix.ncols()];
                let data = matrix.transpose().iter().map(|value| *value as f32).collect();
                let origin = name.clone();
                parameters.insert(name, inarch_core::backbone::HostTensor { shape, data, origin });
            }
        }
        let method = MethodConfig::Lora(config);
        Ok((fresh(&method, backbone, parts)?.with(parameters, backbone)?, method))
    }

    /// The merged change of one weight.
    fn merged(&self, changes: &[DMatrix<f64>], weights: &[f64], seed: Seed) -> DMatrix<f64> {
        let kept: Vec<DMatrix<f64>> = changes
            .iter()
            .enumerate()
            .map(|(part, change)| match self.merge {
                Merge::Linear => change.clone(),
                Merge::MagnitudePrune | Merge::Ties => greatest(change, self.density),
                Merge::DareLinear | Merge::DareTies => random(change, self.density, seed.split(part)),
            })
            .collect();
        let weighted = || kept.iter().zip(weights).map(|(change, weight)| change * *weight);
        match self.merge {
            Merge::Linear | Merge::MagnitudePrune | Merge::DareLinear => {
                weighted().fold(DMatrix::zeros(changes[0].nrows(), changes[0].ncols()), |sum, change| sum + change)
            }
            Merge::Ties | Merge::DareTies => {
                let sums = kept.iter().skip(1).fold(kept[0].clone(), |sum, change| sum + change);
                let weighted: Vec<_> = weighted().collect();
                DMatrix::from_fn(sums.nrows(), sums.ncols(), |row, column| {
                    let at = (row, column);
                    let positive = sums[at] >= 0.0;
                    // A dropped entry has no sign and takes part in no mean.
                    let agrees = |part: &usize| kept[*part][at] != 0.0 && (kept[*part][at] > 0.0) == positive;
                    let members: Vec<usize> = (0..kept.len()).filter(agrees).collect();
                    members.iter().map(|part| weighted[*part][at]).sum::<f64>() / members.len().max(1) as f64
                })
            }
        }
    }
}

/// The greatest share `density` of the entries by magnitude, the others zero.
fn greatest(change: &DMatrix<f64>, density: f64) -> DMatrix<f64> {
    let count = (density * change.len() as f64) as usize;
    let mut order: Vec<usize> = (0..change.len()).collect();
    order.sort_by(|left, right| change[*right].abs().total_cmp(&change[*left].abs()));
    let mut kept = DMatrix::zeros(change.nrows(), change.ncols());
    order.iter().take(count).for_each(|at| kept[*at] = change[*at]);
    kept
}

/// A random share `density` of the entries, divided by it, the others zero.
fn random(change: &DMatrix<f64>, density: f64, seed: Seed) -> DMatrix<f64> {
    let mut rng = seed.rng();
    let threshold = (density * f64::from(u32::MAX)) as u32;
    change.map(|value| if rng.next_u32() <= threshold { value / density } else { 0.0 })
}

/// Whether an adapter is a change of linear weights and of nothing else.
fn in_weights(part: &Artifact, backbone: &Backbone) -> bool {
    let sites = part.adapter.sites();
    sites.folds() && backbone.norms().into_iter().all(|(at, layer)| sites.fold_norm(at, layer).is_none())
}

/// The change of one weight, `[d_input, d_output]`.
fn change(part: &Artifact, site: LinearSite, backbone: &Backbone) -> Result<Option<DMatrix<f64>>> {
    let Some(layer) = backbone.linear(site) else { return Ok(None) };
    let Some(folded) = part.adapter.fold(site, &layer) else { return Ok(None) };
    let bias = |layer: &burn::nn::Linear| {
        layer.bias.as_ref().map(|bias| inarch_core::backbone::values(bias.val().without_autodiff()))
    };
    if bias(&folded) != bias(&layer) {
        let what = format!("combination of `{}`", part.manifest.method.name());
        let reason = format!("it changes the bias at `{site}`, which a low-rank update cannot hold; stack it instead");
        return Err(inarch_core::Error::invalid(what, reason).into());
    }
    Ok(Some(to_host(folded.weight.val().without_autodiff()) - to_host(layer.weight.val())))
}

fn layer_dims(backbone: &Backbone, site: LinearSite) -> [usize; 2] {
    backbone.linear(site).map_or([0, 0], |layer| layer.weight.val().dims())
}

/// The weighted mean of the parameters of adapters with equal settings.
fn mean(
    parts: &[Artifact],
    weights: &[f64],
    backbone: &Backbone,
    merge: Merge,
) -> Result<(crate::Adapter, MethodConfig)> {
    let method = parts[0].manifest.method.clone();
    if merge != Merge::Linear {
        let reason = format!("`{}` is not a change of linear weights; only `linear` merges it", method.name());
        return Err(Error::Setting { setting: "merge", reason });
    }
    let mut sum = Parameters::new();
    for (part, weight) in parts.iter().zip(weights) {
        if part.manifest.method != method {
            let [expected, found] = [&method, &part.manifest.method]
                .map(|method| serde_json::to_string(method).unwrap_or_else(|_| method.name().into()));
            return Err(inarch_core::Error::mismatch("settings of the adapters to be combined", expected, found).into());
        }
        for (name, tensor) in part.adapter.parameters() {
            let entry = sum.entry(name).or_insert_with(|| inarch_core::backbone::HostTensor {
                data: vec![0.0; tensor.data.len()],
                ..tensor.clone()
            });
            if entry.shape != tensor.shape {
                let what = format!("shape of `{}` in the adapters to be combined", tensor.origin);
                let [expected, found] = [&entry.shape, &tensor.shape].map(|shape| format!("{shape:?}"));
                return Err(inarch_core::Error::mismatch(what, expected, found).into());
            }
            for (sum, value) in entry.data.iter_mut().zip(&tensor.data) {
                *sum += *weight as f32 * value;
            }
        }
    }
    Ok((parts[0].adapter.clone().with(sum, backbone)?, method))
}

fn fresh(method: &MethodConfig, backbone: &Backbone, parts: &[Artifact]) -> Result<crate::Adapter> {
    let classes = parts[0].manifest.classes.len().max(1);
    let features = Tensor::zeros([classes, backbone.spec().dim], backbone.device());
    method.init(&Start::new(backbone, &features, Seed::new(0), backbone.device()))
}

impl crate::Adapter {
    /// The same adapter with tensors that are known to fit.
    fn with(self, parameters: Parameters, backbone: &Backbone) -> Result<Self> {
        let put = self.with_parameters(parameters, backbone.device());
        put.map_err(|reason| inarch_core::Error::invalid("combined adapter", reason).into())
    }
}
