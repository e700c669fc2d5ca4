//! One value per selected residual branch: the container of every method that enters at branches.

use burn::module::Module;
use inarch_core::backbone::{Backbone, BlockSite, BranchSite, Entry, LinearSite, Projection, Tower};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which branches of which blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BranchTargets {
    /// Blocks of the image tower.
    pub image: bool,
    /// Blocks of the text tower.
    pub text: bool,
    /// The first block, counted from 0.
    pub first_block: usize,
}

impl Default for BranchTargets {
    fn default() -> Self {
        Self { image: true, text: true, first_block: 0 }
    }
}

impl BranchTargets {
    fn tower(&self, tower: Tower) -> bool {
        match tower {
            Tower::Image => self.image,
            Tower::Text => self.text,
        }
    }

    /// The selected blocks of a tower.
    pub(crate) fn blocks(&self, backbone: &Backbone, tower: Tower) -> std::ops::Range<usize> {
        let depth = backbone.depth(tower);
        if self.tower(tower) { self.first_block.min(depth)..depth } else { depth..depth }
    }

    /// Branches of the selected blocks of a tower: the MLP's, and with `attention` those of all attentions.
    pub(crate) fn branches(&self, backbone: &Backbone, tower: Tower, attention: bool) -> usize {
        let blocks = self.blocks(backbone, tower);
        let more = |block| 1 + usize::from(looks(backbone, BlockSite { tower, block }));
        blocks.map(|block| 1 + if attention { more(block) } else { 0 }).sum()
    }
}

/// Whether a block looks at an image.
fn looks(backbone: &Backbone, at: BlockSite) -> bool {
    backbone.linear(LinearSite::Block(at, Projection::CrossQuery)).is_some()
}

/// Values of type `M` behind attentions and MLPs. Its parameter paths are like `image.blocks.0.attention`.
#[derive(Module, Debug)]
pub struct BranchSites<M: Module> {
    image: TowerBranches<M>,
    text: TowerBranches<M>,
}

#[derive(Module, Debug)]
struct TowerBranches<M: Module> {
    blocks: Vec<BlockBranches<M>>,
}

#[derive(Module, Debug)]
struct BlockBranches<M: Module> {
    attention: Option<M>,
    cross: Option<M>,
    mlp: Option<M>,
}

impl<M: Module> BranchSites<M> {
    /// Makes a value at the MLP, and with `attention` at the attentions too, of every selected block.
    ///
    /// # Errors
    /// [`Error::Setting`] when no block is selected.
    pub fn select(
        backbone: &Backbone,
        targets: &BranchTargets,
        attention: bool,
        mut make: impl FnMut(BranchSite) -> M,
    ) -> Result<Self> {
        let mut count = 0;
        let mut tower = |tower: Tower| {
            let chosen = targets.blocks(backbone, tower);
            count += chosen.len();
            let blocks = (0..backbone.depth(tower)).map(|block| {
                let at = BlockSite { tower, block };
                let here = chosen.contains(&block);
                BlockBranches {
                    attention: (here && attention).then(|| make(BranchSite::Attention(at))),
                    cross: (here && attention && looks(backbone, at)).then(|| make(BranchSite::Cross(at))),
                    mlp: here.then(|| make(BranchSite::Mlp(at))),
                }
            });
            TowerBranches { blocks: blocks.collect() }
        };
        let sites = Self { image: tower(Tower::Image), text: tower(Tower::Text) };
        if count == 0 {
            let reason = "select the image tower, the text tower or both, and a first block that they have".into();
            return Err(Error::Setting { setting: "blocks", reason });
        }
        Ok(sites)
    }

    /// The value at a site.
    pub fn get(&self, site: BranchSite) -> Option<&M> {
        let BlockSite { tower, block } = site.block();
        let block = self.tower(tower).get(block)?;
        match site {
            BranchSite::Attention(_) => block.attention.as_ref(),
            BranchSite::Cross(_) => block.cross.as_ref(),
            BranchSite::Mlp(_) => block.mlp.as_ref(),
        }
    }

    /// The first stage of a tower at which a value sits.
    pub fn entry(&self, tower: Tower) -> Entry {
        let any = |block: &BlockBranches<M>| block.attention.is_some() || block.cross.is_some() || block.mlp.is_some();
        let first = self.tower(tower).iter().position(any);
        first.map_or(Entry::Never, Entry::Block)
    }

    fn tower(&self, tower: Tower) -> &[BlockBranches<M>] {
        match tower {
            Tower::Image => &self.image.blocks,
            Tower::Text => &self.text.blocks,
        }
    }
}
