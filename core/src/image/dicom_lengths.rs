//! Whether the lengths that a DICOM file claims lie within it. The parser makes room for what an element claims before it
//! reads it, and a file of a hundred bytes can claim four gigabytes.

use dicom_core::dictionary::DataDictionary as _;
use dicom_core::{Tag, VR};
use dicom_object::StandardDataDictionary;

const UNDEFINED: u32 = u32::MAX;
const PIXELS: Tag = Tag(0x7FE0, 0x0010);
const IMPLICIT_LITTLE_ENDIAN: &[u8] = b"1.2.840.10008.1.2";
const EXPLICIT_BIG_ENDIAN: &[u8] = b"1.2.840.10008.1.2.2";
const DEFLATED: &[u8] = b"1.2.840.10008.1.2.1.99";
const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);

/// Most sequences within one another.
const MAX_DEPTH: usize = 64;

/// Steps through all elements.
pub(super) fn check_lengths(bytes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { bytes, at: 132, implicit: false, big_endian: false };
    let mut syntax = Vec::new();
    // The head is little endian with explicit types, whatever follows.
    while walk.tag_ahead().is_some_and(|tag| tag.0 == 0x0002) {
        let (tag, _, length) = walk.header()?;
        let value = walk.skip(length)?;
        if tag == TRANSFER_SYNTAX {
            syntax = value.iter().copied().filter(|byte| !matches!(byte, 0 | b' ')).collect();
        }
    }
    match &syntax[..] {
        DEFLATED => {
            return Err("its data set is deflated, which is not read; `dcmconv +te in.dcm out.dcm` inflates it".into());
        }
        IMPLICIT_LITTLE_ENDIAN => walk.implicit = true,
        EXPLICIT_BIG_ENDIAN => walk.big_endian = true,
        _ => {}
    }
    // What is written within each open sequence of undefined length: a private one is implicit within explicit.
    let mut open = Vec::new();
    while walk.at < bytes.len() {
        let (tag, vr, length) = walk.header()?;
        match tag {
            Tag(0xFFFE, 0xE0DD) => walk.implicit = open.pop().unwrap_or(walk.implicit),
            // Items are stepped into.
            Tag(0xFFFE, _) => {}
            PIXELS if length == UNDEFINED => walk.fragments()?,
            _ if length == UNDEFINED => {
                open.push(walk.implicit);
                walk.implicit |= vr == VR::UN;
                if open.len() > MAX_DEPTH {
                    return Err(format!("its DICOM sequences are more than {MAX_DEPTH} deep"));
                }
            }
            _ if vr == VR::SQ => walk.within(length)?,
            _ => drop(walk.skip(length)?),
        }
    }
    Ok(())
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    implicit: bool,
    big_endian: bool,
}

impl<'a> Walk<'a> {
    fn u16(&self, at: usize) -> Option<u16> {
        let pair = [*self.bytes.get(at)?, *self.bytes.get(at + 1)?];
        Some(if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let (first, second) = (u32::from(self.u16(at)?), u32::from(self.u16(at + 2)?));
        Some(if self.big_endian { first << 16 | second } else { second << 16 | first })
    }

    fn tag_ahead(&self) -> Option<Tag> {
        Some(Tag(self.u16(self.at)?, self.u16(self.at + 2)?))
    }

    /// The head of the next element, stepped over.
    fn header(&mut self) -> Result<(Tag, VR, u32), String> {
        let read = |walk: &Self| {
            let (tag, at) = (walk.tag_ahead()?, walk.at + 4);
            if tag.0 == 0xFFFE {
                return Some((tag, VR::UN, walk.u32(at)?, 8));
            }
            if walk.implicit {
                let vr = StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr.relaxed());
                return Some((tag, vr, walk.u32(at)?, 8));
            }
            let vr = VR::from_binary([*walk.bytes.get(at)?, *walk.bytes.get(at + 1)?]).unwrap_or(VR::UN);
            let long = matches!(
                vr,
                VR::OB
                    | VR::OD
                    | VR::OF
                    | VR::OL
                    | VR::OV
                    | VR::OW
                    | VR::SQ
                    | VR::SV
                    | VR::UC
                    | VR::UN
                    | VR::UR
                    | VR::UT
            ) || vr == VR::UV;
            match long {
                true => Some((tag, vr, walk.u32(at + 4)?, 12)),
                false => Some((tag, vr, u32::from(walk.u16(at + 2)?), 8)),
            }
        };
        let (tag, vr, length, size) = read(self).ok_or("it is cut short within a DICOM element")?;
        self.at += size;
        Ok((tag, vr, length))
    }

    fn within(&self, length: u32) -> Result<(), String> {
        let left = self.bytes.len() - self.at.min(self.bytes.len());
        if length as usize <= left {
            return Ok(());
        }
        Err(format!("it is cut short: a DICOM element claims {length} bytes where {left} are left"))
    }

    fn skip(&mut self, length: u32) -> Result<&'a [u8], String> {
        self.within(length)?;
        let value = &self.bytes[self.at..self.at + length as usize];
        self.at += length as usize;
        Ok(value)
    }

    /// The fragments of encapsulated pixels.
    fn fragments(&mut self) -> Result<(), String> {
        loop {
            let (tag, _, length) = self.header()?;
            match tag {
                Tag(0xFFFE, 0xE0DD) => return Ok(()),
                Tag(0xFFFE, 0xE000) => drop(self.skip(length)?),
                _ => return Err("its DICOM pixel fragments are damaged".into()),
            }
        }
    }
}

/// Checks that JPEG fragments hold images of the size that the file claims, which is the one that limits were checked for.
pub(super) fn check_jpeg_sizes<'a>(
    fragments: impl Iterator<Item = &'a [u8]>,
    rows: u32,
    columns: u32,
) -> Result<(), String> {
    for fragment in fragments.filter(|fragment| fragment.starts_with(&[0xFF, 0xD8])) {
        if jpeg_size(fragment) != Some((rows, columns)) {
            return Err(format!("it claims {columns}x{rows} pixels, and a JPEG within it does not have them"));
        }
    }
    Ok(())
}

/// Rows and columns of a JPEG stream.
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let &[0xFF, marker] = bytes.get(at..at + 2)? else { return None };
        let pair = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        match marker {
            0xFF => at += 1,
            0xC4 | 0xC8 | 0xCC => at += 2 + usize::from(pair(at + 2)?),
            0xC0..=0xCF => return Some((u32::from(pair(at + 5)?), u32::from(pair(at + 7)?))),
            _ => at += 2 + usize::from(pair(at + 2)?.max(2)),
        }
    }
}
