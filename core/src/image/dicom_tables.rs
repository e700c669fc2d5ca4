//! Lookup tables of a DICOM file: of the modality (PS3.3 C.11.1), of the values of interest (C.11.2) and palettes of colours
//! (C.7.6.3.1.5 and C.7.6.3.1.6), which may be written in segments (C.7.9.2).

use dicom_core::{PrimitiveValue, Tag};
use dicom_object::InMemDicomObject;

const MODALITY: Tag = Tag(0x0028, 0x3000);
const VALUES_OF_INTEREST: Tag = Tag(0x0028, 0x3010);
const DESCRIPTOR: Tag = Tag(0x0028, 0x3002);
const DATA: Tag = Tag(0x0028, 0x3006);

/// The name of a palette's table, and the elements of its descriptor, its entries and its segments.
const PALETTE: [(&str, Tag, Tag, Tag); 3] = [
    ("red palette", Tag(0x0028, 0x1101), Tag(0x0028, 0x1201), Tag(0x0028, 0x1221)),
    ("green palette", Tag(0x0028, 0x1102), Tag(0x0028, 0x1202), Tag(0x0028, 0x1222)),
    ("blue palette", Tag(0x0028, 0x1103), Tag(0x0028, 0x1203), Tag(0x0028, 0x1223)),
];

/// What a range of values becomes, at most 65,536 of them; values beyond it become what its ends become.
pub(super) struct Table {
    first: i64,
    bits: u32,
    entries: Vec<u16>,
}

impl Table {
    /// The table of the modality, in whose place there may be a slope and an intercept. No stored value is above
    /// `greatest`.
    pub(super) fn modality(object: &InMemDicomObject, greatest: i64) -> Result<Option<Self>, String> {
        Self::of_sequence(object, MODALITY, "modality lookup table", greatest)
    }

    /// The first table of the values of interest, in whose place there may be a window. No rescaled value is above
    /// `greatest`.
    pub(super) fn values_of_interest(object: &InMemDicomObject, greatest: i64) -> Result<Option<Self>, String> {
        Self::of_sequence(object, VALUES_OF_INTEREST, "VOI lookup table", greatest)
    }

    /// The tables of red, green and blue. No stored value is above `greatest`.
    pub(super) fn palette(object: &InMemDicomObject, greatest: i64) -> Result<[Self; 3], String> {
        let [red, green, blue] = PALETTE.map(|(name, descriptor, data, segments)| {
            let (count, first, bits) = description(object, descriptor, name, greatest)?;
            if let Some(words) = words(object, data) {
                return Self::plain(words, count, first, bits, name);
            }
            let words = words(object, segments).ok_or_else(|| format!("its {name} has no entries"))?;
            let cells = match bits {
                8 => bytes_of(&words),
                16 => words,
                _ => return Err(format!("its {name} has segments of {bits} bits; expected 8 or 16")),
            };
            let entries = expand(&cells, bits == 8, count)
                .ok_or_else(|| format!("the segments of its {name} are damaged or do not make {count} entries"))?;
            Ok(Self { first, bits, entries })
        });
        Ok([red?, green?, blue?])
    }

    fn of_sequence(object: &InMemDicomObject, tag: Tag, name: &str, greatest: i64) -> Result<Option<Self>, String> {
        let Some(element) = object.get(tag) else { return Ok(None) };
        let items = element.items().ok_or_else(|| format!("its {name} is not a sequence"))?;
        let Some(item) = items.first() else { return Ok(None) };
        let (count, first, bits) = description(item, DESCRIPTOR, name, greatest)?;
        let words = words(item, DATA).ok_or_else(|| format!("its {name} has no entries"))?;
        Self::plain(words, count, first, bits, name).map(Some)
    }

    /// One entry a word, or two of 8 bits.
    fn plain(mut words: Vec<u16>, count: usize, first: i64, bits: u32, name: &str) -> Result<Self, String> {
        let held = words.len();
        // Entries of 8 bits that are said to be longer are told by their number.
        let bits = if held < count { 8 } else { bits };
        if held < count {
            words = bytes_of(&words);
        }
        if words.len() < count {
            return Err(format!("its {name} has {held} words of 16 bits, too few for the {count} entries it claims"));
        }
        words.truncate(count);
        let mask = u16::MAX >> (16 - bits);
        words.iter_mut().for_each(|entry| *entry &= mask);
        Ok(Self { first, bits, entries: words })
    }

