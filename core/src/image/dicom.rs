//! One frame of a DICOM file as grey levels or colours.
//!
//! Of all that such a file says, only the attributes of its pixels are looked at, and none of them enters an error: a value
//! of a damaged file may be anything, a patient's name too.

use std::io::Cursor;

use ::image::RgbImage;
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use dicom_pixeldata::{DecodedPixelData, PhotometricInterpretation, PixelDecoder as _, PlanarConfiguration};
use dicom_pixeldata::{PixelRepresentation, VoiLutFunction};

use super::decode::{MAX_DECODE_BYTES, Request, pick};
use super::dicom_lengths::{check_jpeg_sizes, check_lengths};
use super::dicom_tables::Table;
use super::jpeg2000::{self, Shape};
use super::window::{Curve, Window, greys};

const SAMPLES: Tag = Tag(0x0028, 0x0002);
const PHOTOMETRIC: Tag = Tag(0x0028, 0x0004);
const PLANAR: Tag = Tag(0x0028, 0x0006);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const BITS_ALLOCATED: Tag = Tag(0x0028, 0x0100);
const PADDING: Tag = Tag(0x0028, 0x0120);
const WINDOW_CENTRE: Tag = Tag(0x0028, 0x1050);
const WINDOW_WIDTH: Tag = Tag(0x0028, 0x1051);
const PIXELS: Tag = Tag(0x7FE0, 0x0010);

const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const JPEG_2000: [&str; 2] = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"];
/// JPEG-LS, which is told before sizes are looked for: its streams begin as those of JPEG do.
const JPEG_LS: [&str; 2] = ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];

const OTHER_COLOURS: &str =
    "its photometric interpretation is none of MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL";

/// Whether the bytes are those of a DICOM file.
pub(super) fn is_dicom(bytes: &[u8]) -> bool {
    bytes.get(128..132) == Some(b"DICM")
}

/// How many frames a file has.
pub(super) fn frames(bytes: &[u8]) -> Result<u32, String> {
    let object = open(bytes)?;
    Ok(number(&object, FRAMES).unwrap_or(1).max(1))
}

/// Decodes a frame. Grey values are rescaled (by the table of the modality, else slope and intercept) and shown in the window
/// that is asked for, else by the file's first VOI table or window, else over their whole range; of colours the eight
/// highest bits count.
pub(super) fn decode(bytes: &[u8], request: &Request) -> Result<RgbImage, String> {
    let mut object = open(bytes)?;
    let need = |tag, name: &str| number(&object, tag).ok_or_else(|| format!("the DICOM attribute {name} is missing"));
    let (rows, columns) = (need(ROWS, "Rows")?, need(COLUMNS, "Columns")?);
    let samples = number(&object, SAMPLES).unwrap_or(1);
    let bits = need(BITS_ALLOCATED, "Bits Allocated")?;
    request.check_size(u64::from(columns), u64::from(rows))?;
    if !matches!((samples, bits), (1 | 3, 8 | 16) | (1, 1 | 32)) {
        return Err(format!(
            "it has {samples} samples of {bits} bits a pixel; expected 1 or 3 samples of 8 or 16 bits"
        ));
    }
    let count = number(&object, FRAMES).unwrap_or(1).max(1);
    let frame = pick(request.frame, count)?;
    let syntax = object.meta().transfer_syntax.trim_end_matches(['\0', ' ']).to_owned();
    if JPEG_LS.contains(&syntax.as_str()) {
        return Err(unread(&syntax));
    }
    let fragments = object.get(PIXELS).and_then(|element| element.value().fragments());
    if let Some(fragments) = fragments {
        check_jpeg_sizes(fragments.iter().map(|fragment| &fragment[..]), rows, columns)?;
    } else if object.get(PIXELS).is_none() {
        return Err("it is a DICOM file without pixels".into());
    }
    if JPEG_2000.contains(&syntax.as_str()) {
        unpack_jpeg_2000(&mut object, [frame as usize, count as usize], Shape { rows, columns, samples, bits })?;
    }
    // The library's words may quote what the file holds.
    let decoded = object.decode_pixel_data_frame(frame).map_err(|_| unread(&syntax))?;
    let (width, height) = (columns, rows);
    let samples = match samples {
        1 if *decoded.photometric_interpretation() == PhotometricInterpretation::PaletteColor => {
            palette(&object, &decoded)?
        }
        1 => grey(&object, &decoded, request.window)?.iter().flat_map(|&level| [level; 3]).collect(),
        _ => colour(&decoded)?,
    };
    RgbImage::from_raw(width, height, samples).ok_or_else(|| "it holds fewer pixels than it says".into())
}

