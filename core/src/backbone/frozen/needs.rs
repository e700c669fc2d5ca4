//! What a backbone has, and the refusal of what it has not.

use super::super::place::Tower;
use super::Backbone;
use crate::error::{Error, Result};

impl Backbone {
    /// Whether it has towers. Without them it takes features of images in place of images, and adapters that enter at
    /// pooled features or scores.
    pub fn has_towers(&self) -> bool {
        self.towers().is_some()
    }

    /// Whether it has this tower.
    pub fn has(&self, tower: Tower) -> bool {
        self.has_towers() && self.spec.has(tower)
    }

    /// Whether words have features, so that classes can be told by their names. Else an adapter must have learned them.
    pub fn has_words(&self) -> bool {
        !self.has_towers() || self.spec.has(Tower::Text)
    }

    /// Whether images and texts meet before there is a score, so that neither has a feature of its own: an image is all its tokens,
    /// and a score is that of a pair ([`cross`](Self::cross)).
    pub fn crosses(&self) -> bool {
        self.spec.crossing.is_some()
    }

    /// Values that the image tower gives for an image: a feature, or all its tokens.
    pub fn image_values(&self) -> usize {
        self.spec.dim * self.spec.image.pooled_tokens()
    }

    /// Refuses what needs features of images or texts by themselves; `what` is named.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn need_features(&self, what: &str) -> Result<()> {
        if !self.crosses() {
            return Ok(());
        }
        Err(Error::Refused {
            what: what.into(),
            expected: "a backbone whose images and texts have features of their own, such as CLIP".into(),
            found: format!("`{}`, in which they meet before there is a score", self.name),
        })
    }

    /// Refuses what a backbone without towers cannot do; `what` is named.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn need_towers(&self, what: &str) -> Result<()> {
        if self.has_towers() {
            return Ok(());
        }
        Err(Error::Refused {
            what: what.into(),
            expected: "a backbone with weights, whose towers it can enter".into(),
            found: format!("`{}`, which has features only: images must come as a features file", self.name),
        })
    }

    /// Refuses what needs a tower that this backbone does not have; `what` is named.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn need(&self, tower: Tower, what: &str) -> Result<()> {
        self.need_towers(what)?;
        if self.has(tower) {
            return Ok(());
        }
        let other = if tower == Tower::Image { Tower::Text } else { Tower::Image };
        Err(Error::Refused {
            what: what.into(),
            expected: format!("a backbone with an {tower} tower").replace("an text", "a text"),
            found: format!("`{}`, which has an {other} tower only", self.name).replace("an text", "a text"),
        })
    }

    /// Refuses what stands in the transformer blocks of a tower that has none; `what` is named.
    ///
    /// # Errors
    /// As [`need`](Self::need); [`Error::Refused`] for a convolutional tower.
    pub fn need_blocks(&self, tower: Tower, what: &str) -> Result<()> {
        self.need(tower, what)?;
        if self.depth(tower) > 0 {
            return Ok(());
        }
        let trunk = self.spec.image.style.trunk.as_ref().map_or("no block at all", |trunk| trunk.name());
        Err(Error::Refused {
            what: what.into(),
            expected: format!(
                "transformer blocks in the {tower} tower; beside a convolutional one take a method of the text tower, of \
                 features or of scores"
            ),
            found: format!("`{}`, whose {tower} tower is: {trunk}", self.name),
        })
    }

    /// Refuses to tell classes by their names where words have no features; `what` is named.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn need_words(&self, what: &str) -> Result<()> {
        if self.has_words() {
            return Ok(());
        }
        Err(Error::Refused {
            what: what.into(),
            expected: "a backbone with a text tower, or an adapter that has learned the classes (`inarch fit`)".into(),
            found: format!("`{}`, which has an image tower only", self.name),
        })
    }
}
