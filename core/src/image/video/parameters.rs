//! What a sequence parameter set of H.264 says of a video's pixels (ITU-T H.264, 7.3.2.1 and annex E).

/// Profiles whose sets say how colours are sampled; in others it is 4:2:0 of 8 bits.
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// The pixels of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// How colours are sampled: 0 for grey, 1 for 4:2:0, 2 for 4:2:2, 3 for 4:4:4.
    pub(super) sampling: u32,
    /// Bits of a sample.
    pub(super) bits: u32,
    /// Whether frames are whole rather than of two fields.
    pub(super) progressive: bool,
    /// Width and height in blocks of 16 pixels, before any is cut off.
    pub(super) blocks: (u32, u32),
    /// The matrix between RGB and what is stored, by its code (table E-5); 2 when nothing is said.
    pub(super) matrix: u32,
    /// Whether levels go from 0 to 255 rather than from 16 to 235.
    pub(super) full_range: bool,
}

impl Parameters {
    /// Reads a set, from its unit with the first byte, which tells its kind; `None` for one that is cut short or
    /// damaged.
    pub(super) fn read(unit: &[u8]) -> Option<Self> {
        let plain = without_escapes(unit.get(1..)?);
        let mut bits = Bits { bytes: &plain, at: 0 };
        let profile = bits.take(8)?;
        bits.take(16)?;
        bits.code()?;
        let (mut sampling, mut depth) = (1, 8);
        if HIGH_PROFILES.contains(&profile) {
            sampling = bits.code()?;
            if sampling == 3 {
                bits.take(1)?;
            }
            depth = bits.code()?.checked_add(8)?.max(bits.code()?.checked_add(8)?);
            bits.take(1)?;
            if bits.flag()? {
                let lists = if sampling == 3 { 12 } else { 8 };
                for list in 0..lists {
                    if bits.flag()? {
                        bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.code()?;
        match bits.code()? {
            0 => {
                bits.code()?;
            }
            1 => {
                bits.take(1)?;
                bits.code()?;
                bits.code()?;
                // As many offsets as are allowed.
                for _ in 0..bits.code().filter(|count| *count < 256)? {
                    bits.code()?;
                }
            }
            _ => {}
        }
        bits.code()?;
        bits.take(1)?;
        let (width, height) = (bits.code()?.checked_add(1)?, bits.code()?.checked_add(1)?);
        let progressive = bits.flag()?;
        if !progressive {
            bits.take(1)?;
        }
        bits.take(1)?;
        if bits.flag()? {
            for _ in 0..4 {
                bits.code()?;
            }
        }
        let (matrix, full_range) = if bits.flag()? { bits.colours()? } else { (2, false) };
        Some(Self { sampling, bits: depth, progressive, blocks: (width, height), matrix, full_range })
    }
}

/// The bytes of a unit; a 3 behind two zeros is there to keep start codes out.
fn without_escapes(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut plain = Vec::with_capacity(unit.len());
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    plain
}

/// Bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// A number of up to 32 bits.
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            number = number << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(number)
    }

    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// An Exp-Golomb code.
    fn code(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros > 31 {
            return None;
        }
        let rest = self.take(zeros)?;
        Some(((1u32 << zeros) - 1).wrapping_add(rest))
    }

    /// Steps over a list of scaling factors.
    fn scaling_list(&mut self, length: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..length {
            if next != 0 {
                let code = i64::from(self.code()?);
                let change = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
                next = (last + change).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }

    /// Matrix and range of the usability information.
    fn colours(&mut self) -> Option<(u32, bool)> {
        if self.flag()? && self.take(8)? == 255 {
            self.take(32)?;
        }
        if self.flag()? {
            self.take(1)?;
        }
        if !self.flag()? {
            return Some((2, false));
        }
        self.take(3)?;
        let full_range = self.flag()?;
        let matrix = if self.flag()? { self.take(24)? & 0xFF } else { 2 };
        Some((matrix, full_range))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bits, Parameters, without_escapes};

    #[test]
    fn codes_are_read_bit_by_bit() {
        // 1, 010, 011, 00100, 00111, then nothing.
        let mut bits = Bits { bytes: &[0b1010_0110, 0b0100_0011, 0b1000_0000], at: 0 };
        let found: Vec<Option<u32>> = (0..5).map(|_| bits.code()).collect();
        assert_eq!(found, [0, 1, 2, 3, 6].map(Some));
        assert_eq!(bits.code(), None);
        assert_eq!(without_escapes(&[0, 0, 3, 1, 0, 0, 0, 3, 3]), [0, 0, 1, 0, 0, 0, 3]);
    }

    #[test]
    fn a_set_that_is_cut_short_says_nothing() {
        // Baseline, level 1, 3 x 2 blocks, no cropping and nothing said of colours.
        // ue(0) | ue(0) ue(2) | ue(1) 0 | ue(2) ue(1) | 1 0 0 0, then the stop bit.
        let whole = [0x67, 66, 0xC0, 10, 0b1101_1010, 0b0011_0101, 0b0001_0000];
        let found = Parameters::read(&whole).expect("a set");
        let expected =
            Parameters { sampling: 1, bits: 8, progressive: true, blocks: (3, 2), matrix: 2, full_range: false };
        assert_eq!(found, expected);
        for length in 0..whole.len() - 1 {
            assert_eq!(Parameters::read(&whole[..length]), None, "{length} bytes");
        }
    }
}
