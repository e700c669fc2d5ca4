//! Frames of an H.264 track, decoded by OpenH264.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use ::image::RgbImage;
use ::image::imageops::{rotate90, rotate180, rotate270};
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource as _;

use super::boxes::number;
use super::parameters::Parameters;
use super::picture::{Colours, Planes};
use super::track::{CURE, Sample, Track};
use crate::image::decode::{MAX_DECODE_BYTES, MAX_PIXELS};

/// Most pixels that are decoded on the way to the frames that are wanted.
const MAX_DECODED: u64 = 20_000_000_000;

/// Most bytes that are read on that way. Frames may claim to lie in the same bytes.
const MAX_CODED_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// Most bytes of a coded frame: what OpenH264 takes at once, with room for parameter sets.
const MAX_SAMPLE_BYTES: u32 = 7_000_000;

/// What begins a unit where it has no length.
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The frames `wanted` of a video, in that order, as a player shows them.
pub(super) fn decode(mut file: File, wanted: &[usize]) -> Result<Vec<RgbImage>, String> {
    let track = Track::read(&mut file)?;
    if let Some(frame) = wanted.iter().find(|frame| **frame >= track.shown.len()) {
        return Err(format!("it ends before frame {frame}"));
    }
    let places: BTreeSet<usize> = wanted.iter().map(|frame| track.shown.start + frame).collect();
    let mut film = Film {
        file,
        track: &track,
        places: &places,
        found: BTreeMap::new(),
        colours: Colours::new(2, false),
        coded: 0,
        decoded: 0,
        held: 0,
    };
    track.parameter_sets.iter().try_for_each(|set| film.notice(set))?;
    runs(&track, &places).into_iter().try_for_each(|(start, last)| film.run(start, last))?;
    let image = |frame: &usize| film.found.get(&(track.shown.start + frame)).cloned();
    wanted.iter().map(|frame| image(frame).ok_or_else(|| format!("it ends before frame {frame}"))).collect()
}

/// Which stretches are decoded for some places in the order of time: the sample to begin at, and the last place. Where
/// a sample to begin at lies between two places, what is before it is not decoded.
fn runs(track: &Track, places: &BTreeSet<usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in places {
        let start = track.start_of(*place);
        match runs.last_mut() {
            Some((_, last)) if start <= *last => *last = *place,
            _ => runs.push((start, *place)),
        }
    }
    runs
}

struct Film<'a> {
    file: File,
    track: &'a Track,
    /// What is wanted, by its place in the order of time.
    places: &'a BTreeSet<usize>,
    found: BTreeMap<usize, RgbImage>,
    colours: Colours,
    /// Bytes read, pixels decoded, and bytes of those that are kept.
    coded: u64,
    decoded: u64,
    held: u64,
}

/// What one frame is coded in.
struct AccessUnit {
    /// Its units, each behind a start code.
    bytes: Vec<u8>,
    /// Whether nothing before it is needed.
    refreshes: bool,
}

