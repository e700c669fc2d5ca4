//! The H.264 track of an MP4 or QuickTime file: where its frames lie and in which order they are shown.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::boxes::{Part, damaged, kind, needed, number, part, parts, rows, size_of, word};

/// Most bytes of the description of a file, its frames aside.
const MAX_DESCRIPTION_BYTES: u64 = 64 * 1024 * 1024;

/// Most frames of a file: nine hours of 30 a second. Their number is claimed, not proven.
const MAX_FRAMES: usize = 1_000_000;

/// Where the boxes of a sample entry begin, behind the fields that all video has.
const ENTRY_FIELDS: usize = 78;

/// What can be done with a file that is not read.
pub(super) const CURE: &str = "`ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4` makes one that is read";

/// A frame as it lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Its first byte.
    pub(super) offset: u64,
    /// How many bytes it has; they lie within the file.
    pub(super) bytes: u32,
}

/// A track of video.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Track {
    /// In the order of decoding.
    pub(super) samples: Vec<Sample>,
    /// Samples that decoding can begin at, in order, the first among them: whatever is decoded from there on is shown
    /// later than all before, so that the place of such a sample is its place in the order of time.
    pub(super) starts: Vec<usize>,
    /// Which frames, in the order of time, a viewer shows.
    pub(super) shown: Range<usize>,
    /// Sequence and picture parameter sets.
    pub(super) parameter_sets: Vec<Vec<u8>>,
    /// Bytes of the length before each unit of a sample.
    pub(super) length_bytes: usize,
    /// Quarter turns clockwise that bring a frame upright.
    pub(super) quarter_turns: u8,
}

impl Track {
    /// Reads the description of a file; its frames are not read.
    ///
    /// # Errors
    /// Words that tell what is wrong: no MP4, cut short, fragmented, without H.264.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let description = description(file, length)?;
        let movie = parts(&description)?;
        let movie_scale = scale(needed(&movie, b"mvhd")?)?;
        for (_, content) in movie.iter().filter(|(kind, _)| kind == b"trak") {
            let track = parts(content)?;
            let media = parts(needed(&track, b"mdia")?)?;
            if needed(&media, b"hdlr")?.get(8..12) == Some(b"vide") {
                return Self::of(&track, &media, movie_scale, length);
            }
        }
        Err("it has no video track".into())
    }

    fn of(track: &[Part<'_>], media: &[Part<'_>], movie_scale: u32, length: u64) -> Result<Self, String> {
        let information = parts(needed(media, b"minf")?)?;
        let tables = parts(needed(&information, b"stbl")?)?;
        let (parameter_sets, length_bytes) = configuration(needed(&tables, b"stsd")?)?;
        let samples = samples(&tables, length)?;
        let times = times(&tables, samples.len())?;
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.sort_by_key(|at| (times[*at], *at));
        let starts = starts(part(&tables, b"stss"), &order)?;
        let sorted: Vec<i64> = order.iter().map(|at| times[*at]).collect();
        let edits = part(track, b"edts").map(parts).transpose()?.unwrap_or_default();
        let shown = match part(&edits, b"elst") {
            Some(list) => shown(list, &sorted, scale(needed(media, b"mdhd")?)?, movie_scale)?,
            None => 0..samples.len(),
        };
        let quarter_turns = quarter_turns(needed(track, b"tkhd")?)?;
        Ok(Self { samples, starts, shown, parameter_sets, length_bytes, quarter_turns })
    }

    /// The last sample from which the frame at a place in the order of time can be decoded.
    pub(super) fn start_of(&self, place: usize) -> usize {
        let behind = self.starts.partition_point(|start| *start <= place);
        self.starts[behind.saturating_sub(1)]
    }
}

