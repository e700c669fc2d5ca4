//! A JPEG 2000 codestream of a DICOM file (ISO/IEC 15444-1) as stored values.
//!
//! The decoder has no unsafe code, and its panics are caught as all decoders' are. But it makes room for every tile,
//! precinct, code block and layer that a stream announces before it reads them, and a hundred bytes can announce
//! billions. So what a stream announces is added up first.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::decode::MAX_DECODE_BYTES;

const START: &[u8] = b"\xFF\x4F\xFF\x51";
const BOXES: &[u8] = b"\0\0\0\x0CjP  ";

/// Most tiles; their numbers have 16 bits.
const MAX_TILES: u64 = 65_535;

/// Bytes of a sample while it is decoded: as coefficient, within the inverse transform, and as value.
const SAMPLE_BYTES: u64 = 12;

/// Bytes of a code block, its precinct and its tag trees at most; those of one of its layers.
const BLOCK_BYTES: u64 = 384;
const LAYER_BYTES: u64 = 32;

/// What the DICOM file says of a frame.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) samples: u32,
    /// Bits allocated to a sample: 8 or 16.
    pub(super) bits: u32,
}

/// Whether a fragment begins a codestream, or a JP2 file, which some writers put there.
pub(super) fn begins(fragment: &[u8]) -> bool {
    fragment.starts_with(START) || fragment.starts_with(BOXES)
}

/// Decodes a codestream to its samples `[rows * columns * samples]`, little endian, in the bits that are allocated.
pub(super) fn decode(stream: &[u8], shape: Shape) -> Result<Vec<u8>, String> {
    let damaged = || "its JPEG 2000 stream is damaged or cut short".to_owned();
    let start = stream.windows(START.len()).position(|bytes| bytes == START).ok_or_else(damaged)?;
    let stream = &stream[start..];
    let head = Head::of(stream).ok_or_else(damaged)?;
    head.check(shape)?;
    head.check_blocks(stream)?;
    // Otherwise what is missing would be shown as grey.
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(stream, &settings).map_err(|_| damaged())?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|_| damaged())?;
    let pixels = shape.rows as usize * shape.columns as usize;
    let planes: Vec<&[f32]> = decoded.components().iter().map(|component| component.samples()).collect();
    if planes.len() != head.components.len() || planes.iter().any(|plane| plane.len() != pixels) {
        return Err(damaged());
    }
    let bytes = shape.bits as usize / 8;
    let mut values = Vec::with_capacity(pixels * planes.len() * bytes);
    for pixel in 0..pixels {
        for (plane, component) in planes.iter().zip(&head.components) {
            // The decoder moves signed samples up by half their range, as unsigned ones.
            let greatest = ((1u32 << component.precision) - 1) as f32;
            let moved = if component.signed { 1i32 << (component.precision - 1) } else { 0 };
            let value = plane[pixel].round().clamp(0.0, greatest) as i32 - moved;
            values.extend_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }
    Ok(values)
}

struct Component {
    precision: u8,
    signed: bool,
    step: [u8; 2],
}

/// What the marker segment SIZ says (A.5.1).
struct Head {
    width: u32,
    height: u32,
    /// Of the whole grid, and where the first tile begins.
    grid: [u32; 2],
    tile: [u32; 2],
    tile_offset: [u32; 2],
    components: Vec<Component>,
}

impl Head {
    fn of(stream: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u32::from_be_bytes(stream.get(at..at + 4)?.try_into().ok()?));
        let pair = |at: usize| Some([long(at)?, long(at + 4)?]);
        let (grid, offset) = (pair(8)?, pair(16)?);
        let count = usize::from(u16::from_be_bytes([*stream.get(40)?, *stream.get(41)?]));
        let components = stream.get(42..42 + 3 * count)?.chunks_exact(3).map(|component| Component {
            precision: (component[0] & 0x7F) + 1,
            signed: component[0] & 0x80 != 0,
            step: [component[1], component[2]],
        });
        Some(Self {
            width: grid[0].checked_sub(offset[0])?,
            height: grid[1].checked_sub(offset[1])?,
            grid,
            tile: pair(24)?,
            tile_offset: pair(32)?,
            components: components.collect(),
        })
    }

    /// Checks the stream against the file, whose size was checked, and what its samples and tiles take.
    fn check(&self, shape: Shape) -> Result<(), String> {
        let Shape { rows, columns, samples, bits } = shape;
        if (self.width, self.height) != (columns, rows) || self.components.len() != samples as usize {
            return Err(format!(
                "it claims {columns}x{rows} pixels of {samples} samples, and a JPEG 2000 within it does not have them"
            ));
        }
        if self.components.iter().any(|component| u32::from(component.precision) > bits) {
            return Err(format!("it claims {bits} bits a sample, and the JPEG 2000 within it has more"));
        }
        if self.components.iter().any(|component| component.step != [1, 1]) {
            return Err("the colours of its JPEG 2000 are at a lower resolution, which is not read".into());
        }
        if u64::from(columns) * u64::from(rows) * u64::from(samples) > MAX_DECODE_BYTES / SAMPLE_BYTES {
            return Err(format!("it claims {columns}x{rows} pixels in JPEG 2000, too many bytes"));
        }
        let tiles = |axis: usize| {
            let span = u64::from(self.grid[axis].saturating_sub(self.tile_offset[axis]));
            span.div_ceil(u64::from(self.tile[axis].max(1)))
        };
        if tiles(0).saturating_mul(tiles(1)) > MAX_TILES {
            return Err(format!("its JPEG 2000 claims more than {MAX_TILES} tiles"));
        }
        Ok(())
    }

    /// Checks what the code blocks of one tile take. The markers that say how it is parted (COD, COC) are looked for
    /// among all bytes, so that none is missed; compressed bytes that look like one matter only if they ask for much.
    fn check_blocks(&self, stream: &[u8]) -> Result<(), String> {
        let tile = [0, 1].map(|axis| u64::from([self.width, self.height][axis].min(self.tile[axis])));
        let (mut most_layers, mut most_blocks) = (1, 0);
        for at in stream.windows(2).enumerate().filter(|(_, bytes)| bytes[0] == 0xFF).map(|(at, _)| at) {
            let (style, parameters) = match stream[at + 1] {
                0x52 => (at + 4, at + 9),
                // The index of a component has one byte: there are at most three.
                0x53 => (at + 5, at + 6),
                _ => continue,
            };
            let Some(parameters) = stream.get(parameters..) else { continue };
            let Some(blocks) = blocks(parameters, stream[style] & 1 == 1, tile) else { continue };
            most_blocks = blocks.max(most_blocks);
            if stream[at + 1] == 0x52 {
                most_layers = u64::from(u16::from_be_bytes([stream[at + 6], stream[at + 7]])).max(most_layers);
            }
        }
        // The decoder refuses more than 32 layers.
        let bytes = BLOCK_BYTES + LAYER_BYTES * most_layers.min(32);
        if most_blocks.saturating_mul(bytes).saturating_mul(self.components.len() as u64) > MAX_DECODE_BYTES {
            return Err(format!("its JPEG 2000 claims {most_blocks} code blocks in a tile, too many"));
        }
        Ok(())
    }
}

