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

/// Splits the first axis into three; one that is no multiple of three gives three mis-shaped tensors, which the model then
/// refuses by name.
pub(in crate::checkpoint) fn thirds(tensor: HostTensor) -> [HostTensor; 3] {
    let HostTensor { shape, data, origin } = tensor;
    let rows = shape.first().copied().unwrap_or(0) / 3;
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
