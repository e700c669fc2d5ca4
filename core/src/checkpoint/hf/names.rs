//! Names and layouts of tensors, brought to the canonical ones.

use crate::backbone::{HostTensor, StateDict};

/// Renames every tensor; `None` leaves a tensor out.
pub(super) fn renamed(tensors: StateDict, rule: impl Fn(&str) -> Option<String>) -> StateDict {
    tensors.into_iter().filter_map(|(name, tensor)| Some((rule(&name)?, tensor))).collect()
}

/// `PREFIX N . REST` as the number and the rest.
pub(super) fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    name.strip_prefix(prefix)?.split_once('.')
}

/// `LAYER.weight` or `LAYER.bias` with the layer renamed by a table.
pub(super) fn layer(name: &str, table: &[(&str, &str)]) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    table.iter().find(|(from, _)| *from == layer).map(|(_, to)| format!("{to}.{kind}"))
}

/// Drops axes of length one at the front, down to `axes`.
pub(in crate::checkpoint) fn squeeze(tensors: &mut StateDict, name: &str, axes: usize) {
    if let Some(tensor) = tensors.get_mut(name) {
        while tensor.shape.len() > axes && tensor.shape[0] == 1 {
            tensor.shape.remove(0);
        }
    }
}

/// Splits the first axis into three; one that is no multiple of three gives three empty tensors, which the model then refuses by
/// name.
pub(in crate::checkpoint) fn thirds(tensor: HostTensor) -> [HostTensor; 3] {
    let HostTensor { shape, data, origin } = tensor;
    let rows = shape.first().filter(|rows| rows.is_multiple_of(3)).map_or(0, |rows| rows / 3);
    let inner: usize = shape.iter().skip(1).product();
    [0, 1, 2].map(|part| {
        let mut shape = shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows;
        }
        let data = data.get(part * rows * inner..(part + 1) * rows * inner).unwrap_or_default().to_vec();
        HostTensor { shape, data, origin: origin.clone() }
    })
}

/// Queries, keys and values out of one matrix or offset, put under the names `PREFIX.{q,k,v}_proj.KIND`.
pub(in crate::checkpoint) fn split_qkv(tensors: &mut StateDict, fused: &str, prefix: &str, kind: &str) {
    let Some(tensor) = tensors.remove(fused) else { return };
    for (part, tensor) in ["q_proj", "k_proj", "v_proj"].into_iter().zip(thirds(tensor)) {
        tensors.insert(format!("{prefix}.{part}.{kind}"), tensor);
    }
}

/// Adds one row of a table to every row of a tensor; a row that is not there or of another width changes nothing, and the model
/// then refuses what is mis-shaped.
pub(super) fn add_row(tensors: &mut StateDict, name: &str, table: &HostTensor, row: usize) {
    let Some(tensor) = tensors.get_mut(name) else { return };
    let Some(width) = tensor.shape.last().copied().filter(|width| *width > 0) else { return };
    let fits = table.shape.len() == 2 && table.shape[1] == width;
    let Some(added) = table.data.get(row * width..(row + 1) * width).filter(|_| fits) else { return };
    for values in tensor.data.chunks_mut(width) {
        values.iter_mut().zip(added).for_each(|(value, added)| *value += added);
    }
}

/// The tensors below `word_head.`, as BERT's heads call them, under their canonical names. Where the decoder shares its matrix with
/// the embeddings, or its offset with the head, files may hold one of the two.
pub(super) fn word_head(tensors: &mut StateDict) {
    const LAYERS: [(&str, &str); 4] = [
        ("transform.dense.", "dense."),
        ("transform.LayerNorm.", "layer_norm."),
        ("decoder.", "decoder."),
        ("bias", "decoder.bias"),
    ];
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with("word_head.")).cloned().collect();
    if names.is_empty() {
        return;
    }
    for name in names {
        let rest = &name["word_head.".len()..];
        let known = LAYERS.iter().find_map(|(from, to)| Some(format!("word_head.{to}{}", rest.strip_prefix(from)?)));
        if let (Some(known), Some(tensor)) = (known, tensors.remove(&name)) {
            // `decoder.bias` comes after `bias`, of which it is a copy.
            tensors.insert(known, tensor);
        }
    }
    let decoder = "word_head.decoder.weight";
    if !tensors.contains_key(decoder)
        && let Some(embeddings) = tensors.get("text_model.embeddings.token_embedding.weight").cloned()
    {
        tensors.insert(decoder.into(), embeddings);
    }
}
