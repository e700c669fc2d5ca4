//! The boxes of which MP4 and QuickTime files are made (ISO/IEC 14496-12), from bytes that are not trusted.

/// The box header: size and kind.
const HEADER: usize = 8;

/// What a box is called, and what is in it.
pub(super) type Part<'a> = ([u8; 4], &'a [u8]);

/// The size of a box with its header, and the size of that header, from its first bytes; `None` for a box that ends
/// with the file.
pub(super) fn size_of(header: &[u8]) -> Result<Option<(u64, u64)>, String> {
    match u64::from(number(header, 0, 4)?) {
        0 => Ok(None),
        1 => {
            let (high, low) = (u64::from(number(header, HEADER, 4)?), u64::from(number(header, HEADER + 4, 4)?));
            let size = high << 32 | low;
            if size < 16 { Err(damaged()) } else { Ok(Some((size, 16))) }
        }
        size if size < HEADER as u64 => Err(damaged()),
        size => Ok(Some((size, HEADER as u64))),
    }
}

/// The boxes within a box, in their order. Fewer bytes at the end than a header has are padding.
pub(super) fn parts(mut bytes: &[u8]) -> Result<Vec<Part<'_>>, String> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let (size, header) = size_of(bytes)?.unwrap_or((bytes.len() as u64, HEADER as u64));
        let size = usize::try_from(size).map_err(|_| damaged())?;
        let content = bytes.get(header as usize..size).ok_or_else(damaged)?;
        found.push((kind(bytes)?, content));
        bytes = &bytes[size..];
    }
    Ok(found)
}

/// The content of the first box of a kind.
pub(super) fn part<'a>(parts: &[Part<'a>], name: &[u8; 4]) -> Option<&'a [u8]> {
    parts.iter().find(|(kind, _)| kind == name).map(|(_, content)| *content)
}

/// As [`part`]; without one the file says too little.
pub(super) fn needed<'a>(parts: &[Part<'a>], name: &[u8; 4]) -> Result<&'a [u8], String> {
    part(parts, name).ok_or_else(|| format!("it has no `{}` box; is it cut short?", word(name)))
}

/// The kind of the box that begins here.
pub(super) fn kind(bytes: &[u8]) -> Result<[u8; 4], String> {
    bytes.get(4..HEADER).and_then(|name| name.try_into().ok()).ok_or_else(damaged)
}

/// A kind for messages; whatever is no letter or digit becomes a `?`.
pub(super) fn word(kind: &[u8; 4]) -> String {
    kind.iter().map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '?' }).collect()
}

/// A number of up to four bytes, the highest first.
pub(super) fn number(bytes: &[u8], at: usize, length: usize) -> Result<u32, String> {
    let digits = at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(damaged)?;
    Ok(digits.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// The rows of a table: its count of rows at `at`, then rows of `columns` numbers of four bytes.
pub(super) fn rows<const COLUMNS: usize>(table: &[u8], at: usize) -> Result<Vec<[u32; COLUMNS]>, String> {
    let (count, width) = (number(table, at, 4)? as usize, 4 * COLUMNS);
    let end = count.checked_mul(width).and_then(|bytes| bytes.checked_add(at + 4)).ok_or_else(damaged)?;
    let row = |row: &[u8]| {
        let mut numbers = [0; COLUMNS];
        for (number, digits) in numbers.iter_mut().zip(row.chunks_exact(4)) {
            *number = u32::from_be_bytes([digits[0], digits[1], digits[2], digits[3]]);
        }
        numbers
    };
    Ok(table.get(at + 4..end).ok_or_else(damaged)?.chunks_exact(width).map(row).collect())
}

pub(super) fn damaged() -> String {
    "its boxes are damaged or cut short".into()
}

#[cfg(test)]
mod tests {
    use super::{number, part, parts, rows};

    #[test]
    fn boxes_follow_each_other_and_never_reach_beyond_their_parent() {
        let bytes = b"\0\0\0\x0Aabcdxy\0\0\0\x01wide\0\0\0\0\0\0\0\x11z\0\0\0\0lastrest";
        let found = parts(bytes).expect("boxes");
        assert_eq!(found, [(*b"abcd", &b"xy"[..]), (*b"wide", b"z"), (*b"last", b"rest")]);
        assert_eq!(part(&found, b"wide"), Some(&b"z"[..]));
        assert!(parts(b"\0\0\0\x09ab").expect("padding").is_empty());
        for wrong in [&b"\0\0\0\x0Babcdxy"[..], b"\0\0\0\x07abcdxy", b"\0\0\0\x01wide\0\0\0\0\0\0\0\x0F"] {
            assert!(parts(wrong).is_err(), "{wrong:?}");
        }
        let huge = b"\0\0\0\x01wide\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
        assert!(parts(huge).is_err());
    }

    #[test]
    fn tables_hold_as_many_rows_as_they_say() {
        let table = b"\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\0\0\x03\xFF\0\0\0";
        assert_eq!(rows::<2>(table, 0), Ok(vec![[1, 2], [3, 0xFF00_0000]]));
        assert!(rows::<3>(table, 0).is_err());
        assert!(rows::<1>(b"\xFF\xFF\xFF\xFF\0\0\0\0", 0).is_err());
        assert_eq!(number(table, 4, 4), Ok(1));
        assert!(number(table, usize::MAX, 4).is_err());
    }
}
