//! Slices of a NIfTI volume (NIfTI-1 and NIfTI-2 in one file, `.nii` or `.nii.gz`) as grey levels or colours.
//!
//! Slices lie across the third axis, those of further axes behind one another. Columns run along the first axis as stored;
//! rows run against the second, so that the front of the body is at the top in the usual orientations. Only slices
//! that are asked for are held in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::iter;

use ::image::RgbImage;
use flate2::read::MultiGzDecoder;

use super::address::Frame;
use super::decode::{MAX_DECODE_BYTES, Request, pick};
use super::room::{Room, Share};
use super::window::{Curve, Window, greys};

/// Most bytes that are unpacked to come to a slice.
const MAX_UNPACKED_BYTES: u64 = 8 << 30;

/// Most bytes that are taken for a slice on the word of its header, before they are there.
const MAX_RESERVED_BYTES: u64 = 16 << 20;

/// Whether the bytes are those of a NIfTI file, or of a compressed one.
pub(super) fn is_nifti(bytes: &[u8]) -> bool {
    let mut head = [0; 348];
    let mut reader = unpacked(bytes);
    reader.read_exact(&mut head).is_ok() && (head[344..347] == *b"n+1" || head[4..7] == *b"n+2")
}

/// How many slices a file has.
pub(super) fn frames(bytes: &[u8]) -> Result<u32, String> {
    Ok(Header::read(&mut unpacked(bytes))?.slices)
}

/// Decodes a slice, in the window that is asked for, else in the file's own (`cal_min` to `cal_max`), else over its range.
pub(super) fn decode(bytes: &[u8], request: &Request) -> Result<RgbImage, String> {
    Slices::read(bytes, request, iter::empty(), &Room::of(0))?.picture(request)
}

/// Some slices of a volume as they are stored.
pub(super) struct Slices {
    header: Header,
    /// Voxels by the slice's number, counted from 0.
    stored: BTreeMap<u32, Vec<u8>>,
    /// What they have of the room, which is of so many slices.
    share: Share,
    fill: u64,
}

impl Slices {
    /// Reads slices in one pass through the file: the one of `first`, and of the `later` ones those that there is room for. With each
    /// of them goes how many slices, of whatever volume, will be wanted before it from `first` on: those behind as many as fill the
    /// room wait for another pass. What is wrong with a frame that the file does not have is said by [`picture`](Self::picture);
    /// what is wrong with the file is the same whatever is asked for.
    pub(super) fn read(
        bytes: &[u8],
        first: &Request,
        later: impl Iterator<Item = (u64, Frame)>,
        room: &Room,
    ) -> Result<Self, String> {
        let mut reader = unpacked(bytes);
        let header = Header::read(&mut reader)?;
        first.check_size(header.width, header.height)?;
        let size = header.slice_bytes();
        if size > MAX_DECODE_BYTES {
            return Err(format!("a slice of it has {size} bytes, at most {MAX_DECODE_BYTES} are read"));
        }
        let (mut share, fill) = (room.share(), room.slices(size));
        // By number, where each begins.
        let mut wanted = BTreeMap::new();
        if let Ok((number, begin)) = header.place(first.frame) {
            share.insist(size);
            wanted.insert(number, begin);
        }
        for (ahead, frame) in later {
            if ahead >= fill {
                break;
            }
            let Ok((number, begin)) = header.place(frame) else { continue };
            if !wanted.contains_key(&number) && !share.take(size) {
                break;
            }
            wanted.insert(number, begin);
        }
        let mut stored = BTreeMap::new();
        let mut at = 0;
        for (number, begin) in wanted {
            skip(&mut reader, begin - at)?;
            let mut data = Vec::with_capacity(size.min(MAX_RESERVED_BYTES) as usize);
            reader.by_ref().take(size).read_to_end(&mut data).map_err(cut)?;
            if (data.len() as u64) < size {
                return Err("it is cut short".into());
            }
            data.shrink_to_fit();
            stored.insert(number, data);
            at = begin + size;
        }
        // A file that ends early is one to look after, also where the slices themselves are whole; of a compressed one the
        // checksum is behind the last slice.
        let end = header.gap.saturating_add(u64::from(header.slices).saturating_mul(size));
        skip(&mut reader, end.min(MAX_UNPACKED_BYTES + size) - at)?;
        reader.read(&mut [0]).map_err(cut)?;
        Ok(Self { header, stored, share, fill })
    }