impl Film<'_> {
    /// Decodes from a sample on until a place in the order of time has been seen.
    fn run(&mut self, mut start: usize, last: usize) -> Result<(), String> {
        let track = self.track;
        // Not every sample that is listed as a beginning is one to the decoder.
        while start > 0 && !self.access_unit(start)?.refreshes {
            start = track.start_of(start - 1);
        }
        // One decoder for each run: what is left in it of another would come out between the frames of this one. It
        // puts frames in the order of time by itself, as long as it is not made to give each at once.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let mut decoder = Decoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|error| format!("the decoder does not start: {error}"))?;
        let mut place = start;
        for at in start..track.samples.len() {
            let mut coded = Vec::new();
            if at == start {
                track.parameter_sets.iter().for_each(|set| put(&mut coded, set));
            }
            coded.extend(self.access_unit(at)?.bytes);
            let failed = |error: openh264::Error| {
                let code = error.native_code();
                format!("frame {at} cannot be decoded (OpenH264 says {code:#x}); is it damaged? If it plays, {CURE}")
            };
            if let Some(picture) = decoder.decode(&coded).map_err(failed)? {
                self.take(place, &picture)?;
                place += 1;
            }
            if place > last {
                return Ok(());
            }
        }
        let rest = decoder.flush_remaining().map_err(|error| format!("its last frames cannot be decoded: {error}"))?;
        for picture in rest {
            self.take(place, &picture)?;
            place += 1;
        }
        if place > last { Ok(()) } else { Err(format!("only {place} of its frames can be decoded")) }
    }

    /// Reads a sample.
    fn access_unit(&mut self, at: usize) -> Result<AccessUnit, String> {
        let (Sample { offset, bytes }, length_bytes) = (self.track.samples[at], self.track.length_bytes);
        if bytes > MAX_SAMPLE_BYTES {
            return Err(format!("frame {at} has {bytes} bytes, at most {MAX_SAMPLE_BYTES} are decoded; {CURE}"));
        }
        self.coded += u64::from(bytes);
        if self.coded > MAX_CODED_BYTES {
            return Err(format!("more than {MAX_CODED_BYTES} bytes lie before frame {at}; cut the video into parts"));
        }
        let failed = |error: std::io::Error| error.to_string();
        self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut sample = vec![0; bytes as usize];
        self.file.read_exact(&mut sample).map_err(failed)?;
        let (mut rest, mut coded, mut has_picture, mut refreshes) = (&sample[..], Vec::new(), false, false);
        while !rest.is_empty() {
            let unit = number(rest, 0, length_bytes).ok().and_then(|length| {
                let end = length_bytes.checked_add(length as usize)?;
                Some((rest.get(length_bytes..end)?, &rest[end..]))
            });
            let (unit, after) = unit.ok_or_else(|| format!("frame {at} is damaged"))?;
            rest = after;
            let kind = unit.first().map(|first| first & 0x1F);
            has_picture |= matches!(kind, Some(1 | 5));
            refreshes |= kind == Some(5);
            self.notice(unit)?;
            put(&mut coded, unit);
        }
        if !has_picture {
            return Err(format!("frame {at} holds no picture"));
        }
        Ok(AccessUnit { bytes: coded, refreshes })
    }

    /// Takes colours from a unit, if it is a sequence parameter set, and refuses what is not decoded.
    fn notice(&mut self, unit: &[u8]) -> Result<(), String> {
        if unit.first().is_none_or(|first| first & 0x1F != 7) {
            return Ok(());
        }
        let found = Parameters::read(unit).ok_or("its parameter set is damaged")?;
        let sampling = ["grey", "4:2:0", "4:2:2", "4:4:4"].get(found.sampling as usize).unwrap_or(&"unknown");
        if (found.sampling, found.bits) != (1, 8) {
            let bits = found.bits;
            return Err(format!("its pixels are {sampling} of {bits} bits, and 4:2:0 of 8 bits is decoded; {CURE}"));
        }
        if !found.progressive {
            return Err(format!("its frames are interlaced, and whole ones are decoded; {CURE} with `-vf yadif`"));
        }
        let (width, height) = found.blocks;
        if 256 * u64::from(width).saturating_mul(u64::from(height)) > MAX_PIXELS {
            return Err(format!("it claims {width}x{height} blocks of 16x16 pixels, more than {MAX_PIXELS} pixels"));
        }
        self.colours = Colours::new(found.matrix, found.full_range);
        Ok(())
    }

    /// Keeps a frame if it is wanted.
    fn take(&mut self, place: usize, picture: &DecodedYUV<'_>) -> Result<(), String> {
        let (width, height) = picture.dimensions();
        let pixels = (width as u64).saturating_mul(height as u64);
        self.decoded = self.decoded.saturating_add(pixels);
        if self.decoded > MAX_DECODED {
            let reason = "is too far from where decoding can begin; cut the video into parts";
            return Err(format!("frame {place} of {width}x{height} pixels {reason}"));
        }
        if !self.places.contains(&place) {
            return Ok(());
        }
        self.held = self.held.saturating_add(pixels.saturating_mul(3));
        if pixels == 0 || pixels > MAX_PIXELS || self.held > MAX_DECODE_BYTES {
            let count = self.places.len();
            return Err(format!("its frames have {width}x{height} pixels, too many for {count} of them"));
        }
        let strides = picture.strides();
        let planes = [(picture.y(), strides.0), (picture.u(), strides.1), (picture.v(), strides.2)];
        let levels = Planes { size: (width, height), planes }.rgb(self.colours);
        let image = levels.and_then(|levels| RgbImage::from_raw(width as u32, height as u32, levels));
        let image = image.ok_or("its decoder gave too few pixels")?;
        let image = match self.track.quarter_turns {
            1 => rotate90(&image),
            2 => rotate180(&image),
            3 => rotate270(&image),
            _ => image,
        };
        self.found.insert(place, image);
        Ok(())
    }
}

/// Appends a unit behind a start code.
fn put(coded: &mut Vec<u8>, unit: &[u8]) {
    coded.extend(START_CODE);
    coded.extend(unit);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::runs;
    use crate::image::video::track::Track;

    #[test]
    fn nothing_is_decoded_that_lies_before_the_next_beginning() {
        let track = Track {
            samples: Vec::new(),
            starts: vec![0, 10, 20],
            shown: 0..30,
            parameter_sets: Vec::new(),
            length_bytes: 4,
            quarter_turns: 0,
        };
        let of = |places: &[usize]| runs(&track, &BTreeSet::from_iter(places.iter().copied()));
        assert_eq!(of(&[3, 7, 9]), [(0, 9)]);
        assert_eq!(of(&[3, 12, 15, 29]), [(0, 3), (10, 15), (20, 29)]);
        assert_eq!(of(&[0, 10]), [(0, 0), (10, 10)]);
        assert!(of(&[]).is_empty());
    }
}
