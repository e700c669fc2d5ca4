//! Reader of Hugging Face's `preprocessor_config.json` in the shapes it has had over the years.
//!
//! Old files give `size` and `crop_size` as numbers and a `feature_extractor_type`; newer ones give maps and an
//! `image_processor_type`; the newest wrap it all in `image_processor`. What a file leaves out has the default of its
//! processor class. Steps that cannot be done here are refused, because leaving them out would change the features.

use std::path::Path;

use serde_json::{Map, Value};

use super::preprocess::{CLIP_MEAN, CLIP_STD, HALF_MEAN_STD, Preprocess, Resize, Size};
use super::resize::Resample;
use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "preprocessor config";

/// What a processor class does where its file is silent.
struct Family {
    /// Class name without `FeatureExtractor` or `ImageProcessor`.
    name: &'static str,
    /// Whether a plain number as `size` means a square, instead of the shortest edge.
    square: bool,
    /// Side after the resize.
    size: u32,
    /// Whether a centre crop to 224 follows.
    crop: bool,
    /// Filter of the resize.
    resample: Resample,
    /// Mean and standard deviation.
    statistics: ([f32; 3], [f32; 3]),
}

/// The class whose pixels may go to \[-1, 1\] by an offset, and may be divided by the deviation once more.
const EFFICIENT_NET: &str = "EfficientNet";

impl Family {
    /// Whether images keep their shape and are padded for a batch; here the square in their middle is cut out instead.
    fn cuts(&self) -> bool {
        self.name == "Vilt"
    }
}

const CLIP: ([f32; 3], [f32; 3]) = (CLIP_MEAN, CLIP_STD);
const HALF: ([f32; 3], [f32; 3]) = (HALF_MEAN_STD, HALF_MEAN_STD);

const FAMILIES: [Family; 10] = [
    Family { name: "CLIP", square: false, size: 224, crop: true, resample: Resample::Bicubic, statistics: CLIP },
    Family { name: "ChineseCLIP", square: false, size: 224, crop: true, resample: Resample::Bicubic, statistics: CLIP },
    Family { name: "Bit", square: false, size: 224, crop: true, resample: Resample::Bicubic, statistics: CLIP },
    Family { name: "ViT", square: true, size: 224, crop: false, resample: Resample::Bilinear, statistics: HALF },
    Family { name: "DeiT", square: true, size: 256, crop: true, resample: Resample::Bicubic, statistics: HALF },
    Family { name: "Beit", square: true, size: 224, crop: false, resample: Resample::Bicubic, statistics: HALF },
    Family { name: "Siglip", square: true, size: 224, crop: false, resample: Resample::Bicubic, statistics: HALF },
    Family { name: EFFICIENT_NET, square: true, size: 346, crop: false, resample: Resample::Nearest, statistics: HALF },
    Family { name: "Vilt", square: false, size: 384, crop: false, resample: Resample::Bicubic, statistics: HALF },
    Family { name: "Blip", square: true, size: 384, crop: false, resample: Resample::Bicubic, statistics: CLIP },
];

impl Preprocess {
    /// Reads a `preprocessor_config.json`, or a `processor_config.json` that contains one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] naming the key, its value and what is understood.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let mut root: Map<String, Value> = file::read_json(path, FORMAT)?;
        if let Some(Value::Object(inner)) = root.remove("image_processor") {
            root = inner;
        }
        let preprocess = Config { path, root }.read()?;
        preprocess.validate().map_err(|error| Error::malformed(FORMAT, path, error))?;
        Ok(preprocess)
    }
}

struct Config<'a> {
    path: &'a Path,
    root: Map<String, Value>,
}

