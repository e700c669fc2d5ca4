//! One sample of a memory, and its bytes.

use half::f16;
use serde::{Deserialize, Serialize};

/// How latents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value, relative error 0.05 %.
    #[default]
    F16,
    /// 1 byte a value and one factor for each latent, error 0.8 % of its greatest value at most.
    Int8,
}

impl Precision {
    /// The latent as it will be read back.
    pub fn rounded(self, latent: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        self.write(latent, &mut bytes);
        self.read(&mut Reader(&bytes), latent.len()).unwrap_or_default()
    }

    fn write(self, latent: &[f32], into: &mut Vec<u8>) {
        match self {
            Self::F32 => into.extend(latent.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => into.extend(latent.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
            Self::Int8 => {
                let greatest = latent.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
                // A power of two, so that rounding what was rounded changes nothing.
                let factor = if greatest > 0.0 { (greatest / 127.0).log2().ceil().exp2() } else { 1.0 };
                into.extend(factor.to_le_bytes());
                into.extend(latent.iter().map(|value| (value / factor).round() as i8 as u8));
            }
        }
    }

    fn read(self, from: &mut Reader<'_>, dim: usize) -> Option<Vec<f32>> {
        match self {
            Self::F32 => Some(from.take(4 * dim)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Self::F16 => {
                let bytes = from.take(2 * dim)?;
                Some(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect())
            }
            Self::Int8 => {
                let factor = f32::from_le_bytes(from.array()?);
                Some(from.take(dim)?.iter().map(|byte| f32::from(*byte as i8) * factor).collect())
            }
        }
    }
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// A name that tells it from all others.
    pub id: String,
    /// Its class.
    pub class: String,
    /// Where it came from, for people: a data set, a site, a camera.
    pub source: String,
    /// When it came, in seconds since 1970; in a benchmark the number of its experience.
    pub time: u64,
    /// How much it is worth keeping, for a sampler that asks; above 0.
    pub weight: f32,
    /// The frozen feature of the centre view, `[dim]`, not normalised.
    pub latent: Vec<f32>,
    /// Those of augmented views, `[views - 1, dim]`; empty where the centre view is all that is kept.
    pub views: Vec<f32>,
    /// The image file, where images are kept.
    pub image: Option<Vec<u8>>,
    /// Scores of the model that learned it, for the classes known then.
    pub scores: Vec<f32>,
}

/// Bytes that are read from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn number(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.array()?) as usize)
    }

    /// A length and so many bytes.
    pub(super) fn piece(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.piece()?.to_vec()).ok()
    }
}

pub(super) fn put_piece(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend((bytes.len() as u32).to_le_bytes());
    into.extend(bytes);
}

impl Sample {
    /// The latent of a view, 0 being the centre view; the centre view's where there is no such view.
    pub fn view(&self, view: usize) -> &[f32] {
        match view.checked_sub(1) {
            Some(further) => self.further().nth(further).unwrap_or(&self.latent),
            None => &self.latent,
        }
    }

    /// The latents of augmented views.
    fn further(&self) -> impl Iterator<Item = &[f32]> {
        self.views.chunks_exact(self.latent.len().max(1))
    }

    /// Its record: everything behind its own length.
    pub(super) fn encode(&self, precision: Precision) -> Vec<u8> {
        let mut record = Vec::new();
        for text in [&self.id, &self.class, &self.source] {
            put_piece(text.as_bytes(), &mut record);
        }
        record.extend(self.time.to_le_bytes());
        record.extend(self.weight.to_le_bytes());
        record.extend(((self.latent.len() + self.views.len()) as u32).to_le_bytes());
        precision.write(&self.latent, &mut record);
        self.further().for_each(|view| precision.write(view, &mut record));
        put_piece(self.image.as_deref().unwrap_or_default(), &mut record);
        let scores: Vec<u8> = self.scores.iter().flat_map(|score| f16::from_f32(*score).to_le_bytes()).collect();
        put_piece(&scores, &mut record);
        record
    }

    /// Reads a record of so many views; `None` when it is damaged.
    pub(super) fn decode(record: &[u8], precision: Precision, views: usize) -> Option<Self> {
        let mut reader = Reader(record);
        let (id, class, source) = (reader.text()?, reader.text()?, reader.text()?);
        let time = u64::from_le_bytes(reader.array()?);
        let weight = f32::from_le_bytes(reader.array()?);
        let values = reader.number()?;
        // Views of no length would be read without end.
        let dim = values.checked_div(views).filter(|dim| dim * views == values && (*dim > 0 || views == 1))?;
        let latent = precision.read(&mut reader, dim)?;
        let mut further = Vec::new();
        for _ in 1..views {
            further.extend(precision.read(&mut reader, dim)?);
        }
        let image = reader.piece()?;
        let scores = reader.piece()?.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect();
        let finite = latent.iter().chain(&further).all(|value| value.is_finite()) && weight.is_finite();
        (finite && reader.0.is_empty()).then(|| Self {
            image: (!image.is_empty()).then(|| image.to_vec()),
            id,
            class,
            source,
            time,
            weight,
            latent,
            views: further,
            scores,
        })
    }

