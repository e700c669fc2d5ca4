//! The names of linear layers and normalisations in the models of `transformers`.

use inarch_core::backbone::{Backbone, BlockSite, LinearSite, NormSite, Projection, Tower};

/// How a family names the layers of a block, and the normalisation behind the last one.
#[derive(Debug)]
struct Layers {
    /// What stands before the number of a block.
    blocks: &'static str,
    /// Queries, keys, values, output of the attention, and the two layers of the MLP.
    linear: [&'static str; 6],
    /// The normalisations of a block, in the order in which data meets them.
    norms: [&'static str; 2],
    /// The normalisation behind the last block.
    output: &'static str,
}

const CLIP: Layers = Layers {
    blocks: "encoder.layers",
    linear: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"],
    norms: ["layer_norm1", "layer_norm2"],
    output: "post_layernorm",
};

/// ViT and DeiT since version 5 of the library.
const VIT: Layers = Layers {
    blocks: "layers",
    linear: ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"],
    norms: ["layernorm_before", "layernorm_after"],
    output: "layernorm",
};

/// The same until version 4.
const VIT_4: Layers = Layers {
    blocks: "encoder.layer",
    linear: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    ..VIT
};

const DINO: Layers = Layers { blocks: "encoder.layer", linear: VIT.linear, norms: ["norm1", "norm2"], ..VIT };

const DINO_4: Layers = {
    let [query, key, value, output, ..] = VIT_4.linear;
    Layers { linear: [query, key, value, output, "mlp.fc1", "mlp.fc2"], ..DINO }
};

const BERT: Layers = Layers {
    blocks: "encoder.layer",
    linear: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    // There is none.
    output: "",
};

/// How a model of `transformers` names its modules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    layers: &'static Layers,
    /// What a model with a head puts before the names of the tower's modules; empty for the tower alone.
    pub(super) wrapper: &'static str,
    /// Whether the modules of each tower are below its name.
    towers: bool,
}

impl Naming {
    /// `CLIPModel`, and `SiglipModel`, whose blocks are named alike.
    pub(super) const CLIP: Self = Self { layers: &CLIP, wrapper: "", towers: true };

    /// The names that a model of this backbone's family may have, today's first: of the tower alone and of one with a head.
    fn all(backbone: &Backbone) -> Vec<Self> {
        let spec = backbone.spec();
        let (layers, wrappers): (&[&'static Layers], &[&'static str]) =
            match (backbone.has(Tower::Image), backbone.has(Tower::Text)) {
                (true, false) if spec.image.transformer.layer_scale => (&[&DINO, &DINO_4], &["", "dinov2."]),
                (true, false) if spec.image.style.class_tokens > 1 => (&[&VIT, &VIT_4], &["", "deit."]),
                (true, false) => (&[&VIT, &VIT_4], &["", "vit.", "deit."]),
                (false, true) => (&[&BERT], &["", "bert."]),
                _ => return vec![Self::CLIP],
            };
        let named = |layers| wrappers.iter().map(move |wrapper| Self { layers, wrapper, towers: false });
        layers.iter().copied().flat_map(named).collect()
    }

    /// The names that are written: of the tower alone, or of a model with a head that tells classes apart.
    pub(super) fn written(backbone: &Backbone, with_head: bool) -> Self {
        let all = Self::all(backbone);
        let wrapped = |naming: &&Self| naming.wrapper.is_empty() != with_head;
        *all.iter().find(wrapped).unwrap_or(&all[0])
    }

    /// The names that most tensors of a folder have; of several alike the first.
    pub(super) fn found<'a>(backbone: &Backbone, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let known = |naming: &Self| names.clone().filter(|name| naming.knows(name)).count();
        Self::all(backbone).into_iter().rev().max_by_key(known).unwrap_or(Self::CLIP)
    }

    /// Whether a name is that of a layer, or of something in it.
    fn knows(&self, name: &str) -> bool {
        let Layers { blocks, linear, norms, output } = self.layers;
        let Some(rest) = name.strip_prefix(self.wrapper) else { return false };
        let below = |rest: &str, module: &str| {
            !module.is_empty() && rest.strip_prefix(module).is_some_and(|part| part.starts_with('.'))
        };
        let in_block = || {
            let (_, rest) = rest.strip_prefix(blocks)?.strip_prefix('.')?.split_once('.')?;
            Some(linear.iter().chain(norms).any(|module| below(rest, module)))
        };
        below(rest, output) || in_block() == Some(true)
    }

