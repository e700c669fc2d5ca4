//! A checkpoint as plain values.

use std::collections::BTreeMap;

use half::{bf16, f16};

use super::archive::Storages;
use super::globals::{Element, Global};
use super::pickle::{Id, Node, Pickle};
use crate::backbone::{HostTensor, StateDict};

/// What a PyTorch file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum TorchValue {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list or tuple.
    List(Vec<Self>),
    /// A dictionary; a whole number as key becomes its digits.
    Dict(BTreeMap<String, Self>),
    /// A tensor, as f32.
    Tensor(HostTensor),
    /// An object that was passed over, by its name in Python.
    Object(String),
}

impl TorchValue {
    /// The entry of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The whole or broken number that this is.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// Every tensor below this value, by the path to it; what is no tensor is left out.
    pub fn into_tensors(self) -> StateDict {
        let mut found = StateDict::new();
        let mut open = vec![(String::new(), self)];
        while let Some((path, value)) = open.pop() {
            let below = |name: String| if path.is_empty() { name } else { format!("{path}.{name}") };
            match value {
                Self::Tensor(tensor) => {
                    found.insert(path.clone(), HostTensor { origin: path, ..tensor });
                }
                Self::Dict(entries) => open.extend(entries.into_iter().map(|(name, value)| (below(name), value))),
                Self::List(items) => {
                    open.extend(items.into_iter().enumerate().map(|(at, value)| (below(at.to_string()), value)));
                }
                _ => {}
            }
        }
        found
    }
}

/// Deeper than any checkpoint nests.
const DEEPEST: usize = 32;
/// More values than any checkpoint holds beside its tensors.
const MOST_VALUES: usize = 1 << 18;
/// More bytes than the texts of any checkpoint and the paths to its values have.
const MOST_TEXT: usize = 1 << 25;

/// Joins the values of a pickle with the stored numbers of a file of `length` bytes.
pub(super) fn build(pickle: &Pickle, storages: &Storages<'_>, length: usize) -> Result<TorchValue, String> {
    let budget = 2 * length;
    Builder { nodes: &pickle.nodes, storages, values: 0, text: 0, numbers: 0, budget }.value(pickle.root, 0, 0)
}

struct Builder<'a> {
    nodes: &'a [Node],
    storages: &'a Storages<'a>,
    /// Values made so far.
    values: usize,
    /// Bytes of texts and paths so far; a pickle may repeat a long one as often as it likes.
    text: usize,
    /// Numbers in tensors so far; a storage may be shared by tensors, but not without end.
    numbers: usize,
    budget: usize,
}

impl Builder<'_> {
    /// `path` is how long the keys above are together.
    fn value(&mut self, id: Id, depth: usize, path: usize) -> Result<TorchValue, String> {
        self.values += 1;
        self.text += path;
        self.text += match &self.nodes[id] {
            Node::Text(text) | Node::Object(text) | Node::Global(Global::Text(text) | Global::Inert(text)) => {
                text.len()
            }
            _ => 0,
        };
        if depth > DEEPEST || self.values > MOST_VALUES || self.text > MOST_TEXT {
            return Err("it nests or repeats its values without end".into());
        }
        Ok(match &self.nodes[id] {
            Node::None => TorchValue::None,
            Node::Bool(value) => TorchValue::Bool(*value),
            Node::Int(value) => TorchValue::Int(*value),
            Node::Float(value) => TorchValue::Float(*value),
            Node::Text(value) => TorchValue::Text(value.clone()),
            Node::List(items) => {
                TorchValue::List(items.iter().map(|id| self.value(*id, depth + 1, path)).collect::<Result<_, _>>()?)
            }
            Node::Dict(pairs) => {
                let mut entries = BTreeMap::new();
                for (key, value) in pairs {
                    let key = match &self.nodes[*key] {
                        Node::Text(key) => key.clone(),
                        Node::Int(key) => key.to_string(),
                        _ => return Err("a dictionary in it has keys that are neither texts nor whole numbers".into()),
                    };
                    let value = self.value(*value, depth + 1, path + key.len())?;
                    entries.insert(key, value);
                }
                TorchValue::Dict(entries)
            }
            Node::Global(global) => TorchValue::Object(format!("{global:?}")),
            Node::Storage { .. } => TorchValue::Object("torch.Storage".into()),
            Node::Object(name) => TorchValue::Object(name.clone()),
            Node::Tensor { storage, offset, shape, strides } => {
                TorchValue::Tensor(self.tensor(*storage, *offset, shape, strides)?)
            }
        })
    }

    fn tensor(&mut self, storage: Id, offset: usize, shape: &[usize], strides: &[usize]) -> Result<HostTensor, String> {
        let Node::Storage { key, element, count } = &self.nodes[storage] else {
            return Err("a tensor in it has no numbers".into());
        };
        let size = element.bytes();
        let data = self.storages.get(key).ok_or_else(|| format!("its numbers `{key}` are missing"))?;
        let held = data.len() / size;
        let total = shape.iter().try_fold(1usize, |total, axis| total.checked_mul(*axis));
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(offset, |last, (axis, stride)| last.checked_add(axis.saturating_sub(1).checked_mul(*stride)?));
        let (Some(total), Some(last)) = (total, last) else { return Err(outside(key, held)) };
        if held < *count || total > held || (total > 0 && last >= held) {
            return Err(outside(key, held));
        }
        self.numbers = self.numbers.saturating_add(total);
        if self.numbers > self.budget {
            return Err("its tensors repeat the same numbers without end".into());
        }
        let mut places = vec![offset; usize::from(total > 0)];
        for (axis, stride) in shape.iter().zip(strides).filter(|_| total > 0) {
            places = places.iter().flat_map(|place| (0..*axis).map(move |step| place + step * stride)).collect();
        }
        let values = places.into_iter().map(|place| float(*element, &data[place * size..(place + 1) * size]));
        Ok(HostTensor { shape: shape.to_vec(), data: values.collect(), origin: String::new() })
    }
}

