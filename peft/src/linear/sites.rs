//! One value per selected linear site: the container of every method that enters at projections.

use burn::module::Module;
use inarch_core::backbone::{Backbone, BlockSite, Entry, LinearSite, Pointwise, Projection, Tower, TrunkSite};

use crate::error::{Error, Result};

/// Values of type `M` at some linear sites. Its parameter paths are the site names, e.g. `image.blocks.0.q_proj`.
#[derive(Module, Debug)]
pub struct LinearSites<M: Module> {
    image: TowerSites<M>,
    text: TowerSites<M>,
}

#[derive(Module, Debug)]
struct TowerSites<M: Module> {
    trunk: Option<TrunkSites<M>>,
    blocks: Vec<BlockSites<M>>,
    projection: Option<M>,
}

/// The pointwise convolutions of a trunk.
#[derive(Module, Debug)]
struct TrunkSites<M: Module> {
    blocks: Vec<PointwiseSites<M>>,
}

/// Those of a block: the first three are a ResNet's, the others an EfficientNet's.
#[derive(Module, Debug)]
struct PointwiseSites<M: Module> {
    conv1: Option<M>,
    conv3: Option<M>,
    downsample: Option<M>,
    expand: Option<M>,
    reduce: Option<M>,
    excite: Option<M>,
    project: Option<M>,
}

#[derive(Module, Debug)]
struct BlockSites<M: Module> {
    q_proj: Option<M>,
    k_proj: Option<M>,
    v_proj: Option<M>,
    out_proj: Option<M>,
    cross: Option<CrossSites<M>>,
    fc1: Option<M>,
    fc2: Option<M>,
}

/// The attention to an image; `None` in blocks without one.
#[derive(Module, Debug)]
struct CrossSites<M: Module> {
    q_proj: Option<M>,
    k_proj: Option<M>,
    v_proj: Option<M>,
    out_proj: Option<M>,
}

impl<M: Module> PointwiseSites<M> {
    fn get(&self, layer: Pointwise) -> Option<&M> {
        match layer {
            Pointwise::First => self.conv1.as_ref(),
            Pointwise::Third => self.conv3.as_ref(),
            Pointwise::Downsample => self.downsample.as_ref(),
            Pointwise::Expand => self.expand.as_ref(),
            Pointwise::Reduce => self.reduce.as_ref(),
            Pointwise::Excite => self.excite.as_ref(),
            Pointwise::Project => self.project.as_ref(),
        }
    }
}

impl<M: Module> BlockSites<M> {
    fn get(&self, projection: Projection) -> Option<&M> {
        let cross = self.cross.as_ref();
        match projection {
            Projection::Query => self.q_proj.as_ref(),
            Projection::Key => self.k_proj.as_ref(),
            Projection::Value => self.v_proj.as_ref(),
            Projection::Output => self.out_proj.as_ref(),
            Projection::CrossQuery => cross?.q_proj.as_ref(),
            Projection::CrossKey => cross?.k_proj.as_ref(),
            Projection::CrossValue => cross?.v_proj.as_ref(),
            Projection::CrossOutput => cross?.out_proj.as_ref(),
            Projection::Up => self.fc1.as_ref(),
            Projection::Down => self.fc2.as_ref(),
        }
    }
}