/// Puts the stored values of a frame in the place of its JPEG 2000 stream. The other frames become empty, and keep
/// their numbers, by which windows of single frames are found.
fn unpack_jpeg_2000(object: &mut DefaultDicomObject, [frame, count]: [usize; 2], shape: Shape) -> Result<(), String> {
    if !matches!(shape.bits, 8 | 16) {
        return Err(format!("its JPEG 2000 has {} bits a pixel; expected 8 or 16", shape.bits));
    }
    let fragments = object.get(PIXELS).and_then(|element| element.value().fragments()).unwrap_or_default();
    // A frame may lie in several fragments, of which the first begins as a stream does and no other can.
    let starts: Vec<usize> = (0..fragments.len()).filter(|&at| jpeg2000::begins(&fragments[at])).collect();
    if starts.len() != count {
        return Err(format!("it claims {count} frames and holds {} JPEG 2000 streams", starts.len()));
    }
    let end = starts.get(frame + 1).copied().unwrap_or(fragments.len());
    let mut values = vec![Vec::new(); count];
    values[frame] = jpeg2000::decode(&fragments[starts[frame]..end].concat(), shape)?;
    object.put(DataElement::new(PIXELS, VR::OW, PixelFragmentSequence::<Vec<u8>>::new_fragments(values)));
    object.put(DataElement::new(PLANAR, VR::US, PrimitiveValue::from(0u16)));
    // The decoder undoes the colour transforms of JPEG 2000.
    let photometric = object.get(PHOTOMETRIC).and_then(|element| element.to_str().ok());
    if photometric.is_some_and(|name| matches!(name.trim(), "YBR_RCT" | "YBR_ICT")) {
        object.put(DataElement::new(PHOTOMETRIC, VR::CS, PrimitiveValue::from("RGB")));
    }
    EXPLICIT_LITTLE_ENDIAN.clone_into(&mut object.meta_mut().transfer_syntax);
    Ok(())
}

/// Why pixels are not decoded, and what writes them uncompressed.
fn unread(syntax: &str) -> String {
    let (what, cure) = match syntax {
        _ if JPEG_LS.contains(&syntax) => ("JPEG-LS, which", "`dcmdjpls in.dcm out.dcm`"),
        "1.2.840.10008.1.2.4.201" | "1.2.840.10008.1.2.4.202" | "1.2.840.10008.1.2.4.203" => {
            ("high-throughput JPEG 2000, which", "`decompress` of pydicom with pylibjpeg-openjpeg")
        }
        _ => ("damaged or of a kind that", "`gdcmconv --raw in.dcm out.dcm`"),
    };
    format!("its pixels are {what} is not read (transfer syntax {}); {cure} writes them uncompressed", uid(syntax))
}

/// A transfer syntax as it may be printed: digits and dots only.
fn uid(text: &str) -> &str {
    let plain = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { text } else { "unreadable" }
}

fn open(bytes: &[u8]) -> Result<DefaultDicomObject, String> {
    if bytes.len() as u64 > MAX_DECODE_BYTES {
        return Err(format!("it has {} bytes, at most {MAX_DECODE_BYTES} are read", bytes.len()));
    }
    check_lengths(bytes)?;
    let object = OpenFileOptions::new().from_reader(Cursor::new(bytes));
    object.map_err(|_| "its DICOM structure is damaged or cut short".into())
}

fn number(object: &DefaultDicomObject, tag: Tag) -> Option<u32> {
    object.get(tag)?.to_int::<u32>().ok()
}

/// The first value of a decimal attribute.
fn decimal(object: &DefaultDicomObject, tag: Tag) -> Option<f64> {
    object.get(tag)?.to_multi_float64().ok()?.first().copied().filter(|value| value.is_finite())
}

/// Grey levels `[rows * columns]`.
fn grey(object: &DefaultDicomObject, decoded: &DecodedPixelData<'_>, asked: Option<Window>) -> Result<Vec<u8>, String> {
    let inverted = match decoded.photometric_interpretation() {
        PhotometricInterpretation::Monochrome1 => true,
        PhotometricInterpretation::Monochrome2 => false,
        _ => return Err(OTHER_COLOURS.into()),
    };
    let stored = stored_values(decoded)?;
    let rescale = decoded.rescale().ok().and_then(|all| all.first().copied());
    let (slope, intercept) = rescale.map_or((1.0, 0.0), |rescale| (rescale.slope, rescale.intercept));
    let [least, greatest] = range(decoded);
    let modality = Table::modality(object, greatest)?;
    let rescaled = |value: i64| match &modality {
        Some(table) => f64::from(table.entry(value)),
        None => value as f64 * slope + intercept,
    };
    let values: Vec<f32> = stored.iter().map(|value| rescaled(*value) as f32).collect();
    let padding = object.get(PADDING).and_then(|element| element.to_int::<i64>().ok());
    let padded = |at: usize| padding == Some(stored[at]);
    // The attribute of the whole file may list alternatives, of which the first is the default; those of single frames
    // are the library's.
    let own = decimal(object, WINDOW_CENTRE).zip(decimal(object, WINDOW_WIDTH)).or_else(|| {
        let window = decoded.window().ok()??.first()?;
        Some((window.center, window.width))
    });
    let curve = match decoded.voi_lut_function().ok().flatten().and_then(|all| all.first().copied()) {
        Some(VoiLutFunction::LinearExact) => Curve::LinearExact,
        Some(VoiLutFunction::Sigmoid) => Curve::Sigmoid,
        _ => Curve::Linear,
    };
    let greatest = match &modality {
        Some(_) => i64::from(u16::MAX),
        None => rescaled(least).max(rescaled(greatest)) as i64,
    };
    let table = if asked.is_none() { Table::values_of_interest(object, greatest)? } else { None };
    let mut levels = match (asked, table, own) {
        (None, Some(table), _) => values.iter().map(|value| table.level(value.round() as i64)).collect(),
        (None, None, Some((centre, width))) if width > 0.0 => greys(&values, centre, width, curve),
        (asked, ..) => asked.unwrap_or(Window::Full).greys(&values, padded),
    };
    if inverted {
        levels.iter_mut().for_each(|level| *level = 255 - *level);
    }
    Ok(levels)
}

