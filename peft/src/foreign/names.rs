//! The names of linear layers and normalisations in the models of `transformers`.

use inarch_core::backbone::{Backbone, BlockSite, LinearSite, Meeting, NormSite, Projection, Tower};

/// How a family names the layers of a block, and the normalisation behind the last one.
#[derive(Debug)]
struct Layers {
    /// What stands before the number of a block.
    blocks: &'static str,
    /// Queries, keys, values, output of the attention, and the two layers of the MLP; empty for one that is no module of its own.
    linear: [&'static str; 6],
    /// The normalisations of a block, in the order in which data meets them.
    norms: [&'static str; 2],
    /// The normalisation before the first block.
    input: &'static str,
    /// The normalisation behind the last block.
    output: &'static str,
    /// The module that holds an attention to images, with the layers of the first one in the block; empty for none.
    cross: &'static str,
}

const CLIP: Layers = Layers {
    blocks: "encoder.layers",
    linear: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"],
    norms: ["layer_norm1", "layer_norm2"],
    // The misspelling is the library's.
    input: "pre_layrnorm",
    output: "post_layernorm",
    cross: "",
};

const CLIP_TEXT: Layers = Layers { output: "final_layer_norm", ..CLIP };

/// ViT and DeiT since version 5 of the library.
const VIT: Layers = Layers {
    blocks: "layers",
    linear: ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"],
    norms: ["layernorm_before", "layernorm_after"],
    input: "",
    output: "layernorm",
    cross: "",
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
    input: "embeddings.LayerNorm",
    output: "",
    cross: "",
};

/// The text decoder of BLIP.
const BLIP_TEXT: Layers = Layers { cross: "crossattention", ..BERT };

/// Its image tower, whose queries, keys and values are one layer.
const BLIP: Layers = {
    let [_, _, _, _, up, down] = CLIP.linear;
    Layers { linear: ["", "", "", "self_attn.projection", up, down], input: "", ..CLIP }
};

/// How a model of `transformers` names its modules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    /// Of the image tower and of the text tower, with what stands before their modules.
    towers: [(&'static str, &'static Layers); 2],
    /// What a model with a head puts before the names of the tower's modules; empty for the tower alone.
    pub(super) wrapper: &'static str,
}

impl Naming {
    /// `CLIPModel`, and `SiglipModel`, whose blocks are named alike.
    pub(super) const CLIP: Self = Self { towers: [("vision_model.", &CLIP), ("text_model.", &CLIP_TEXT)], wrapper: "" };

    /// `BlipForConditionalGeneration`.
    const BLIP: Self = Self { towers: [("vision_model.", &BLIP), ("text_decoder.bert.", &BLIP_TEXT)], wrapper: "" };

    /// One tower, or one stream.
    const fn alone(layers: &'static Layers, wrapper: &'static str) -> Self {
        Self { towers: [("", layers), ("", layers)], wrapper }
    }

    /// The names that a model of this backbone's family may have, today's first: of the tower alone and of one with a head.
    fn all(backbone: &Backbone) -> Vec<Self> {
        let spec = backbone.spec();
        match spec.crossing.as_ref().map(|crossing| crossing.meeting) {
            Some(Meeting::Attention) => return vec![Self::BLIP],
            Some(Meeting::Stream) => return vec![Self::alone(&VIT_4, "vilt.")],
            None => {}
        }
        let (layers, wrappers): (&[&'static Layers], &[&'static str]) =
            match (backbone.has(Tower::Image), backbone.has(Tower::Text)) {
                (true, false) if spec.image.transformer.layer_scale => (&[&DINO, &DINO_4], &["", "dinov2."]),
                (true, false) if spec.image.style.class_tokens > 1 => (&[&VIT, &VIT_4], &["", "deit."]),
                (true, false) => (&[&VIT, &VIT_4], &["", "vit.", "deit."]),
                (false, true) => (&[&BERT], &["", "bert."]),
                _ => return vec![Self::CLIP],
            };
        let named = |layers| wrappers.iter().map(move |wrapper| Self::alone(layers, wrapper));
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
        let Some(name) = name.strip_prefix(self.wrapper) else { return false };
        self.towers.iter().any(|(prefix, layers)| name.strip_prefix(prefix).is_some_and(|rest| layers.know(rest)))
    }

