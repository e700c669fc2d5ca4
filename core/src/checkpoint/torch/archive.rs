//! Containers: a zip archive (PyTorch from 1.6 on), or a stream of pickles with the numbers behind them (before).

use std::collections::HashMap;
use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Node, Pickle, read};

/// Stored numbers by key, as slices of the file.
pub(super) type Storages<'a> = HashMap<String, &'a [u8]>;

/// The number that an old file begins with, as its pickle spells it.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Where it may begin: behind the protocol, and a frame.
const MAGIC_PLACES: usize = 16;

/// The pickle of a file, and its stored numbers.
pub(super) fn open(bytes: &[u8]) -> Result<(Pickle, Storages<'_>), String> {
    let head = &bytes[..bytes.len().min(MAGIC_PLACES + MAGIC.len())];
    if bytes.starts_with(b"PK\x03\x04") {
        open_zip(bytes)
    } else if head.windows(MAGIC.len()).any(|window| window == MAGIC) {
        open_stream(bytes)
    } else if bytes.get(257..262) == Some(b"ustar") {
        Err("it is a tar archive of a PyTorch before 0.2; load it there and save it again".into())
    } else {
        Err("it begins like no PyTorch file; it may be truncated or of another kind".into())
    }
}

fn open_zip(bytes: &[u8]) -> Result<(Pickle, Storages<'_>), String> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("its archive is damaged: {error}"))?;
    let mut entries = HashMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| format!("its archive is damaged: {error}"))?;
        let name = entry.name().map_err(|error| format!("its archive is damaged: {error}"))?.into_owned();
        // PyTorch never compresses, so that nothing can unfold to more than the file.
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("entry `{name}` of its archive is compressed, which PyTorch never does"));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let end = start.and_then(|start| start.checked_add(usize::try_from(entry.size()).ok()?));
        let data = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        // Everything lies in one folder, whose name is free.
        let (_, inner) = name.split_once('/').unwrap_or(("", &name));
        entries.insert(inner.to_owned(), data.ok_or_else(|| format!("entry `{name}` of its archive is damaged"))?);
    }
    if entries.get("byteorder").is_some_and(|order| *order != b"little") {
        return Err("its numbers are big-endian".into());
    }
    if entries.contains_key("constants.pkl") {
        return Err("it is a TorchScript archive, a program".into());
    }
    let pickle = entries.get("data.pkl").ok_or("its archive holds no `data.pkl`")?;
    let (pickle, _) = read(pickle)?;
    let storage = |(name, data): (String, _)| Some((name.strip_prefix("data/")?.to_owned(), data));
    Ok((pickle, entries.into_iter().filter_map(storage).collect()))
}

fn open_stream(bytes: &[u8]) -> Result<(Pickle, Storages<'_>), String> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle, String> {
        let (pickle, length) = read(rest)?;
        rest = &rest[length..];
        Ok(pickle)
    };
    next()?;
    let version = next()?;
    if version.nodes[version.root] != Node::Int(1001) {
        return Err("it is of an unknown version of the old PyTorch format".into());
    }
    let system = next()?;
    if !is_little_endian(&system) {
        return Err("its numbers are big-endian".into());
    }
    let pickle = next()?;
    let keys = next()?;
    let sizes: HashMap<&str, usize> = pickle.nodes.iter().filter_map(element_of).collect();
    let Node::List(keys_in_order) = &keys.nodes[keys.root] else {
        return Err("its list of stored numbers is missing".into());
    };
    let mut storages = Storages::new();
    for key in keys_in_order {
        let key = match &keys.nodes[*key] {
            Node::Text(key) => key.clone(),
            Node::Int(key) => key.to_string(),
            _ => return Err("its list of stored numbers is corrupt".into()),
        };
        let element = sizes.get(key.as_str()).ok_or_else(|| format!("nothing says what its numbers `{key}` are"))?;
        let short = || format!("its numbers `{key}` are cut off; the file may be truncated");
        let (count, behind) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(*element));
        let (data, behind) = length.and_then(|length| behind.split_at_checked(length)).ok_or_else(short)?;
        rest = behind;
        storages.insert(key, data);
    }
    Ok((pickle, storages))
}

/// The key of a storage and the bytes of one of its numbers.
fn element_of(node: &Node) -> Option<(&str, usize)> {
    match node {
        Node::Storage { key, element, .. } => Some((key, element.bytes())),
        _ => None,
    }
}

fn is_little_endian(system: &Pickle) -> bool {
    let Node::Dict(pairs) = &system.nodes[system.root] else { return false };
    pairs.iter().any(|(key, value)| {
        system.nodes[*key] == Node::Text("little_endian".into()) && system.nodes[*value] == Node::Bool(true)
    })
}