impl<M: Module> LinearSites<M> {
    /// Makes a value at every site that one of `patterns` selects. `*` stands for any run of characters.
    ///
    /// # Errors
    /// [`Error::NoTarget`] for a pattern that selects nothing; whatever `make` returns.
    pub fn select(
        backbone: &Backbone,
        patterns: &[String],
        mut make: impl FnMut(LinearSite, [usize; 2]) -> Result<M>,
    ) -> Result<Self> {
        for pattern in patterns {
            if !all_sites(backbone).any(|site| matches(pattern, &site.to_string())) {
                let example = all_sites(backbone).next().map(|site| site.to_string()).unwrap_or_default();
                return Err(Error::NoTarget { pattern: pattern.clone(), example });
            }
        }
        let mut at = |site: LinearSite| -> Result<Option<M>> {
            let name = site.to_string();
            let layer = backbone.linear(site).filter(|_| patterns.iter().any(|pattern| matches(pattern, &name)));
            layer.map(|layer| make(site, layer.weight.val().dims())).transpose()
        };
        let mut tower = |tower: Tower| -> Result<TowerSites<M>> {
            let trunk = (0..trunk_depth(backbone, tower))
                .map(|block| {
                    let mut one = |layer| at(LinearSite::Trunk(TrunkSite { block, layer }));
                    Ok(PointwiseSites {
                        conv1: one(Pointwise::First)?,
                        conv3: one(Pointwise::Third)?,
                        downsample: one(Pointwise::Downsample)?,
                        expand: one(Pointwise::Expand)?,
                        reduce: one(Pointwise::Reduce)?,
                        excite: one(Pointwise::Excite)?,
                        project: one(Pointwise::Project)?,
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            let trunk = (!trunk.is_empty()).then_some(TrunkSites { blocks: trunk });
            let blocks = (0..backbone.depth(tower))
                .map(|block| {
                    let site = |projection| LinearSite::Block(BlockSite { tower, block }, projection);
                    let looks = backbone.linear(site(Projection::CrossQuery)).is_some();
                    let mut one = |projection| at(site(projection));
                    Ok(BlockSites {
                        q_proj: one(Projection::Query)?,
                        k_proj: one(Projection::Key)?,
                        v_proj: one(Projection::Value)?,
                        out_proj: one(Projection::Output)?,
                        cross: match looks {
                            true => Some(CrossSites {
                                q_proj: one(Projection::CrossQuery)?,
                                k_proj: one(Projection::CrossKey)?,
                                v_proj: one(Projection::CrossValue)?,
                                out_proj: one(Projection::CrossOutput)?,
                            }),
                            false => None,
                        },
                        fc1: one(Projection::Up)?,
                        fc2: one(Projection::Down)?,
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            Ok(TowerSites { trunk, blocks, projection: at(LinearSite::Head(tower))? })
        };
        Ok(Self { image: tower(Tower::Image)?, text: tower(Tower::Text)? })
    }

    /// The value at a site.
    pub fn get(&self, site: LinearSite) -> Option<&M> {
        match site {
            LinearSite::Trunk(TrunkSite { block, layer }) => self.image.trunk.as_ref()?.blocks.get(block)?.get(layer),
            LinearSite::Head(tower) => self.tower(tower).projection.as_ref(),
            LinearSite::Block(BlockSite { tower, block }, projection) => {
                self.tower(tower).blocks.get(block)?.get(projection)
            }
        }
    }

    /// The first stage of a tower at which a value sits.
    pub fn entry(&self, tower: Tower) -> Entry {
        let TowerSites { trunk, blocks, .. } = self.tower(tower);
        let chosen = |block: &PointwiseSites<M>| Pointwise::ALL.iter().any(|one| block.get(*one).is_some());
        if let Some(block) = trunk.as_ref().and_then(|trunk| trunk.blocks.iter().position(chosen)) {
            return Entry::Trunk(block);
        }
        let first = blocks.iter().position(|block| Projection::ALL.iter().any(|one| block.get(*one).is_some()));
        match (first, &self.tower(tower).projection) {
            (Some(block), _) => Entry::Block(block),
            (None, Some(_)) => Entry::Head,
            (None, None) => Entry::Never,
        }
    }

    fn tower(&self, tower: Tower) -> &TowerSites<M> {
        match tower {
            Tower::Image => &self.image,
            Tower::Text => &self.text,
        }
    }
}

/// Every linear site of a backbone, in the order in which data meets them.
pub fn all_sites(backbone: &Backbone) -> impl Iterator<Item = LinearSite> {
    [Tower::Image, Tower::Text].into_iter().flat_map(|tower| {
        let trunk = (0..trunk_depth(backbone, tower))
            .flat_map(|block| Pointwise::ALL.map(|layer| LinearSite::Trunk(TrunkSite { block, layer })));
        trunk
            .chain((0..backbone.depth(tower)).flat_map(move |block| {
                Projection::ALL.map(|projection| LinearSite::Block(BlockSite { tower, block }, projection))
            }))
            .chain([LinearSite::Head(tower)])
            .filter(|site| backbone.linear(*site).is_some())
    })
}

/// Blocks of a tower's trunk.
fn trunk_depth(backbone: &Backbone, tower: Tower) -> usize {
    if tower == Tower::Image { backbone.trunk_depth() } else { 0 }
}

/// Every site that one of `patterns` selects, with its `[d_input, d_output]`.
pub(crate) fn selected_sites(
    backbone: &Backbone,
    patterns: &[String],
) -> impl Iterator<Item = (LinearSite, [usize; 2])> {
    all_sites(backbone).filter_map(move |site| {
        let name = site.to_string();
        let chosen = patterns.iter().any(|pattern| matches(pattern, &name));
        Some((site, backbone.linear(site).filter(|_| chosen)?.weight.val().dims()))
    })
}

/// Whether `name` fits `pattern`, in which `*` stands for any run of characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_select_by_name() {
        assert!(matches("*.q_proj", "image.blocks.3.q_proj"));
        assert!(matches("image.blocks.1*.*", "image.blocks.11.fc1"));
        assert!(matches("text.projection", "text.projection"));
        assert!(matches("*.blocks.*", "image.trunk.blocks.3.conv1"));
        assert!(!matches("text.*.q_proj", "image.blocks.3.q_proj"));
        assert!(!matches("*.q_proj", "image.blocks.3.q_proj.a"));
        assert!(!matches("image.blocks.1.*", "image.blocks.11.fc1"));
        assert!(!matches("image.blocks.*", "image.trunk.blocks.3.conv1"));
    }
}