/// The content of the `moov` box.
fn description(file: &mut (impl Read + Seek), length: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let (mut at, mut found) = (0, None);
    while length - at >= 8 {
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut header = Vec::new();
        file.by_ref().take(16).read_to_end(&mut header).map_err(failed)?;
        let (size, own) = size_of(&header)?.unwrap_or((length - at, 8));
        let kind = kind(&header)?;
        if at == 0 && ![b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"].contains(&&kind) {
            return Err("it does not begin as an MP4 or QuickTime file".into());
        }
        if size > length - at {
            return Err(format!("it is cut short: its `{}` box reaches beyond the end of the file", word(&kind)));
        }
        match &kind {
            b"moof" => {
                return Err(
                    "it is in fragments; `ffmpeg -i IN -c copy OUT.mp4` joins them without coding them anew".into()
                );
            }
            b"moov" if size > MAX_DESCRIPTION_BYTES => {
                return Err(format!("its description has {size} bytes, at most {MAX_DESCRIPTION_BYTES} are read"));
            }
            b"moov" => found = Some((at + own, size - own)),
            _ => {}
        }
        at += size;
    }
    let (at, size) = found.ok_or("it has no `moov` box; is it cut short?")?;
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    let mut content = Vec::new();
    file.by_ref().take(size).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 == size { Ok(content) } else { Err(damaged()) }
}

/// Units of time in a second, of an `mvhd` or `mdhd` box.
fn scale(header: &[u8]) -> Result<u32, String> {
    let at = if number(header, 0, 1)? == 1 { 20 } else { 12 };
    Ok(number(header, at, 4)?.max(1))
}

/// Parameter sets, and how long the lengths of units are, from the first sample entry.
fn configuration(descriptions: &[u8]) -> Result<(Vec<Vec<u8>>, usize), String> {
    let entries = parts(descriptions.get(8..).ok_or_else(damaged)?)?;
    let (coding, entry) = entries.first().ok_or_else(damaged)?;
    if ![b"avc1", b"avc3"].contains(&coding) {
        return Err(format!("its video is `{}`, and H.264 (`avc1`) is what is decoded; {CURE}", word(coding)));
    }
    let fields = parts(entry.get(ENTRY_FIELDS..).ok_or_else(damaged)?)?;
    let record = needed(&fields, b"avcC")?;
    let length_bytes = (number(record, 4, 1)? & 3) as usize + 1;
    let (mut sets, mut at) = (Vec::new(), 5);
    for mask in [0x1F, 0xFF] {
        let count = number(record, at, 1)? & mask;
        at += 1;
        for _ in 0..count {
            let length = number(record, at, 2)? as usize;
            sets.push(record.get(at + 2..at + 2 + length).ok_or_else(damaged)?.to_vec());
            at += 2 + length;
        }
    }
    Ok((sets, length_bytes))
}