    /// Gives up the slices that are not among the `later` ones, those before as many as fill the room, counted as in
    /// [`read`](Self::read); whether any is left.
    pub(super) fn keep_only(&mut self, later: impl Iterator<Item = (u64, Frame)>) -> bool {
        let near = later.take_while(|(ahead, _)| *ahead < self.fill);
        let wanted: BTreeSet<u32> =
            near.filter_map(|(_, frame)| self.header.place(frame).ok()).map(|(number, _)| number).collect();
        self.stored.retain(|number, _| wanted.contains(number));
        self.share.shrink_to((self.stored.len() as u64).saturating_mul(self.header.slice_bytes()));
        !self.stored.is_empty()
    }

    /// Whether [`picture`](Self::picture) knows of a frame all that the file says.
    pub(super) fn answers(&self, frame: Frame) -> bool {
        match self.header.place(frame) {
            Ok((number, _)) => self.stored.contains_key(&number),
            Err(_) => true,
        }
    }

    /// A slice as [`decode`] shows it.
    pub(super) fn picture(&self, request: &Request) -> Result<RgbImage, String> {
        let (number, _) = self.header.place(request.frame)?;
        let data = self.stored.get(&number).ok_or_else(|| format!("its slice {} was not read", number + 1))?;
        let (width, height) = (self.header.width as usize, self.header.height as usize);
        let pixels = if let Kind::Colour(samples) = self.header.kind {
            data.chunks_exact(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        } else {
            self.header.levels(data, request.window).into_iter().map(|level| [level; 3]).collect::<Vec<_>>()
        };
        let samples = pixels.chunks_exact(width).rev().flatten().flatten().copied().collect();
        RgbImage::from_raw(width as u32, height as u32, samples).ok_or_else(|| "it holds too few values".into())
    }
}

/// Goes past so many bytes.
fn skip(reader: impl Read, bytes: u64) -> Result<(), String> {
    match io::copy(&mut reader.take(bytes), &mut io::sink()).map_err(cut)? {
        found if found < bytes => Err("it is cut short".into()),
        _ => Ok(()),
    }
}

fn cut(_: io::Error) -> String {
    "it is cut short or damaged".into()
}

/// The content, whether compressed or not.
fn unpacked(bytes: &[u8]) -> Box<dyn Read + '_> {
    if bytes.starts_with(&[0x1F, 0x8B]) { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) }
}

/// What a voxel is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    Colour(usize),
}

