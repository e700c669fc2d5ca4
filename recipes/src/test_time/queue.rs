//! A few images for each class, ordered by entropy: the memory of TDA and its kin.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use serde::{Deserialize, Serialize};

use super::episode::Admission;
use super::method::MethodState;
use super::rows::{add_scaled, dot};

/// One image in a memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The image.
    pub(super) id: String,
    /// What it is ordered by.
    pub(super) entropy: f32,
    /// Its normalised feature.
    pub(super) feature: Vec<f32>,
    /// Classes that it speaks against, for a memory of unsure images.
    pub(super) against: Vec<usize>,
}

impl Entry {
    pub(super) fn new(id: &str, entropy: f32, feature: &[f32]) -> Self {
        Self { id: id.into(), entropy, feature: feature.to_vec(), against: Vec::new() }
    }
}

/// Which image leaves a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The one of greatest entropy; a new one that is no surer is not taken in.
    Unsurest,
    /// The oldest.
    Oldest,
}

/// The queues of all classes.
#[derive(Debug, Clone, Default)]
pub(super) struct Queues {
    pub(super) of_class: BTreeMap<usize, Vec<Entry>>,
}

/// What of an entry is no tensor.
#[derive(Serialize, Deserialize)]
struct Label {
    class: usize,
    id: String,
    against: Vec<usize>,
}

impl Queues {
    /// Files an image under a class, of which `capacity` are kept; `None` when it was not taken in.
    pub(super) fn admit(
        &mut self,
        memory: &str,
        class: usize,
        entry: Entry,
        capacity: usize,
        leaves: Leaves,
    ) -> Option<Admission> {
        let queue = self.of_class.entry(class).or_default();
        let entropy = entry.entropy;
        if leaves == Leaves::Unsurest {
            if queue.len() >= capacity && queue.last().is_some_and(|last| last.entropy <= entropy) {
                return None;
            }
            queue.push(entry);
            queue.sort_by(|left, right| left.entropy.total_cmp(&right.entropy));
        } else {
            queue.push(entry);
        }
        let leaving = match leaves {
            Leaves::Unsurest => queue.len() - 1,
            Leaves::Oldest => 0,
        };
        let replaced = (queue.len() > capacity).then(|| queue.remove(leaving).id);
        Some(Admission { memory: memory.into(), class, entropy, replaced })
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.of_class.iter().flat_map(|(class, queue)| queue.iter().map(move |entry| (*class, entry)))
    }

    /// Adds `alpha exp(-beta (1 - f k))` of every image to the score of its class.
    pub(super) fn vote_for(&self, feature: &[f32], alpha: f32, beta: f32, scores: &mut [f32]) {
        for (class, entry) in self.entries() {
            scores[class] += alpha * affinity(feature, entry, beta);
        }
    }

    /// Takes the same from the scores of the classes that an image speaks against.
    pub(super) fn vote_against(&self, feature: &[f32], alpha: f32, beta: f32, scores: &mut [f32]) {
        for (_, entry) in self.entries() {
            let affinity = alpha * affinity(feature, entry, beta);
            for class in &entry.against {
                scores[*class] -= affinity;
            }
        }
    }

    /// The classes that have images and the means of their features.
    pub(super) fn prototypes(&self, dim: usize) -> (Vec<usize>, Vec<f32>) {
        let mut values = Vec::new();
        for queue in self.of_class.values() {
            let mut mean = vec![0.0; dim];
            for entry in queue {
                add_scaled(&mut mean, 1.0 / queue.len() as f32, &entry.feature);
            }
            values.extend(mean);
        }
        (self.of_class.keys().copied().collect(), values)
    }

    pub(super) fn bytes(&self) -> usize {
        let of = |(_, entry): (usize, &Entry)| {
            size_of::<Entry>() + entry.id.len() + 4 * entry.feature.len() + 8 * entry.against.len()
        };
        self.entries().map(of).sum()
    }

    /// Writes everything under `name`.
    pub(super) fn save(&self, name: &str, dim: usize, state: &mut MethodState) {
        let count = self.entries().count();
        let features: Vec<f32> = self.entries().flat_map(|(_, entry)| entry.feature.iter().copied()).collect();
        let entropies: Vec<f32> = self.entries().map(|(_, entry)| entry.entropy).collect();
        let mut tensor = |part: &str, shape: Vec<usize>, data: Vec<f32>| {
            let name = format!("{name}.{part}");
            state.tensors.insert(name.clone(), HostTensor { shape, data, origin: name });
        };
        tensor("features", vec![count, dim], features);
        tensor("entropies", vec![count], entropies);
        let labels: Vec<Label> = self
            .entries()
            .map(|(class, entry)| Label { class, id: entry.id.clone(), against: entry.against.clone() })
            .collect();
        state.values.insert(name.into(), serde_json::to_value(labels).unwrap_or_default());
    }

    /// Reads what [`save`](Self::save) wrote.
    pub(super) fn load(name: &str, classes: usize, dim: usize, state: &mut MethodState) -> Result<Self, String> {
        let missing = |part: &str| format!("`{name}.{part}` is missing");
        let mut tensor = |part: &str| state.tensors.remove(&format!("{name}.{part}")).ok_or_else(|| missing(part));
        let (features, entropies) = (tensor("features")?, tensor("entropies")?);
        let labels = state.values.remove(name).ok_or_else(|| missing("labels"))?;
        let labels: Vec<Label> = serde_json::from_value(labels).map_err(|error| format!("`{name}`: {error}"))?;
        if features.shape != [labels.len(), dim] || entropies.data.len() != labels.len() {
            return Err(format!("`{name}` holds {} labels for features {:?}", labels.len(), features.shape));
        }
        let mut queues = Self::default();
        let rows = features.data.chunks_exact(dim).zip(entropies.data);
        for (Label { class, id, against }, (feature, entropy)) in labels.into_iter().zip(rows) {
            if class >= classes || against.iter().any(|class| *class >= classes) {
                return Err(format!("`{name}` names a class beyond the {classes} that there are"));
            }
            let entry = Entry { id, entropy, feature: feature.to_vec(), against };
            queues.of_class.entry(class).or_default().push(entry);
        }
        Ok(queues)
    }
}

/// Most bytes of queues of so many classes and images each.
pub(super) fn most_bytes(classes: usize, capacity: usize, dim: usize) -> usize {
    // Ids are paths of unknown length; 256 bytes are more than most systems allow for a name.
    classes * capacity * (size_of::<Entry>() + 256 + 4 * dim)
}

fn affinity(feature: &[f32], entry: &Entry, beta: f32) -> f32 {
    (-beta * (1.0 - dot(feature, &entry.feature))).exp()
}
