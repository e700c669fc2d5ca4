//! Search by name, method, backbone, metrics and labels.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use serde::Serialize;

use super::{Registry, Version};
use crate::error::{Error, Result};
use crate::name::{Alias, Name};
use crate::oci::Card;

/// A bound on a metric, such as `accuracy>=0.9`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricBound {
    metric: String,
    is_least: bool,
    value: f64,
}

impl FromStr for MetricBound {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::reference("bound", text, "expected `METRIC>=NUMBER` or `METRIC<=NUMBER`");
        let (is_least, parts) = match text.split_once(">=") {
            Some(parts) => (true, parts),
            None => (false, text.split_once("<=").ok_or_else(wrong)?),
        };
        let value: f64 = parts.1.trim().parse().map_err(|_| wrong())?;
        let metric = parts.0.trim().to_string();
        if metric.is_empty() || value.is_nan() { Err(wrong()) } else { Ok(Self { metric, is_least, value }) }
    }
}

impl MetricBound {
    fn holds(&self, card: &Card) -> bool {
        let order = |value: &f64| if self.is_least { *value >= self.value } else { *value <= self.value };
        card.metrics.get(&self.metric).is_some_and(order)
    }
}

/// What is searched for; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Text in the name.
    pub name: Option<String>,
    /// Method.
    pub method: Option<String>,
    /// Name of the backbone, its digest, or the beginning of the digest.
    pub backbone: Option<String>,
    /// Identity of the training data, or its beginning.
    pub data: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Metrics.
    pub metrics: Vec<MetricBound>,
    /// The most results of each name; the newest are kept.
    pub limit: usize,
}

/// A version that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// What is known about it.
    pub card: Card,
    /// The aliases that point at it.
    pub aliases: Vec<Alias>,
}

impl Query {
    fn matches(&self, card: &Card) -> bool {
        let begins = |digest: &str, wanted: &str| {
            digest.starts_with(wanted) || digest.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(wanted))
        };
        self.method.as_ref().is_none_or(|method| *method == card.method)
            && self
                .backbone
                .as_ref()
                .is_none_or(|wanted| *wanted == card.backbone_name || begins(&card.backbone, wanted))
            && self.data.as_ref().is_none_or(|wanted| card.data.as_ref().is_some_and(|data| begins(data, wanted)))
            && self.labels.iter().all(|(key, value)| card.labels.get(key) == Some(value))
            && self.metrics.iter().all(|bound| bound.holds(card))
    }
}

impl Registry {
    /// The versions that match, by name, newest first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn search(&self, query: &Query) -> Result<Vec<Found>> {
        let mut names = self.names()?;
        if let Some(text) = &query.name {
            names.retain(|name| name.as_str().contains(text.as_str()));
        }
        let limit = query.limit.max(1);
        let mut newest: BTreeMap<Name, VecDeque<(Version, Card)>> = BTreeMap::new();
        self.visit(&names, |name, entry| {
            if query.matches(&entry.card) {
                let found = newest.entry(name.clone()).or_default();
                found.push_front((entry.version(name), entry.card));
                found.truncate(limit);
            }
        })?;
        let mut found = Vec::new();
        for (name, versions) in newest {
            let aliases = self.aliases(&name)?;
            for (version, card) in versions {
                let pointing = aliases.iter().filter(|(_, number)| *number == version.number);
                let aliases = pointing.map(|(alias, _)| alias.clone()).collect();
                found.push(Found { version, card, aliases });
            }
        }
        Ok(found)
    }
}
