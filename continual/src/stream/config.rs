//! How data sets become a stream.

use serde::{Deserialize, Serialize};

use super::corruption::Corruption;
use crate::error::{Error, Result};

/// What changes from one experience to the next, and what is known at test time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamKind {
    /// New classes; the answer is among all classes seen so far.
    #[default]
    ClassIncremental,
    /// New classes; at test time it is known which experience an image belongs to.
    TaskIncremental,
    /// The same classes in another domain: each data set, or each corruption of one data set, is an experience.
    DomainIncremental,
    /// New classes, but a part of the images of each class comes in other experiences.
    Blurry,
    /// Each data set is an experience; the answer is among the classes of all of them, from the start (X-TAIL).
    XTail,
}

/// Which classes an answer is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSpace {
    /// Those seen so far; for experiences that have not come yet, all of the stream.
    Seen,
    /// Those of the experience that the image belongs to.
    Task,
    /// All classes of the stream.
    All,
}

/// The order of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Shuffled by the seed.
    #[default]
    Shuffled,
    /// As the data set has them.
    Given,
}

/// How data sets become a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// What changes.
    pub kind: StreamKind,
    /// Number of experiences that the classes are dealt out to, where neither `base` nor `increment` is given.
    pub experiences: usize,
    /// Classes of the first experience (the `m` of `B-m Inc-n`); 0 for as many as in the others.
    pub base: usize,
    /// Classes of each further experience (the `n`); 0 to deal the classes out evenly.
    pub increment: usize,
    /// The order of the classes.
    pub order: Order,
    /// Training images of each class; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
    /// In a blurry stream, the share of each class's images that comes in other experiences.
    pub blur: f64,
    /// Online: an experience comes in chunks of so many images, each seen once; whole when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk: Option<usize>,
    /// The domains of a domain-incremental stream over one data set.
    pub corruptions: Vec<Corruption>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            kind: StreamKind::default(),
            experiences: 5,
            base: 0,
            increment: 0,
            order: Order::default(),
            shots: None,
            blur: 0.1,
            chunk: None,
            corruptions: Corruption::ALL.to_vec(),
        }
    }
}

impl StreamConfig {
    /// Checks what does not depend on the data.
    ///
    /// # Errors
    /// A setting outside its domain.
    pub fn check(&self) -> Result<()> {
        if self.experiences == 0 {
            return Err(Error::setting("stream.experiences", "must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.blur) {
            return Err(Error::setting("stream.blur", format!("must be at least 0 and below 1, found {}", self.blur)));
        }
        if self.shots == Some(0) || self.chunk == Some(0) {
            return Err(Error::setting("stream.shots and stream.chunk", "must be at least 1; leave them out for all"));
        }
        if self.kind == StreamKind::DomainIncremental && self.corruptions.is_empty() {
            return Err(Error::setting("stream.corruptions", "at least one domain is needed, e.g. [\"none\"]"));
        }
        Ok(())
    }

    /// Which classes an answer is chosen from.
    pub fn label_space(&self) -> LabelSpace {
        match self.kind {
            StreamKind::ClassIncremental | StreamKind::Blurry | StreamKind::DomainIncremental => LabelSpace::Seen,
            StreamKind::TaskIncremental => LabelSpace::Task,
            StreamKind::XTail => LabelSpace::All,
        }
    }

    /// How many of `classes` classes come in each experience.
    ///
    /// # Errors
    /// More experiences than classes, or a first experience that takes all and more.
    pub(super) fn deal(&self, classes: usize) -> Result<Vec<usize>> {
        if self.base == 0 && self.increment == 0 {
            if self.experiences > classes {
                let reason = format!(
                    "{} experiences need as many classes, found {classes}; `--set stream.experiences=N` takes fewer",
                    self.experiences
                );
                return Err(Error::setting("stream.experiences", reason));
            }
            let (share, rest) = (classes / self.experiences, classes % self.experiences);
            return Ok((0..self.experiences).map(|index| share + usize::from(index < rest)).collect());
        }
        let increment = if self.increment == 0 { self.base } else { self.increment };
        let first = if self.base == 0 { increment } else { self.base };
        if first > classes {
            return Err(Error::setting("stream.base", format!("{first} classes are asked for, found {classes}")));
        }
        let mut parts = vec![first];
        let mut left = classes - first;
        while left > 0 {
            parts.push(increment.min(left));
            left -= increment.min(left);
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::StreamConfig;

    #[test]
    fn classes_are_dealt_out_as_the_protocols_say() {
        let deal = |base, increment, experiences, classes| {
            StreamConfig { base, increment, experiences, ..StreamConfig::default() }.deal(classes).unwrap()
        };
        assert_eq!(deal(0, 0, 5, 10), [2; 5]);
        assert_eq!(deal(0, 0, 3, 10), [4, 3, 3]);
        assert_eq!(deal(0, 10, 5, 100), [10; 10]);
        assert_eq!(deal(50, 20, 5, 100), [50, 20, 20, 10]);
        assert!(StreamConfig { experiences: 11, ..StreamConfig::default() }.deal(10).is_err());
    }
}