    /// The sample as it will be read back: rounded, without what is not kept.
    pub(super) fn into_kept(mut self, precision: Precision, images: bool) -> Self {
        self.views = self.further().flat_map(|view| precision.rounded(view)).collect();
        self.latent = precision.rounded(&self.latent);
        self.scores.iter_mut().for_each(|score| *score = f16::from_f32(*score).to_f32());
        if !images {
            self.image = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::{Precision, Sample};

    #[test]
    fn a_record_comes_back_and_rounding_is_bounded() {
        let latent = Seed::new(3).normals(64, 0.7);
        let sample = Sample {
            id: "a/1.jpg".into(),
            class: "a".into(),
            source: "site 1".into(),
            time: 7,
            weight: 1.5,
            latent: latent.clone(),
            views: Vec::new(),
            image: Some(vec![1, 2, 3]),
            scores: vec![0.5, -2.0],
        };
        let greatest = latent.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
        for (precision, bytes, error) in
            [(Precision::F32, 256, 0.0), (Precision::F16, 128, 1e-3), (Precision::Int8, 68, 8e-3)]
        {
            let kept = sample.clone().into_kept(precision, true);
            let record = kept.encode(precision);
            assert_eq!(Sample::decode(&record, precision, 1).as_ref(), Some(&kept));
            assert_eq!(record.len(), bytes + 3 * 4 + 7 + 1 + 6 + 8 + 4 + 4 + 4 + 3 + 4 + 4);
            let apart = kept.latent.iter().zip(&latent).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= error * greatest, "{precision:?} {apart}");
            assert!((1..record.len()).all(|cut| Sample::decode(&record[..cut], precision, 1).is_none()));
            // Once rounded it stays, so that what was summed can be taken out again exactly.
            assert_eq!(precision.rounded(&kept.latent), kept.latent);
        }
    }

    #[test]
    fn a_record_of_the_centre_view_has_the_bytes_that_it_always_had() {
        let sample = Sample {
            id: "a".into(),
            class: "b".into(),
            source: String::new(),
            time: 7,
            weight: 1.0,
            latent: vec![0.5, -2.0],
            views: Vec::new(),
            image: None,
            scores: vec![0.25],
        };
        let texts = [1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b', 0, 0, 0, 0];
        let time_and_weight: [u8; 12] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f];
        // Two values, 0.5 and -2; no image; one score of two bytes, 0.25.
        let rest: [u8; 18] = [2, 0, 0, 0, 0, 0x38, 0, 0xc0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0x34];
        assert_eq!(sample.encode(Precision::F16), [&texts[..], &time_and_weight, &rest].concat());
    }

    #[test]
    fn views_come_back_each_rounded_by_itself() {
        const DIM: usize = 16;
        let latents: Vec<Vec<f32>> = [0.1, 1.0, 30.0].map(|size| Seed::new(5).normals(DIM, size)).into();
        let sample = Sample {
            id: "a".into(),
            class: "b".into(),
            source: String::new(),
            time: 0,
            weight: 1.0,
            latent: latents[0].clone(),
            views: latents[1..].concat(),
            image: None,
            scores: Vec::new(),
        };
        let alone = Sample { views: Vec::new(), ..sample.clone() };
        for (precision, bytes) in [(Precision::F32, 4 * DIM), (Precision::F16, 2 * DIM), (Precision::Int8, DIM + 4)] {
            let kept = sample.clone().into_kept(precision, false);
            for (view, latent) in latents.iter().enumerate() {
                assert_eq!(kept.view(view), precision.rounded(latent), "{precision:?} view {view}");
            }
            let record = kept.encode(precision);
            assert_eq!(record.len(), alone.encode(precision).len() + 2 * bytes, "{precision:?}");
            assert_eq!(Sample::decode(&record, precision, 3).as_ref(), Some(&kept));
            assert!((1..record.len()).all(|cut| Sample::decode(&record[..cut], precision, 3).is_none()));
            assert!([0, 5, usize::MAX].iter().all(|views| Sample::decode(&record, precision, *views).is_none()));
            let empty = Sample { latent: Vec::new(), views: Vec::new(), ..sample.clone() }.encode(precision);
            assert!(Sample::decode(&empty, precision, usize::MAX).is_none());
        }
    }
}