    /// The module of a site, e.g. `vision_model.encoder.layers.0.self_attn.q_proj`; `None` for one that is no module of its own.
    pub(super) fn module(&self, site: LinearSite) -> Option<String> {
        match site {
            LinearSite::Head(Tower::Image) => Some("visual_projection".into()),
            LinearSite::Head(Tower::Text) => Some("text_projection".into()),
            LinearSite::Block(at, projection) => Some(self.block(at, &self.layers(at.tower).projection(projection)?)),
            // Its batch normalisation is a module of its own there, and a part of the convolution here.
            LinearSite::Trunk(_) => None,
        }
    }

    /// The module of a normalisation, e.g. `text_model.final_layer_norm`; `None` for one that is more than the module's.
    pub(super) fn norm(&self, site: NormSite) -> Option<String> {
        let layers = self.layers(site.tower());
        let outside = |name: &str| (!name.is_empty()).then(|| format!("{}{name}", self.prefix(site.tower())));
        match site {
            NormSite::Input(_) => outside(layers.input),
            NormSite::Attention(at) => Some(self.block(at, layers.norms[0])),
            NormSite::Cross(at) => Some(self.block(at, &layers.norms[0].replacen("attention", layers.cross, 1))),
            NormSite::Mlp(at) => Some(self.block(at, layers.norms[1])),
            NormSite::Output(_) => outside(layers.output),
        }
    }

    fn layers(&self, tower: Tower) -> &'static Layers {
        self.towers[usize::from(tower == Tower::Text)].1
    }

    /// What stands before the modules of a tower.
    fn prefix(&self, tower: Tower) -> String {
        format!("{}{}", self.wrapper, self.towers[usize::from(tower == Tower::Text)].0)
    }

    fn block(&self, BlockSite { tower, block }: BlockSite, module: &str) -> String {
        format!("{}{}.{block}.{module}", self.prefix(tower), self.layers(tower).blocks)
    }
}

impl Layers {
    /// The module of a projection in its block.
    fn projection(&self, projection: Projection) -> Option<String> {
        let [query, key, value, output, up, down] = self.linear;
        let cross = |name: &str| name.replacen("attention", self.cross, 1);
        let name = match projection {
            Projection::Query => query.into(),
            Projection::Key => key.into(),
            Projection::Value => value.into(),
            Projection::Output => output.into(),
            Projection::CrossQuery => cross(query),
            Projection::CrossKey => cross(key),
            Projection::CrossValue => cross(value),
            Projection::CrossOutput => cross(output),
            Projection::Up => up.into(),
            Projection::Down => down.into(),
        };
        (!name.is_empty()).then_some(name)
    }

    /// Whether a name behind what stands before the tower's modules is that of a layer, or of something in it.
    fn know(&self, rest: &str) -> bool {
        let Layers { blocks, linear, norms, input, output, .. } = self;
        let below = |rest: &str, module: &str| {
            !module.is_empty() && rest.strip_prefix(module).is_some_and(|part| part.starts_with('.'))
        };
        let in_block = || {
            let (_, rest) = rest.strip_prefix(blocks)?.strip_prefix('.')?.split_once('.')?;
            let cross = rest.replacen(self.cross, "attention", usize::from(!self.cross.is_empty()));
            let known = |rest: &str| linear.iter().chain(norms).any(|module| below(rest, module));
            Some(known(rest) || known(&cross))
        };
        below(rest, input) || below(rest, output) || in_block() == Some(true)
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
        let alone = |layers| Naming::alone(layers, "vit.");
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
            (
                Naming::BLIP.module(LinearSite::Block(text, Projection::CrossOutput)),
                "text_decoder.bert.encoder.layer.1.crossattention.output.dense",
            ),
            (
                Naming::BLIP.norm(NormSite::Cross(text)),
                "text_decoder.bert.encoder.layer.1.crossattention.output.LayerNorm",
            ),
            (alone(&BERT).norm(NormSite::Attention(text)), "vit.encoder.layer.1.attention.output.LayerNorm"),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
        assert_eq!(Naming::BLIP.module(LinearSite::Block(at, Projection::Query)), None);
        assert_eq!(Naming::alone(&VIT_4, "vilt.").norm(NormSite::Input(Tower::Text)), None);
    }

    #[test]
    fn a_naming_knows_its_own_names() {
        let alone = Naming::alone;
        let name = "vit.encoder.layer.0.attention.attention.query.lora_A.weight";
        assert!(alone(&VIT_4, "vit.").knows(name) && alone(&DINO_4, "vit.").knows(name));
        assert!(!alone(&VIT_4, "").knows(name) && !alone(&VIT, "vit.").knows(name));
        assert!(alone(&VIT, "").knows("layernorm.weight") && !alone(&BERT, "").knows("layernorm.weight"));
    }
}
