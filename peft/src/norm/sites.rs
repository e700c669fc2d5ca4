//! One value per selected normalisation: the container of every method that enters at norms.

use burn::module::Module;
use inarch_core::backbone::{Backbone, BlockSite, Entry, NormSite, Tower};

use crate::error::{Error, Result};
use crate::linear::matches;

/// Values of type `M` at some normalisations. Its parameter paths are the site names, e.g. `image.blocks.0.norm1`.
#[derive(Module, Debug)]
pub struct NormSites<M: Module> {
    image: TowerNorms<M>,
    text: TowerNorms<M>,
}

#[derive(Module, Debug)]
struct TowerNorms<M: Module> {
    pre_norm: Option<M>,
    blocks: Vec<BlockNorms<M>>,
    post_norm: Option<M>,
}

#[derive(Module, Debug)]
struct BlockNorms<M: Module> {
    norm1: Option<M>,
    cross: Option<CrossNorm<M>>,
    norm2: Option<M>,
}

/// Of the attention to an image.
#[derive(Module, Debug)]
struct CrossNorm<M: Module> {
    norm: M,
}

impl<M: Module> NormSites<M> {
    /// Makes a value, from the width, at every normalisation that one of `patterns` selects. No pattern selects none.
    ///
    /// # Errors
    /// [`Error::NoTarget`] for a pattern that selects nothing.
    pub fn select(backbone: &Backbone, patterns: &[String], mut make: impl FnMut(usize) -> M) -> Result<Self> {
        let sites = backbone.norms();
        for pattern in patterns {
            if !sites.iter().any(|(site, _)| matches(pattern, &site.to_string())) {
                let example = sites.first().map(|(site, _)| site.to_string()).unwrap_or_default();
                return Err(Error::NoTarget { pattern: pattern.clone(), example });
            }
        }
        let mut at = |site: NormSite| {
            let (_, layer) = sites.iter().find(|(known, _)| *known == site)?;
            let name = site.to_string();
            let chosen = patterns.iter().any(|pattern| matches(pattern, &name));
            chosen.then(|| make(layer.gamma.val().dims()[0]))
        };
        let mut tower = |tower: Tower| TowerNorms {
            pre_norm: at(NormSite::Input(tower)),
            blocks: (0..backbone.depth(tower))
                .map(|block| BlockNorms {
                    norm1: at(NormSite::Attention(BlockSite { tower, block })),
                    cross: at(NormSite::Cross(BlockSite { tower, block })).map(|norm| CrossNorm { norm }),
                    norm2: at(NormSite::Mlp(BlockSite { tower, block })),
                })
                .collect(),
            post_norm: at(NormSite::Output(tower)),
        };
        Ok(Self { image: tower(Tower::Image), text: tower(Tower::Text) })
    }

    /// The value at a site.
    pub fn get(&self, site: NormSite) -> Option<&M> {
        match site {
            NormSite::Input(tower) => self.tower(tower).pre_norm.as_ref(),
            NormSite::Output(tower) => self.tower(tower).post_norm.as_ref(),
            NormSite::Attention(at) => self.tower(at.tower).blocks.get(at.block)?.norm1.as_ref(),
            NormSite::Cross(at) => self.tower(at.tower).blocks.get(at.block)?.cross.as_ref().map(|cross| &cross.norm),
            NormSite::Mlp(at) => self.tower(at.tower).blocks.get(at.block)?.norm2.as_ref(),
        }
    }

    /// The first stage of a tower at which a value sits.
    pub fn entry(&self, tower: Tower) -> Entry {
        let TowerNorms { pre_norm, blocks, post_norm } = self.tower(tower);
        let any = |block: &BlockNorms<M>| block.norm1.is_some() || block.cross.is_some() || block.norm2.is_some();
        let first = blocks.iter().position(any);
        match (pre_norm, first, post_norm) {
            // The first normalisation belongs to the stage of the tokens.
            (Some(_), _, _) => Entry::Tokens,
            (None, Some(block), _) => Entry::Block(block),
            (None, None, Some(_)) => Entry::Head,
            (None, None, None) => Entry::Never,
        }
    }

    fn tower(&self, tower: Tower) -> &TowerNorms<M> {
        match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        }
    }
}

/// The widths of the normalisations that one of `patterns` selects.
pub(crate) fn selected_norms(backbone: &Backbone, patterns: &[String]) -> Vec<usize> {
    let chosen = |site: &NormSite| patterns.iter().any(|pattern| matches(pattern, &site.to_string()));
    backbone.norms().iter().filter(|(site, _)| chosen(site)).map(|(_, layer)| layer.gamma.val().dims()[0]).collect()
}
