//! The directions in which the inputs of linear layers vary on the training images (EVA: Paischer et al., 2024, arXiv
//! 2410.07170).

use std::collections::HashMap;
use std::sync::Mutex;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Pass, Sites, Tower};
use nalgebra::DMatrix;

use super::sites::matches;
use crate::error::{Error, Result};
use crate::matrix::{Svd, to_host};
use crate::method::Support;

/// For some sites of the image tower the second moments of the inputs, `[d_input, d_input]`.
pub(crate) struct Directions {
    moments: HashMap<LinearSite, DMatrix<f64>>,
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
        let recorder = Recorder { targets, moments: Mutex::default() };
        visit(&mut |pixels| drop(backbone.encode_image(pixels, &recorder, &Pass::evaluate())))?;
        Ok(Self { moments: recorder.moments.into_inner().unwrap_or_default() })
    }

    /// The `rank` greatest directions at a site, `[d_input, rank]`; `None` where no image came by or there are fewer.
    pub(crate) fn leading(&self, site: LinearSite, rank: usize) -> Option<DMatrix<f64>> {
        let svd = Svd::leading(self.moments.get(&site)?, rank);
        (svd.s.len() == rank).then_some(svd.u)
    }
}

/// The frozen computation, watched.
struct Recorder<'a> {
    targets: &'a [String],
    moments: Mutex<HashMap<LinearSite, DMatrix<f64>>>,
}

impl Sites for Recorder<'_> {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let name = base.at.to_string();
        if self.targets.iter().any(|target| matches(target, &name)) {
            let [batch, tokens, width] = input.dims();
            let rows = input.clone().reshape([batch * tokens, width]);
            let moment = to_host(rows.clone().transpose().matmul(rows));
            if let Ok(mut moments) = self.moments.lock() {
                moments.entry(base.at).and_modify(|sum| *sum += &moment).or_insert(moment);
            }
        }
        base.forward(input)
    }
}