    /// What a value becomes, from 0 to `2^bits - 1`.
    pub(super) fn entry(&self, value: i64) -> u16 {
        let last = self.entries.len() as i64 - 1;
        self.entries[value.saturating_sub(self.first).clamp(0, last) as usize]
    }

    /// What a value becomes, as a level of 8 bits.
    pub(super) fn level(&self, value: i64) -> u8 {
        let greatest = f64::from(u16::MAX >> (16 - self.bits));
        (f64::from(self.entry(value)) / greatest * 255.0).round() as u8
    }
}

/// Number of entries, the first value that has one, and bits of an entry.
fn description(item: &InMemDicomObject, tag: Tag, name: &str, greatest: i64) -> Result<(usize, i64, u32), String> {
    let numbers = item.get(tag).and_then(|element| element.to_multi_int::<i64>().ok()).unwrap_or_default();
    let &[count, first, bits] = &numbers[..] else {
        return Err(format!("the descriptor of its {name} is missing or has not three numbers"));
    };
    if !(8..=16).contains(&bits) {
        return Err(format!("its {name} has entries of {bits} bits; expected 8 to 16"));
    }
    // 65,536 does not fit 16 bits, and is written as 0.
    let count = match (count & 0xFFFF) as usize {
        0 => 1 << 16,
        count => count,
    };
    // A file without types does not say whether the number has a sign: what no value reaches is meant to be below 0.
    let first = if (0x8000..=0xFFFF).contains(&first) && first > greatest { first - 0x1_0000 } else { first };
    Ok((count, first, bits as u32))
}

/// The words of an element, whatever its type.
fn words(item: &InMemDicomObject, tag: Tag) -> Option<Vec<u16>> {
    match item.get(tag)?.value().primitive()? {
        PrimitiveValue::U16(words) => Some(words.to_vec()),
        PrimitiveValue::I16(words) => Some(words.iter().map(|word| *word as u16).collect()),
        PrimitiveValue::U8(bytes) => {
            Some(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
        }
        _ => None,
    }
}

/// The two bytes of each word, the low one first.
fn bytes_of(words: &[u16]) -> Vec<u16> {
    words.iter().flat_map(|word| [word & 0xFF, word >> 8]).collect()
}

/// Entries that are written in segments, exactly `count`; cells are bytes or words.
fn expand(cells: &[u16], bytes: bool, count: usize) -> Option<Vec<u16>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while entries.len() < count {
        let (kind, length) = (*cells.get(at)?, *cells.get(at + 1)?);
        if kind != 2 {
            at = segment(cells, at, &mut entries)?;
            continue;
        }
        // Segments from an earlier place, so many as the length says. They cannot refer on.
        let number = |at: usize, bits: usize| Some(usize::from(*cells.get(at)?) << bits);
        let mut from = match bytes {
            true => (0..4).try_fold(0, |sum, byte| Some(sum | number(at + 2 + byte, 8 * byte)?))?,
            // An offset counts bytes.
            false => (number(at + 2, 0)? | number(at + 3, 16)?) / 2,
        };
        at += if bytes { 6 } else { 4 };
        for _ in 0..length {
            if entries.len() >= count {
                break;
            }
            from = segment(cells, from, &mut entries)?;
        }
    }
    (entries.len() == count).then_some(entries)
}

