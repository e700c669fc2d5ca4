//! Writing an adapter into weights.

use super::super::place::{BlockSite, LinearSite, Projection, Tower};
use super::super::pointwise::{Pointwise, TrunkSite};
use super::super::site::Sites;
use super::super::state_dict;
use super::{Backbone, Source};
use crate::error::{Error, Result};

impl Backbone {
    /// A copy whose linear layers carry the adapter's weight-space change; the original is untouched and shares all
    /// other weights with it. Its digest is its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an adapter that cannot be written into linear weights as a whole.
    pub fn fold(&self, sites: &dyn Sites) -> Result<Self> {
        if !sites.folds() {
            return Err(Error::invalid("fold", "this adapter does more than change linear layers; pass it in instead"));
        }
        let Source::Towers(model) = &self.source else {
            return Err(Error::invalid("fold", "a backbone of features has no weights to fold into"));
        };
        let mut model = model.clone();
        if let Some(image) = &mut model.image {
            for block in 0..image.embedding.blocks() {
                for at in Pointwise::ALL.map(|layer| TrunkSite { block, layer }) {
                    if let Some(convolution) = image.embedding.pointwise_mut(at)
                        && let Some(folded) = sites.fold(LinearSite::Trunk(at), &convolution.as_linear())
                    {
                        convolution.take(folded);
                    }
                }
            }
        }
        for tower in [Tower::Image, Tower::Text] {
            for (block, weights) in model.blocks_mut(tower).iter_mut().enumerate() {
                for projection in Projection::ALL {
                    let at = LinearSite::Block(BlockSite { tower, block }, projection);
                    if let Some(layer) = weights.projection_mut(projection)
                        && let Some(folded) = sites.fold(at, layer)
                    {
                        *layer = folded;
                    }
                }
            }
            if let Some(head) = model.projection_mut(tower)
                && let Some(folded) = sites.fold(LinearSite::Head(tower), head)
            {
                *head = folded;
            }
        }
        for (at, layer) in model.norms_mut() {
            if let Some(folded) = sites.fold_norm(at, layer) {
                *layer = folded;
            }
        }
        let digest = state_dict::digest(&self.spec, &model.state_dict(&self.spec));
        Ok(Self {
            name: format!("{}+folded", self.name),
            spec: self.spec.clone(),
            source: Source::Towers(model),
            logit_scale: self.logit_scale,
            logit_bias: self.logit_bias,
            head: self.head.clone(),
            tokenizer: self.tokenizer.clone(),
            preprocess: self.preprocess.clone(),
            digest,
            device: self.device.clone(),
        })
    }
}