impl Config<'_> {
    fn read(&self) -> Result<Preprocess> {
        let family = self.family()?;
        let efficient = family.name == EFFICIENT_NET;
        let offset = efficient && self.flag("rescale_offset")?.unwrap_or(false);
        let twice = efficient && self.flag("include_top")?.unwrap_or(true);
        for (key, step) in [
            ("do_pad", "padding to a size"),
            ("rescale_offset", "rescaling with an offset"),
            ("include_top", "a second normalisation"),
            ("do_thumbnail", "thumbnails"),
            ("do_align_long_axis", "turning to the long axis"),
            ("do_image_splitting", "splitting into tiles"),
        ] {
            let taken = efficient && ["rescale_offset", "include_top"].contains(&key)
                // Where the shortest edge is resized to the side of a square, the square is cut out, and there is nothing to pad.
                || key == "do_pad" && family.cuts();
            if self.flag(key)? == Some(true) && !taken {
                return Err(self.wrong(format!("`{key}` asks for {step}, which is not supported")));
            }
        }
        if let Some(value) = self.get("crop_pct") {
            return Err(
                self.wrong(format!("`crop_pct` is {value}, which is not supported: give `size` and `crop_size`"))
            );
        }
        let resize = match self.flag("do_resize")?.unwrap_or(true) {
            true => self.resize(family)?,
            false => Resize::Keep,
        };
        let crop = match (self.flag("do_center_crop")?.unwrap_or(family.crop), resize) {
            (true, _) => self.crop(if efficient { 289 } else { 224 })?,
            (false, Resize::Exact(size)) => size,
            (false, Resize::ShortestEdge(side)) if family.cuts() => Size::square(side),
            (false, _) => {
                let reason =
                    "without `do_center_crop`, `size` must give `height` and `width`, or images differ in size";
                return Err(self.wrong(reason));
            }
        };
        let rescale = match self.flag("do_rescale")?.unwrap_or(true) {
            true => self.number("rescale_factor")?.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let deviation = self.channels("image_std")?.unwrap_or(family.statistics.1);
        let (mut mean, mut std) = match self.flag("do_normalize")?.unwrap_or(true) {
            true => (self.channels("image_mean")?.unwrap_or(family.statistics.0), deviation),
            false => ([0.0; 3], [1.0; 3]),
        };
        // `(x r - 1 - mean) / std`, and that over the deviation again, as one step.
        if offset {
            mean.iter_mut().for_each(|mean| *mean += 1.0);
        }
        if twice {
            std.iter_mut().zip(deviation).for_each(|(std, deviation)| *std *= deviation);
        }
        Ok(Preprocess { resize, crop, resample: self.resample()?.unwrap_or(family.resample), rescale, mean, std })
    }

    fn family(&self) -> Result<&'static Family> {
        let Some(name) = self.get("image_processor_type").or_else(|| self.get("feature_extractor_type")) else {
            return Ok(&FAMILIES[0]);
        };
        let name = name.as_str().ok_or_else(|| self.wrong(format!("`image_processor_type` is {name}, not a text")))?;
        let stem = name.trim_end_matches("Fast").trim_end_matches("Pil");
        let stem = stem.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
        FAMILIES.iter().find(|family| family.name == stem).ok_or_else(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            self.wrong(format!("image processor `{name}` is not supported; supported: {}", known.join(", ")))
        })
    }

    fn resize(&self, family: &Family) -> Result<Resize> {
        let Some(value) = self.get("size") else {
            return Ok(match family.square {
                true => Resize::Exact(Size::square(family.size)),
                false => Resize::ShortestEdge(family.size),
            });
        };
        match value {
            Value::Number(_) if family.square => Ok(Resize::Exact(Size::square(self.side("size", value)?))),
            Value::Number(_) => Ok(Resize::ShortestEdge(self.side("size", value)?)),
            Value::Object(map) if map.len() == 1 && map.contains_key("shortest_edge") => {
                Ok(Resize::ShortestEdge(self.side("size.shortest_edge", &map["shortest_edge"])?))
            }
            _ => self.rectangle("size", value).map(Resize::Exact),
        }
    }

    fn crop(&self, side: u32) -> Result<Size> {
        match self.get("crop_size") {
            None => Ok(Size::square(side)),
            Some(value @ Value::Number(_)) => self.side("crop_size", value).map(Size::square),
            Some(value) => self.rectangle("crop_size", value),
        }
    }

    /// `{"height": h, "width": w}` or `[h, w]`.
    fn rectangle(&self, key: &str, value: &Value) -> Result<Size> {
        let (height, width) = match value {
            Value::Object(map) if map.len() == 2 => (map.get("height"), map.get("width")),
            Value::Array(list) if list.len() == 2 => (list.first(), list.get(1)),
            _ => (None, None),
        };
        match (height, width) {
            (Some(height), Some(width)) => Ok(Size { height: self.side(key, height)?, width: self.side(key, width)? }),
            _ => {
                let forms = "a number, `{\"shortest_edge\": n}` (size only) or `{\"height\": h, \"width\": w}`";
                Err(self.wrong(format!("`{key}` is {value}; expected {forms}")))
            }
        }
    }

    fn side(&self, key: &str, value: &Value) -> Result<u32> {
        let side = value.as_u64().and_then(|side| u32::try_from(side).ok()).filter(|&side| side > 0);
        side.ok_or_else(|| self.wrong(format!("`{key}` holds {value}; expected a positive whole number of pixels")))
    }

    fn resample(&self) -> Result<Option<Resample>> {
        let Some(value) = self.get("resample") else { return Ok(None) };
        let known = value.as_u64().and_then(Resample::from_pil);
        known.map(Some).ok_or_else(|| {
            let codes = "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming";
            self.wrong(format!("`resample` is {value}; expected a Pillow code: {codes}"))
        })
    }

    fn channels(&self, key: &str) -> Result<Option<[f32; 3]>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list: Option<Vec<f32>> = match value {
            Value::Number(number) => number.as_f64().map(|one| vec![one as f32; 3]),
            Value::Array(list) => list.iter().map(|one| one.as_f64().map(|one| one as f32)).collect(),
            _ => None,
        };
        let three = list.and_then(|list| <[f32; 3]>::try_from(list).ok());
        three.map(Some).ok_or_else(|| self.wrong(format!("`{key}` is {value}; expected three numbers")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(format!("`{key}` is {value}; expected a number")))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(format!("`{key}` is {value}; expected true or false")))
    }

    /// A value that is present and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.root.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::malformed(FORMAT, self.path, reason.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess, Resize, Size};
    use super::super::resize::Resample;

    fn read(text: &str) -> Result<Preprocess, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(&path, text).unwrap();
        Preprocess::from_hf(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn all_spellings_of_clip_are_one() {
        let clip = Preprocess::clip(224);
        let numbers = format!(r#""image_mean": {CLIP_MEAN:?}, "image_std": {CLIP_STD:?}, "resample": 3"#);
        for text in [
            "{}".into(),
            format!(
                r#"{{"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, {numbers}}}"#
            ),
            format!(
                r#"{{"image_processor_type": "CLIPImageProcessorFast", "size": {{"shortest_edge": 224}},
                "crop_size": {{"height": 224, "width": 224}}, "do_convert_rgb": true, "do_pad": null, {numbers}}}"#
            ),
            format!(
                r#"{{"image_processor": {{"size": {{"shortest_edge": 224}}, {numbers}}}, "processor_class": "X"}}"#
            ),
        ] {
            assert_eq!(read(&text).unwrap(), clip, "{text}");
        }
    }

    #[test]
    fn a_number_is_a_square_for_vit_and_an_edge_for_bit() {
        let vit = read(r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 384, "resample": 2}"#).unwrap();
        assert_eq!((vit.resize, vit.crop), (Resize::Exact(Size::square(384)), Size::square(384)));
        assert_eq!((vit.resample, vit.mean), (Resample::Bilinear, [0.5; 3]));
        let bit = read(r#"{"image_processor_type": "BitImageProcessor", "size": 256, "do_normalize": false}"#).unwrap();
        assert_eq!((bit.resize, bit.crop, bit.mean), (Resize::ShortestEdge(256), Size::square(224), [0.0; 3]));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (text, word) in [
            (r#"{"do_pad": true}"#, "do_pad"),
            (r#"{"size": {"longest_edge": 9}}"#, "longest_edge"),
            (r#"{"size": {"shortest_edge": 9, "longest_edge": 12}}"#, "shortest_edge"),
            (r#"{"size": "big"}"#, "big"),
            (r#"{"size": -1}"#, "positive"),
            (r#"{"crop_pct": 0.875}"#, "crop_pct"),
            (r#"{"do_center_crop": false}"#, "do_center_crop"),
            (r#"{"resample": 9}"#, "Pillow"),
            (r#"{"image_mean": [0.5]}"#, "three numbers"),
            (r#"{"image_std": [0, 1, 1]}"#, "positive"),
            (r#"{"image_processor_type": "SamImageProcessor"}"#, "SamImageProcessor"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word) && message.contains("preprocessor_config.json"), "{text}: {message}");
        }
    }
}
