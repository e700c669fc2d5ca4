//! The names of linear layers in `transformers.CLIPModel`.

use inarch_core::backbone::{BlockSite, LinearSite, Projection, Tower};

/// The module of a site, e.g. `vision_model.encoder.layers.0.self_attn.q_proj`.
pub(super) fn module_of(site: LinearSite) -> String {
    match site {
        LinearSite::Head(Tower::Image) => "visual_projection".into(),
        LinearSite::Head(Tower::Text) => "text_projection".into(),
        LinearSite::Block(BlockSite { tower, block }, projection) => {
            let tower = match tower {
                Tower::Image => "vision_model",
                Tower::Text => "text_model",
            };
            let part = match projection {
                Projection::Up | Projection::Down => "mlp",
                _ => "self_attn",
            };
            format!("{tower}.encoder.layers.{block}.{part}.{}", projection.name())
        }
    }
}