/// The stored values, without the bits that are none of theirs.
fn stored_values(decoded: &DecodedPixelData<'_>) -> Result<Vec<i64>, String> {
    let count = decoded.rows() as usize * decoded.columns() as usize * usize::from(decoded.samples_per_pixel());
    let bytes = match decoded.bits_allocated() {
        16 => 2,
        32 => 4,
        _ => 1,
    };
    let data = decoded.data().get(..count * bytes).ok_or("it holds fewer pixels than it says")?;
    if decoded.bits_allocated() == 1 {
        return Ok(data.iter().map(|value| i64::from(*value > 0)).collect());
    }
    let (stored, high) = (u32::from(decoded.bits_stored()), u32::from(decoded.high_bit()));
    if stored == 0 || stored > 8 * bytes as u32 || high + 1 < stored || high >= 8 * bytes as u32 {
        return Err("its DICOM attributes Bits Stored and High Bit do not fit Bits Allocated".into());
    }
    let shift = high + 1 - stored;
    let signed = decoded.pixel_representation() == PixelRepresentation::Signed;
    let value = |sample: &[u8]| {
        let raw = sample.iter().rev().fold(0i64, |raw, byte| raw << 8 | i64::from(*byte));
        let value = raw >> shift & ((1 << stored) - 1);
        if signed && value >> (stored - 1) & 1 == 1 { value - (1 << stored) } else { value }
    };
    Ok(data.chunks_exact(bytes).map(value).collect())
}

/// The least and the greatest value that may be stored.
fn range(decoded: &DecodedPixelData<'_>) -> [i64; 2] {
    let bits = decoded.bits_stored().clamp(1, 32);
    match decoded.pixel_representation() {
        PixelRepresentation::Signed => [-(1 << (bits - 1)), (1 << (bits - 1)) - 1],
        PixelRepresentation::Unsigned => [0, (1 << bits) - 1],
    }
}

/// Colours `[rows * columns * 3]` that are stored as numbers of a palette.
fn palette(object: &DefaultDicomObject, decoded: &DecodedPixelData<'_>) -> Result<Vec<u8>, String> {
    let tables = Table::palette(object, range(decoded)[1])?;
    let stored = stored_values(decoded)?;
    Ok(stored.iter().flat_map(|value| tables.each_ref().map(|table| table.level(*value))).collect())
}

/// Colours `[rows * columns * 3]`.
fn colour(decoded: &DecodedPixelData<'_>) -> Result<Vec<u8>, String> {
    let stored = stored_values(decoded)?;
    let greatest = ((1u64 << decoded.bits_stored()) - 1) as f64;
    let level = |value: i64| (value as f64 / greatest * 255.0).round().clamp(0.0, 255.0) as u8;
    let pixels = stored.len() / 3;
    let at = |pixel: usize, sample: usize| match decoded.planar_configuration() {
        PlanarConfiguration::Standard => level(stored[3 * pixel + sample]),
        PlanarConfiguration::PixelFirst => level(stored[pixel + sample * pixels]),
    };
    let triples = (0..pixels).map(|pixel| [at(pixel, 0), at(pixel, 1), at(pixel, 2)]);
    match decoded.photometric_interpretation() {
        PhotometricInterpretation::Rgb => Ok(triples.flatten().collect()),
        PhotometricInterpretation::YbrFull => Ok(triples.flat_map(from_ybr).collect()),
        _ => Err(OTHER_COLOURS.into()),
    }
}

/// `YBR_FULL` of DICOM PS3.3 C.7.6.3.1.2 to RGB.
fn from_ybr([y, b, r]: [u8; 3]) -> [u8; 3] {
    let (y, b, r) = (f64::from(y), f64::from(b) - 128.0, f64::from(r) - 128.0);
    let colours = [y + 1.402 * r, y - 0.344_136 * b - 0.714_136 * r, y + 1.772 * b];
    colours.map(|level| level.round().clamp(0.0, 255.0) as u8)
}
