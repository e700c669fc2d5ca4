//! The names of linear layers and normalisations in `transformers.CLIPModel`.

use inarch_core::backbone::{BlockSite, LinearSite, NormSite, Projection, Tower};

/// The module of a site, e.g. `vision_model.encoder.layers.0.self_attn.q_proj`.
pub(super) fn module_of(site: LinearSite) -> String {
    match site {
        LinearSite::Head(Tower::Image) => "visual_projection".into(),
        LinearSite::Head(Tower::Text) => "text_projection".into(),
        LinearSite::Block(BlockSite { tower, block }, projection) => {
            let tower = tower_name(tower);
            let part = match projection {
                Projection::Up | Projection::Down => "mlp",
                _ => "self_attn",
            };
            format!("{tower}.encoder.layers.{block}.{part}.{}", projection.name())
        }
    }
}

/// The module of a normalisation, e.g. `text_model.final_layer_norm`.
pub(super) fn norm_module_of(site: NormSite) -> String {
    let block = |BlockSite { tower, block }: BlockSite, part: &str| {
        format!("{}.encoder.layers.{block}.{part}", tower_name(tower))
    };
    match site {
        // The misspelling is the library's.
        NormSite::Input(tower) => format!("{}.pre_layrnorm", tower_name(tower)),
        NormSite::Attention(at) => block(at, "layer_norm1"),
        NormSite::Mlp(at) => block(at, "layer_norm2"),
        NormSite::Output(Tower::Image) => "vision_model.post_layernorm".into(),
        NormSite::Output(Tower::Text) => "text_model.final_layer_norm".into(),
    }
}

fn tower_name(tower: Tower) -> &'static str {
    match tower {
        Tower::Image => "vision_model",
        Tower::Text => "text_model",
    }
}