fn outside(key: &str, held: usize) -> String {
    format!("a tensor in it reaches beyond the {held} numbers of `{key}`; the file may be truncated")
}

fn float(element: Element, bytes: &[u8]) -> f32 {
    fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut fixed = [0; N];
        fixed.copy_from_slice(bytes);
        fixed
    }
    match element {
        Element::F64 => f64::from_le_bytes(fixed(bytes)) as f32,
        Element::F32 => f32::from_le_bytes(fixed(bytes)),
        Element::F16 => f16::from_le_bytes(fixed(bytes)).to_f32(),
        Element::BF16 => bf16::from_le_bytes(fixed(bytes)).to_f32(),
        Element::I64 => i64::from_le_bytes(fixed(bytes)) as f32,
        Element::I32 => i32::from_le_bytes(fixed(bytes)) as f32,
        Element::I16 => f32::from(i16::from_le_bytes(fixed(bytes))),
        Element::I8 => f32::from(i8::from_le_bytes(fixed(bytes))),
        Element::U8 | Element::Bool => f32::from(bytes[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pickle::read;
    use super::{Storages, TorchValue, build};

    /// A tensor of protocol 0 globals over a storage `s` of four f32.
    fn tensor(offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Result<TorchValue, String> {
        let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00sX\x03\x00\x00\x00cpuK\x04tQ".to_vec();
        bytes.extend([b'K', offset]);
        for [rows, columns] in [shape, strides] {
            bytes.extend([b'K', rows, b'K', columns, 0x86]);
        }
        bytes.extend(b"tR.");
        let (pickle, _) = read(&bytes)?;
        let data: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        build(&pickle, &Storages::from([("s".to_string(), &data[..])]), 100)
    }

    #[test]
    fn strides_are_followed() {
        let Ok(TorchValue::Tensor(found)) = tensor(0, [2, 2], [1, 2]) else { panic!("no tensor") };
        assert_eq!((found.shape, found.data), (vec![2, 2], vec![1.0, 3.0, 2.0, 4.0]));
        let Ok(TorchValue::Tensor(found)) = tensor(1, [1, 3], [9, 1]) else { panic!("no tensor") };
        assert_eq!(found.data, [2.0, 3.0, 4.0]);
        let Ok(TorchValue::Tensor(found)) = tensor(4, [0, 3], [3, 1]) else { panic!("no tensor") };
        assert!(found.data.is_empty());
    }

    #[test]
    fn no_tensor_is_greater_than_its_numbers() {
        for (offset, shape, strides) in [(0, [2, 3], [3, 1]), (3, [1, 2], [1, 1]), (0, [200, 200], [0, 0])] {
            assert!(tensor(offset, shape, strides).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn what_repeats_without_end_is_refused() {
        // A list within itself, and one that doubles thirty times.
        let (within, _) = read(b"]q\x00h\x00a.").expect("a pickle");
        assert!(build(&within, &Storages::new(), 10).is_err());
        let mut bytes = b"]q\x00".to_vec();
        (0..30).for_each(|_| bytes.extend(b"h\x00h\x00\x86q\x00"));
        bytes.push(b'.');
        let (doubled, _) = read(&bytes).expect("a pickle");
        assert!(build(&doubled, &Storages::new(), 10).is_err());
        // A text of 64 KiB, a thousand times over, and one as the key above a thousand values.
        let text = [&b"X\x00\x00\x01\x00"[..], &[b'a'; 1 << 16], b"q\x01"].concat();
        let texts = [&b"]("[..], &text[..], &b"h\x01".repeat(1000)[..], b"e."].concat();
        let paths = [&b"}"[..], &text[..], b"](", &b"N".repeat(1000)[..], b"es."].concat();
        for bytes in [texts, paths] {
            let (long, _) = read(&bytes).expect("a pickle");
            assert!(build(&long, &Storages::new(), bytes.len()).is_err());
        }
    }
}
