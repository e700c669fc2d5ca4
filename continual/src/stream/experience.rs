//! A stream and its experiences.

use inarch_core::data::{Dataset, Example};

use super::config::LabelSpace;
use crate::error::{Error, Result};

/// What arrives together.
#[derive(Debug, Clone)]
pub struct Experience {
    /// A name for reports.
    pub name: String,
    /// The classes that it is about, as indices into [`Stream::classes`].
    pub classes: Vec<usize>,
    /// How many classes of the stream are known once it has come: the first so many.
    pub known: usize,
    /// What is learned from; labels are indices into [`Stream::classes`]. In an online stream in the order of arrival.
    pub train: Vec<Example>,
    /// What is reported on; labels likewise.
    pub test: Vec<Example>,
}

/// Experiences in order.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Class names in the order in which they first appear.
    pub classes: Vec<String>,
    /// The experiences.
    pub experiences: Vec<Experience>,
    /// Which classes an answer is chosen from.
    pub labels: LabelSpace,
    /// Images in a chunk of an online stream.
    pub chunk: Option<usize>,
    /// Everything that the stream holds, as one data set.
    pub dataset: Dataset,
}

impl Stream {
    /// Names of the classes known after experience `index`.
    pub fn known(&self, index: usize) -> &[String] {
        &self.classes[..self.experiences[index].known]
    }

    /// Leaves out examples that cannot be read.
    pub fn leave_out(&mut self, unreadable: &dyn Fn(&Example) -> bool) {
        for experience in &mut self.experiences {
            experience.train.retain(|example| !unreadable(example));
            experience.test.retain(|example| !unreadable(example));
        }
    }

    /// Refuses an experience that nothing can be learned from, or reported on: the accuracy over no image is no number.
    ///
    /// # Errors
    /// The first such experience.
    pub fn need_images(&self) -> Result<()> {
        for Experience { name, train, test, .. } in &self.experiences {
            let split = match (train.is_empty(), test.is_empty()) {
                (true, _) => "training",
                (false, true) => "test",
                (false, false) => continue,
            };
            let reason =
                format!("it has no {split} image that can be read; ask for fewer experiences, or give more images");
            return Err(Error::setting(format!("experience `{name}`"), reason));
        }
        Ok(())
    }
}
