//! The directions in which the inputs of linear layers vary on the training images (EVA: Paischer et al., 2024, arXiv
//! 2410.07170).

use std::collections::BTreeMap;

use inarch_core::backbone::{Backbone, LinearSite, Pass};
use nalgebra::DMatrix;

use super::inputs::InputMoments;
use crate::error::{Error, Result};
use crate::matrix::Svd;
use crate::method::Support;

/// For some sites of the image tower, by name, the second moments of the inputs, `[d_input, d_input]`.
pub(crate) struct Directions {
    moments: BTreeMap<String, DMatrix<f64>>,
}

impl Directions {
    /// Runs the training images through the frozen image tower and looks at the inputs of the target layers.
    ///
    /// # Errors
    /// [`Error::Setting`] when the data set holds features instead of images; a fault of an image.
    pub(crate) fn of(backbone: &Backbone, support: &Support<'_>, targets: &[String]) -> Result<Self> {
        let Some(visit) = support.pixels else {
            let reason = "`eva` looks at images and the data set holds features; use another start".into();
            return Err(Error::Setting { setting: "init", reason });
        };
        let inputs = InputMoments::new(targets);
        visit(&mut |pixels| drop(backbone.encode_image(pixels, &inputs, &Pass::evaluate())))?;
        Ok(Self { moments: inputs.sums() })
    }

    /// The `rank` greatest directions at a site, `[d_input, rank]`; `None` where no image came by or there are fewer.
    pub(crate) fn leading(&self, site: LinearSite, rank: usize) -> Option<DMatrix<f64>> {
        let svd = Svd::leading(self.moments.get(&site.to_string())?, rank);
        (svd.s.len() == rank).then_some(svd.u)
    }
}