impl Kind {
    fn of(code: i64) -> Result<Self, String> {
        Ok(match code {
            2 => Self::Unsigned(1),
            4 => Self::Signed(2),
            8 => Self::Signed(4),
            16 => Self::Float(4),
            64 => Self::Float(8),
            128 => Self::Colour(3),
            256 => Self::Signed(1),
            512 => Self::Unsigned(2),
            768 => Self::Unsigned(4),
            1024 => Self::Signed(8),
            1280 => Self::Unsigned(8),
            2304 => Self::Colour(4),
            _ => return Err(format!("its NIfTI data type is {code}; expected whole numbers, f32, f64 or RGB")),
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::Unsigned(bytes) | Self::Signed(bytes) | Self::Float(bytes) | Self::Colour(bytes) => bytes,
        }
    }
}

struct Header {
    big_endian: bool,
    width: u64,
    height: u64,
    slices: u32,
    kind: Kind,
    /// Bytes between the header and the voxels.
    gap: u64,
    slope: f64,
    intercept: f64,
    /// The window of the file, `[low, high]`.
    shown: Option<[f64; 2]>,
}

impl Header {
    fn read(reader: &mut dyn Read) -> Result<Self, String> {
        let cut = |_| "its NIfTI header is cut short or damaged".to_string();
        let mut head = vec![0; 348];
        reader.read_exact(&mut head).map_err(cut)?;
        let second = match (&head[344..347], &head[4..7]) {
            (b"n+1", _) => false,
            (_, b"n+2") => true,
            (b"ni1", _) => return Err("its voxels are in another file; join the pair into one `.nii`".into()),
            _ => return Err("its first bytes are not those of a NIfTI header".into()),
        };
        if second {
            head.resize(540, 0);
            reader.read_exact(&mut head[348..]).map_err(cut)?;
        }
        let big_endian = i32::from_be_bytes([head[0], head[1], head[2], head[3]]) == head.len() as i32;
        let whole = |at: usize, bytes: usize| whole(&head[at..at + bytes], big_endian, true);
        let float = |at: usize, bytes: usize| float(&head[at..at + bytes], big_endian);
        let dims: Vec<i64> =
            (0..8).map(|axis| if second { whole(16 + 8 * axis, 8) } else { whole(40 + 2 * axis, 2) }).collect();
        let axes = usize::try_from(dims[0]).ok().filter(|axes| (2..=7).contains(axes));
        let axes = axes.ok_or_else(|| format!("it has {} axes; expected 2 to 7", dims[0]))?;
        if let Some(dim) = dims[1..=axes].iter().find(|dim| !(1..=i64::from(u32::MAX)).contains(*dim)) {
            return Err(format!("one of its axes is {dim} long"));
        }
        let slices = dims[3..=axes.max(2)].iter().try_fold(1u32, |all, dim| all.checked_mul(u32::try_from(*dim).ok()?));
        let [offset, slope, intercept, high, low] = match second {
            true => [whole(168, 8) as f64, float(176, 8), float(184, 8), float(192, 8), float(200, 8)],
            false => [float(108, 4), float(112, 4), float(116, 4), float(124, 4), float(128, 4)],
        };
        let gap = offset - head.len() as f64;
        if !(0.0..=MAX_UNPACKED_BYTES as f64).contains(&gap) {
            return Err(format!("its voxels begin at byte {offset}, within its header or beyond its end"));
        }
        // A slope of 0 means that there is none.
        let scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite();
        let (slope, intercept) = if scaled { (slope, intercept) } else { (1.0, 0.0) };
        Ok(Self {
            big_endian,
            width: dims[1] as u64,
            height: dims[2] as u64,
            slices: slices.ok_or("it claims more slices than can be counted")?,
            kind: Kind::of(if second { whole(12, 2) } else { whole(70, 2) })?,
            gap: gap as u64,
            slope,
            intercept,
            shown: (low.is_finite() && high.is_finite() && high > low).then_some([low, high]),
        })
    }

    /// Bytes of a slice; not to be asked for before [`Request::check_size`].
    fn slice_bytes(&self) -> u64 {
        self.width * self.height * self.kind.bytes() as u64
    }

    /// Which slice a frame is, counted from 0, and at which byte behind the header it begins.
    fn place(&self, frame: Frame) -> Result<(u32, u64), String> {
        let slice = pick(frame, self.slices)?;
        let begin = u64::from(slice).checked_mul(self.slice_bytes()).and_then(|bytes| bytes.checked_add(self.gap));
        let begin = begin.filter(|bytes| *bytes <= MAX_UNPACKED_BYTES);
        let begin = begin.ok_or_else(|| format!("the slice lies more than {MAX_UNPACKED_BYTES} bytes into it"))?;
        Ok((slice, begin))
    }

    /// The grey levels of a slice.
    fn levels(&self, data: &[u8], asked: Option<Window>) -> Vec<u8> {
        let value = |voxel: &[u8]| {
            let stored = match self.kind {
                Kind::Float(_) => float(voxel, self.big_endian),
                Kind::Signed(_) => whole(voxel, self.big_endian, true) as f64,
                _ => whole(voxel, self.big_endian, false) as u64 as f64,
            };
            (stored * self.slope + self.intercept) as f32
        };
        let values: Vec<f32> = data.chunks_exact(self.kind.bytes()).map(value).collect();
        match (asked, self.shown) {
            (None, Some([low, high])) => greys(&values, (low + high) / 2.0, high - low, Curve::LinearExact),
            (asked, _) => asked.unwrap_or(Window::Full).greys(&values, |_| false),
        }
    }
}

/// A whole number of 1 to 8 bytes.
fn whole(bytes: &[u8], big_endian: bool, signed: bool) -> i64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let value = if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) };
    let unused = 64 - 8 * bytes.len() as u32;
    if signed { (value << unused) as i64 >> unused } else { value as i64 }
}

/// A float of 4 or 8 bytes.
fn float(bytes: &[u8], big_endian: bool) -> f64 {
    let bits = whole(bytes, big_endian, false) as u64;
    if bytes.len() == 4 { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) }
}