    /// The module of a site, e.g. `vision_model.encoder.layers.0.self_attn.q_proj`.
    pub(super) fn module(&self, site: LinearSite) -> String {
        match site {
            LinearSite::Head(Tower::Image) => "visual_projection".into(),
            LinearSite::Head(Tower::Text) => "text_projection".into(),
            LinearSite::Block(at, projection) => {
                let place = Projection::ALL.iter().position(|one| *one == projection).unwrap_or(0);
                self.block(at, self.layers.linear[place])
            }
        }
    }

    /// The module of a normalisation, e.g. `text_model.final_layer_norm`.
    pub(super) fn norm(&self, site: NormSite) -> String {
        let tower = self.tower(site.tower());
        match site {
            // The misspelling is the library's.
            NormSite::Input(_) if self.towers => format!("{tower}pre_layrnorm"),
            NormSite::Input(_) => format!("{tower}embeddings.LayerNorm"),
            NormSite::Attention(at) => self.block(at, self.layers.norms[0]),
            NormSite::Mlp(at) => self.block(at, self.layers.norms[1]),
            NormSite::Output(Tower::Text) if self.towers => format!("{tower}final_layer_norm"),
            NormSite::Output(_) => format!("{tower}{}", self.layers.output),
        }
    }

    /// What stands before the modules of a tower.
    fn tower(&self, tower: Tower) -> String {
        match (self.towers, tower) {
            (true, Tower::Image) => "vision_model.".into(),
            (true, Tower::Text) => "text_model.".into(),
            (false, _) => self.wrapper.into(),
        }
    }

    fn block(&self, BlockSite { tower, block }: BlockSite, module: &str) -> String {
        format!("{}{}.{block}.{module}", self.tower(tower), self.layers.blocks)
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::{BlockSite, LinearSite, NormSite, Projection, Tower};

    use super::{BERT, DINO_4, Naming, VIT, VIT_4};

    #[test]
    fn names_are_those_of_the_library() {
        let at = BlockSite { tower: Tower::Image, block: 3 };
        let text = BlockSite { tower: Tower::Text, block: 1 };
        let alone = |layers| Naming { layers, wrapper: "vit.", towers: false };
        let down = LinearSite::Block(at, Projection::Down);
        let output = LinearSite::Block(at, Projection::Output);
        for (found, expected) in [
            (Naming::CLIP.module(down), "vision_model.encoder.layers.3.mlp.fc2"),
            (Naming::CLIP.norm(NormSite::Output(Tower::Text)), "text_model.final_layer_norm"),
            (Naming::CLIP.norm(NormSite::Output(Tower::Image)), "vision_model.post_layernorm"),
            (alone(&VIT).module(output), "vit.layers.3.attention.o_proj"),
            (alone(&VIT_4).module(down), "vit.encoder.layer.3.output.dense"),
            (alone(&DINO_4).module(down), "vit.encoder.layer.3.mlp.fc2"),
            (alone(&DINO_4).norm(NormSite::Mlp(at)), "vit.encoder.layer.3.norm2"),
            (alone(&VIT).norm(NormSite::Output(Tower::Image)), "vit.layernorm"),
            (alone(&BERT).norm(NormSite::Attention(text)), "vit.encoder.layer.1.attention.output.LayerNorm"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_naming_knows_its_own_names() {
        let alone = |layers, wrapper| Naming { layers, wrapper, towers: false };
        let name = "vit.encoder.layer.0.attention.attention.query.lora_A.weight";
        assert!(alone(&VIT_4, "vit.").knows(name) && alone(&DINO_4, "vit.").knows(name));
        assert!(!alone(&VIT_4, "").knows(name) && !alone(&VIT, "vit.").knows(name));
        assert!(alone(&VIT, "").knows("layernorm.weight") && !alone(&BERT, "").knows("layernorm.weight"));
    }
}
