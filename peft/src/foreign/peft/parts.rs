//! The tensors of an adapted layer, in PEFT and here.

/// A kind of adapter that is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lora,
    Dora,
    Vera,
    Ia3,
    LoHa,
    LoKr,
    Oft,
    Boft,
    LnTuning,
}

/// VeRA's shared matrices, in PEFT and here.
pub(super) const SHARED: [(&str, &str); 2] = [("base_model.vera_A", "a.fixed"), ("base_model.vera_B", "b.fixed")];

/// How a tensor is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A matrix, which PEFT stores the other way round.
    Transposed,
    /// A vector, which PEFT may store as a row or column.
    Vector,
    /// Skew-symmetric blocks `[factors, blocks, width, width]` there, rows of their upper triangles here.
    Skew,
    /// The same on both sides.
    Same,
}

/// A tensor of an adapted layer.
pub(super) struct Part {
    pub(super) theirs: &'static str,
    pub(super) ours: &'static str,
    pub(super) layout: Layout,
    /// Whether each layer has it.
    pub(super) always: bool,
}

const fn part(theirs: &'static str, ours: &'static str, layout: Layout) -> Part {
    Part { theirs, ours, layout, always: true }
}

const fn perhaps(theirs: &'static str, ours: &'static str) -> Part {
    Part { theirs, ours, layout: Layout::Transposed, always: false }
}

/// The tensors of an adapted linear layer.
pub(super) fn parts(kind: Kind) -> &'static [Part] {
    use Layout::{Same, Skew, Transposed, Vector};
    const LORA: &[Part] = &[part("lora_A.weight", "a", Transposed), part("lora_B.weight", "b", Transposed)];
    const DORA: &[Part] = &[
        part("lora_A.weight", "factors.a", Transposed),
        part("lora_B.weight", "factors.b", Transposed),
        part("lora_magnitude_vector", "magnitude", Vector),
    ];
    const VERA: &[Part] = &[part("vera_lambda_d", "d", Vector), part("vera_lambda_b", "e", Vector)];
    const IA3: &[Part] = &[part("ia3_l", "gain", Vector)];
    const LOHA: &[Part] = &[
        part("hada_w1_b", "a1", Transposed),
        part("hada_w1_a", "b1", Transposed),
        part("hada_w2_b", "a2", Transposed),
        part("hada_w2_a", "b2", Transposed),
    ];
    const LOKR: &[Part] = &[
        part("lokr_w1", "c", Transposed),
        perhaps("lokr_w2", "d"),
        perhaps("lokr_w2_b", "a"),
        perhaps("lokr_w2_a", "b"),
    ];
    const OFT: &[Part] = &[part("oft_R.weight", "skew", Same)];
    const BOFT: &[Part] = &[part("boft_R", "skew", Skew), part("boft_s", "scale", Vector)];
    match kind {
        Kind::Lora => LORA,
        Kind::Dora => DORA,
        Kind::Vera => VERA,
        Kind::Ia3 => IA3,
        Kind::LoHa => LOHA,
        Kind::LoKr => LOKR,
        Kind::Oft => OFT,
        Kind::Boft => BOFT,
        Kind::LnTuning => &[],
    }
}