/// Adds the entries of a discrete or a linear segment, at least one; returns where the next one begins.
fn segment(cells: &[u16], at: usize, entries: &mut Vec<u16>) -> Option<usize> {
    let (kind, length) = (*cells.get(at)?, usize::from(*cells.get(at + 1)?));
    match kind {
        _ if length == 0 => None,
        0 => {
            entries.extend(cells.get(at + 2..at + 2 + length)?);
            Some(at + 2 + length)
        }
        // On a line from the last entry to the one that is given.
        1 => {
            let (from, to) = (f64::from(*entries.last()?), f64::from(*cells.get(at + 2)?));
            let rise = (to - from) / length as f64;
            entries.extend((1..=length).map(|step| (from + rise * step as f64).round_ties_even() as u16));
            Some(at + 3)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_object::InMemDicomObject;

    use super::{PALETTE, Table, expand};

    /// A palette of three equal tables.
    fn palette(descriptor: [u16; 3], data: &[u16]) -> InMemDicomObject {
        let mut object = InMemDicomObject::new_empty();
        for (_, descriptor_tag, data_tag, _) in PALETTE {
            let numbers = PrimitiveValue::U16(descriptor.to_vec().into());
            object.put(DataElement::new(descriptor_tag, VR::US, numbers));
            object.put(DataElement::new(data_tag, VR::OW, PrimitiveValue::U16(data.to_vec().into())));
        }
        object
    }

    fn levels(descriptor: [u16; 3], data: &[u16], greatest: i64, values: &[i64]) -> Vec<u8> {
        let [_, green, _] = Table::palette(&palette(descriptor, data), greatest).unwrap();
        values.iter().map(|value| green.level(*value)).collect()
    }

    #[test]
    fn values_beyond_the_table_become_its_ends() {
        assert_eq!(levels([3, 10, 8], &[7, 8, 9], 255, &[-5, 10, 11, 12, 200]), [7, 7, 8, 9, 9]);
        // Two entries a word, the low byte first; so too when 16 bits are said.
        for bits in [8, 16] {
            assert_eq!(levels([4, 0, bits], &[0x0201, 0x0403], 255, &[0, 1, 2, 3]), [1, 2, 3, 4]);
        }
        assert_eq!(levels([2, 0, 16], &[0x8080, 0xFFFF], 255, &[0, 1]), [128, 255]);
        // 65,530 is above what 15 bits hold, so that -6 is meant; 16 bits without sign hold it.
        assert_eq!(levels([2, 65_530, 8], &[5, 6], 32_767, &[-6, -5]), [5, 6]);
        assert_eq!(levels([2, 65_530, 8], &[5, 6], 65_535, &[65_530, 65_531, -5]), [5, 6, 5]);
    }

    #[test]
    fn tables_that_claim_more_than_they_hold_are_errors() {
        let reason = |descriptor, data: &[u16]| match Table::palette(&palette(descriptor, data), 255) {
            Err(reason) => reason,
            Ok(_) => panic!("expected a reason"),
        };
        // None stands for 65,536.
        assert!(reason([0, 0, 16], &[1, 2, 3]).contains("3 words of 16 bits, too few for the 65536"));
        assert!(reason([7, 0, 8], &[1, 2, 3]).contains("red palette"));
        assert!(reason([2, 0, 7], &[1, 2]).contains("7 bits; expected 8 to 16"));
        assert!(reason([2, 0, 0], &[1, 2]).contains("0 bits"));
        let mut object = palette([2, 0, 8], &[1, 2]);
        object.remove_element(PALETTE[2].2);
        assert!(Table::palette(&object, 255).is_err_and(|reason| reason == "its blue palette has no entries"));
        object.remove_element(PALETTE[1].1);
        assert!(Table::palette(&object, 255).is_err_and(|reason| reason.contains("descriptor of its green palette")));
    }

    #[test]
    fn segments_by_hand() {
        // Two values as they are, four on a line, and the first segment once more: it lies at byte 0.
        let cells = [0, 2, 10, 20, 1, 4, 40, 2, 1, 0, 0];
        assert_eq!(expand(&cells, false, 8).unwrap(), [10, 20, 25, 30, 35, 40, 10, 20]);
        // Byte 8 of words is the line, which starts at what is last.
        let cells = [0, 2, 10, 20, 1, 4, 40, 2, 1, 8, 0];
        assert_eq!(expand(&cells, false, 10).unwrap()[6..], [40; 4]);
        // In bytes an offset has four cells.
        let cells = [0, 2, 10, 20, 1, 4, 40, 2, 1, 0, 0, 0, 0];
        assert_eq!(expand(&cells, true, 8).unwrap(), [10, 20, 25, 30, 35, 40, 10, 20]);
        for damaged in [
            // More than are claimed, fewer, no length, a line from nowhere, an unknown kind, a reference to itself.
            &[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9][..],
            &[0, 2, 1, 2],
            &[0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
            &[1, 8, 4],
            &[3, 8, 4],
            &[2, 8, 0, 0],
        ] {
            assert_eq!(expand(damaged, false, 8), None, "{damaged:?}");
        }
    }
}