/// How many code blocks and precincts a component of a tile has at most, by the parameters of a coding style (A.6.1,
/// tables A.15 and A.18 to A.21); nothing for parameters that the decoder refuses.
fn blocks(parameters: &[u8], has_precincts: bool, tile: [u64; 2]) -> Option<u64> {
    let &[levels, width, height, ..] = parameters else { return None };
    if levels > 32 || width > 8 || height > 8 || width + height > 8 {
        return None;
    }
    let block = [width + 2, height + 2];
    let mut all = 0u64;
    for resolution in 0..=levels {
        let precinct = match has_precincts {
            true => *parameters.get(5 + usize::from(resolution))?,
            false => 0xFF,
        };
        // Above the lowest resolution there are three bands of half its width and height.
        let half = u8::from(resolution > 0);
        let along = |axis: usize| {
            let size = tile[axis].div_ceil(1u64 << (levels - resolution + half)).max(1);
            let exponent = (precinct >> (4 * axis) & 0xF).saturating_sub(half);
            (size >> block[axis].min(exponent)) + 2
        };
        let bands = if resolution == 0 { 1 } else { 3 };
        all = all.saturating_add(along(0).saturating_mul(along(1)).saturating_mul(bands));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::{Shape, blocks, decode};

    const SHAPE: Shape = Shape { rows: 4000, columns: 5000, samples: 1, bits: 16 };

    /// The head of a stream of a grid without content, with the tiles and the coding style that are given.
    fn head(tile: [u32; 2], style: &[u8]) -> Vec<u8> {
        let mut stream = b"\xFF\x4F\xFF\x51\x00\x29\x00\x00".to_vec();
        for number in [5000, 4000, 0, 0, tile[0], tile[1], 0, 0] {
            stream.extend(u32::to_be_bytes(number));
        }
        stream.extend([0, 1, 15, 1, 1, 0xFF, 0x52, 0, 12]);
        stream.extend(style);
        stream
    }

    #[test]
    fn blocks_are_counted_by_resolution() {
        // One level, blocks of 64 x 64, precincts without limit: (2 + 2) * (1 + 2) below, three times that above.
        assert_eq!(blocks(&[1, 4, 4, 0, 1], false, [256, 128]), Some(4 * 3 * 4));
        // No level, precincts of 2 x 4 pixels.
        assert_eq!(blocks(&[0, 4, 4, 0, 1, 0x21], true, [8, 8]), Some((4 + 2) * (2 + 2)));
        // Blocks of 2048 samples, and precincts that are cut off.
        assert_eq!(blocks(&[0, 9, 0, 0, 1], false, [8, 8]), None);
        assert_eq!(blocks(&[1, 4, 4, 0, 1, 0x21], true, [8, 8]), None);
    }

    #[test]
    fn what_a_stream_announces_is_refused_before_room_is_made() {
        let reason = |stream: &[u8], shape| decode(stream, shape).unwrap_err();
        let usual = [0, 0, 0, 1, 0, 5, 4, 4, 0, 1];
        assert!(reason(&head([5000, 4000], &usual), SHAPE).contains("damaged or cut short"));
        assert!(reason(&head([5, 4], &usual), SHAPE).contains("65535 tiles"));
        let small_precincts = [1, 0, 0, 1, 0, 0, 4, 4, 0, 1, 0x00];
        assert!(reason(&head([5000, 4000], &small_precincts), SHAPE).contains("20018004 code blocks"));
        let many_layers = [0, 0, 0, 32, 0, 5, 0, 0, 0, 1];
        assert!(reason(&head([5000, 4000], &many_layers), SHAPE).contains("code blocks in a tile"));
        assert!(reason(&head([5000, 4000], &usual), Shape { rows: 3999, ..SHAPE }).contains("does not have them"));
        assert!(reason(&head([5000, 4000], &usual), Shape { samples: 3, ..SHAPE }).contains("does not have them"));
        assert!(reason(&head([5000, 4000], &usual), Shape { bits: 8, ..SHAPE }).contains("8 bits a sample"));
        assert!(reason(b"nothing of the kind", SHAPE).contains("damaged"));
    }
}