/// Where samples lie, by their sizes and the chunks that they stand in.
fn samples(tables: &[Part<'_>], length: u64) -> Result<Vec<Sample>, String> {
    let table = needed(tables, b"stsz")?;
    let (one_size, count) = (number(table, 4, 4)?, number(table, 8, 4)? as usize);
    if count == 0 {
        return Err("it has no frame".into());
    }
    if count > MAX_FRAMES {
        return Err(format!("it claims {count} frames, more than the limit of {MAX_FRAMES}"));
    }
    let sizes: Vec<u32> = match one_size {
        0 => rows::<1>(table, 8)?.into_iter().flatten().collect(),
        size => vec![size; count],
    };
    let chunks: Vec<u64> = match part(tables, b"stco") {
        Some(table) => rows::<1>(table, 4)?.into_iter().flatten().map(u64::from).collect(),
        None => {
            let wide = rows::<2>(needed(tables, b"co64")?, 4)?;
            wide.into_iter().map(|[high, low]| u64::from(high) << 32 | u64::from(low)).collect()
        }
    };
    let runs = rows::<3>(needed(tables, b"stsc")?, 4)?;
    if runs.iter().any(|[_, _, description]| *description != 1) {
        return Err(format!("its coding changes within the file; {CURE}"));
    }
    let (mut samples, mut sizes, mut run) = (Vec::with_capacity(count), sizes.into_iter(), 0);
    for (number, mut offset) in (1..).zip(chunks) {
        while runs.get(run + 1).is_some_and(|[first, ..]| u64::from(*first) <= number) {
            run += 1;
        }
        let [_, in_chunk, _] = *runs.get(run).ok_or_else(damaged)?;
        for bytes in sizes.by_ref().take(in_chunk as usize) {
            let end = offset.checked_add(u64::from(bytes)).filter(|end| *end <= length);
            let end = end.ok_or_else(|| format!("it is cut short: frame {} lies beyond its end", samples.len()))?;
            samples.push(Sample { offset, bytes });
            offset = end;
        }
    }
    if samples.len() == count { Ok(samples) } else { Err(damaged()) }
}

/// When each sample is shown, in units of the track.
fn times(tables: &[Part<'_>], count: usize) -> Result<Vec<i64>, String> {
    let steps = spread(needed(tables, b"stts")?, count)?;
    let delays = part(tables, b"ctts").map(|table| spread(table, count)).transpose()?;
    let mut decoded = 0i64;
    let mut times = Vec::with_capacity(count);
    for (at, step) in steps.into_iter().enumerate() {
        // Delays may be below zero, in files that call them unsigned too.
        times.push(decoded + delays.as_ref().map_or(0, |delays| i64::from(delays[at].cast_signed())));
        decoded += i64::from(step);
    }
    Ok(times)
}

/// The values of a table of runs, one for each sample.
fn spread(table: &[u8], count: usize) -> Result<Vec<u32>, String> {
    let mut values = Vec::with_capacity(count);
    for [length, value] in rows::<2>(table, 4)? {
        let left = count - values.len();
        values.extend(std::iter::repeat_n(value, left.min(length as usize)));
    }
    if values.len() == count { Ok(values) } else { Err(damaged()) }
}

/// Samples that decoding can begin at; without a table, any. `order` are the samples in the order of time.
fn starts(table: Option<&[u8]>, order: &[usize]) -> Result<Vec<usize>, String> {
    let entries: Vec<usize> = match table {
        Some(table) => rows::<1>(table, 4)?.into_iter().flatten().map(|number| number as usize).collect(),
        None => (1..=order.len()).collect(),
    };
    // Where the samples shown before a place are those decoded before it, and the place is the sample's own.
    let mut behind = 0;
    let mut closes = |(place, sample): (usize, &usize)| {
        let closed = behind <= place && *sample == place;
        behind = behind.max(sample + 1);
        closed
    };
    let closed: Vec<bool> = order.iter().enumerate().map(&mut closes).collect();
    let mut starts: Vec<usize> = entries.into_iter().filter_map(|number| number.checked_sub(1)).collect();
    starts.retain(|start| closed.get(*start).is_some_and(|closed| *closed));
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    Ok(starts)
}

/// The frames that an edit list shows, where it has one edit; those of several edits are all shown, once. `times` are
/// in order.
fn shown(list: &[u8], times: &[i64], scale: u32, movie_scale: u32) -> Result<Range<usize>, String> {
    let wide = number(list, 0, 1)? == 1;
    let edits: Vec<(u64, i64)> = if wide {
        let rows = rows::<5>(list, 4)?;
        let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        rows.into_iter().map(|row| (long(row[0], row[1]), long(row[2], row[3]).cast_signed())).collect()
    } else {
        let rows = rows::<3>(list, 4)?;
        rows.into_iter().map(|row| (u64::from(row[0]), i64::from(row[1].cast_signed()))).collect()
    };
    // One that begins nowhere is a pause.
    let mut real = edits.into_iter().filter(|(_, begin)| *begin >= 0);
    let (Some((duration, begin)), None) = (real.next(), real.next()) else { return Ok(0..times.len()) };
    let (scale, movie_scale) = (u128::from(scale), u128::from(movie_scale));
    let duration = (u128::from(duration) * scale + movie_scale / 2) / movie_scale;
    let end =
        i64::try_from(duration).ok().filter(|duration| *duration > 0).and_then(|duration| begin.checked_add(duration));
    let first = times.partition_point(|time| *time < begin);
    let last = end.map_or(times.len(), |end| times.partition_point(|time| *time < end));
    Ok(if first < last { first..last } else { 0..times.len() })
}

/// How far a frame has to be turned; a matrix that does more than that is left aside.
fn quarter_turns(header: &[u8]) -> Result<u8, String> {
    let at = if number(header, 0, 1)? == 1 { 52 } else { 40 };
    let entry = |place: usize| number(header, at + 4 * place, 4).map(|value| value.cast_signed().signum());
    Ok(match (entry(0)?, entry(1)?, entry(3)?, entry(4)?) {
        (0, 1, -1, 0) => 1,
        (-1, 0, 0, -1) => 2,
        (0, -1, 1, 0) => 3,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{Track, quarter_turns, shown, spread, starts};

    fn table(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn decoding_begins_where_nothing_shown_earlier_comes_later() {
        // I P b | I b P, in the order of decoding; the last b is shown before its I.
        let order = [0, 2, 1, 4, 3, 5];
        let listed = table(&[0, 2, 1, 4]);
        assert_eq!(starts(Some(&listed), &order), Ok(vec![0]));
        // I b b P | I P b: what follows the second I is shown behind it.
        let order = [0, 1, 2, 3, 4, 6, 5];
        assert_eq!(starts(Some(&table(&[0, 2, 1, 5])), &order), Ok(vec![0, 4]));
        assert_eq!(starts(Some(&table(&[0, 3, 0, 77, 6])), &order), Ok(vec![0]));
        assert_eq!(starts(None, &order), Ok(vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn one_edit_says_which_frames_are_shown() {
        let times = [0, 10, 20, 30, 40];
        let of = |numbers: &[i32]| shown(&table(numbers), &times, 100, 1000);
        // Version and count, then duration in units of the film, begin in those of the track, and the rate.
        assert_eq!(of(&[0, 1, 200, 15, 0x1_0000]), Ok(2..4));
        assert_eq!(of(&[0, 1, 0, 10, 0x1_0000]), Ok(1..5));
        // A pause before it changes nothing; two edits, or one that shows nothing, are left aside.
        assert_eq!(of(&[0, 2, 99, -1, 0x1_0000, 100, 0, 0x1_0000]), Ok(0..1));
        assert_eq!(of(&[0, 2, 100, 0, 0x1_0000, 100, 30, 0x1_0000]), Ok(0..5));
        assert_eq!(of(&[0, 1, 100, 90, 0x1_0000]), Ok(0..5));
        assert!(of(&[0, 7, 100]).is_err());
        assert_eq!(shown(&table(&[1 << 24, 1, 0, 200, 0, 15, 0x1_0000]), &times, 100, 1000), Ok(2..4));
    }

    #[test]
    fn what_is_claimed_and_not_there_is_an_error() {
        assert_eq!(spread(&table(&[0, 2, 2, 7, 1, 9]), 3), Ok(vec![7, 7, 9]));
        assert_eq!(spread(&table(&[0, 1, -1, 7]), 3), Ok(vec![7, 7, 7]));
        assert!(spread(&table(&[0, 1, 2, 7]), 3).is_err());
        let turned = |matrix: [i32; 5]| {
            let mut header = vec![0; 40];
            header.extend(table(&matrix));
            quarter_turns(&header)
        };
        assert_eq!(turned([0, 0x1_0000, 0, -0x1_0000, 0]), Ok(1));
        assert_eq!(turned([0x1_0000, 0, 0, 0, 0x1_0000]), Ok(0));
        assert!(quarter_turns(&[0; 41]).is_err());
        for (bytes, words) in [
            (&b"\0\0\0\x08ftyp"[..], "no `moov` box"),
            (b"\0\0\0\x08ftyp\0\0\0\x0Amoov", "reaches beyond the end"),
            (b"\0\0\0\x08ftyp\0\0\0\x00mdat", "no `moov` box"),
            (b"\0\0\0\x08ftyp\0\0\0\x02mdat", "damaged"),
            (b"\0\0\0\x08ftyp\0\0\0\x08moov", "no `mvhd` box"),
            (b"\0\0\0\x08ftyp\0\0\0\x08moof", "in fragments"),
            (b"", "no `moov` box"),
        ] {
            let reason = Track::read(&mut Cursor::new(bytes)).expect_err("no video");
            assert!(reason.contains(words), "{reason}");
        }
    }
}
