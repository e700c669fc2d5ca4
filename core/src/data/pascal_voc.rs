//! Objects in images, in the layout of Pascal VOC (Everingham et al., 2010), cut out as a folder of class folders.
//!
//! `Annotations/*.xml` hold boxes in pixels counted from 1, both ends included; `JPEGImages/` the images; where there is
//! `ImageSets/Main/{train,val,test}.txt`, its lists are the splits. Otherwise a hash of the image's name decides: all objects
//! of an image are in one split, so that no image is both learned from and reported on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use image::imageops::crop_imm;
use image::{ImageFormat, RgbImage};
use rayon::prelude::*;
use roxmltree::{Document, Node};
use serde::Serialize;

use super::fresh_folder::{check_absent, fresh_folder, names_folder};
use super::split::{Split, assign_splits};
use crate::error::{Error, Result};
use crate::file;
use crate::image::decode_image;

const FORMAT: &str = "Pascal VOC annotation";
const ANNOTATIONS: &str = "Annotations";
const IMAGES: &str = "JPEGImages";

/// How objects are cut out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropConfig {
    /// What is added on each side, as a share of the box's side.
    pub margin: f64,
    /// Whether the shorter side grows until the crop is a square, as far as the image reaches.
    pub square: bool,
    /// Boxes with a shorter side are left out, in pixels.
    pub smallest: u32,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self { margin: 0.0, square: false, smallest: 1 }
    }
}

/// What was cut out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CropReport {
    /// Annotated images.
    pub images: usize,
    /// Crops by split and class.
    pub crops: BTreeMap<String, BTreeMap<String, usize>>,
    /// Boxes that were left out: smaller than the smallest, or outside of their image.
    pub left_out: usize,
}

/// An object: its class and its box, `[left, top, right, bottom]` in pixels from 0, the last two excluded.
struct Object {
    class: String,
    sides: [i64; 4],
}

/// An annotated image.
struct Annotation {
    /// The file name without its end.
    name: String,
    path: PathBuf,
    size: Option<(u32, u32)>,
    objects: Vec<Object>,
    split: Split,
}

/// Cuts every object of a Pascal VOC folder out into `target/SPLIT/CLASS/IMAGE-NUMBER.png`. The same folder gives the same
/// bytes. `target` must not exist; it appears when all is done.
///
/// # Errors
/// [`Error::Io`] naming the file; [`Error::Malformed`] for an annotation that is not as it must be; [`Error::BadImage`];
/// [`Error::Invalid`] for a target that exists.
pub fn crop_pascal_voc(folder: &Path, target: &Path, config: CropConfig) -> Result<CropReport> {
    if !(config.margin.is_finite() && (0.0..=10.0).contains(&config.margin)) {
        return Err(Error::invalid("margin", format!("must be 0 to 10, found {}", config.margin)));
    }
    check_absent(target)?;
    let annotations = read(folder)?;
    fresh_folder(target, |into| {
        let counts: Vec<CropReport> =
            annotations.par_iter().map(|annotation| cut(annotation, into, config)).collect::<Result<_>>()?;
        let mut report = CropReport { images: annotations.len(), ..CropReport::default() };
        for part in counts {
            report.left_out += part.left_out;
            for (split, classes) in part.crops {
                let into = report.crops.entry(split).or_default();
                classes.into_iter().for_each(|(class, count)| *into.entry(class).or_default() += count);
            }
        }
        if report.crops.is_empty() {
            return Err(Error::malformed("Pascal VOC folder", folder, "it holds no object that could be cut out"));
        }
        Ok(report)
    })
}

/// Every annotated image, in name order.
fn read(folder: &Path) -> Result<Vec<Annotation>> {
    let listed = file::list(&folder.join(ANNOTATIONS))?;
    let listed: Vec<PathBuf> =
        listed.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "xml")).collect();
    let images: HashMap<String, PathBuf> =
        file::list(&folder.join(IMAGES))?.into_iter().map(|path| (stem(&path), path)).collect();
    let lists = lists(folder)?;
    let mut annotations = listed.iter().map(|path| annotation(path, &images)).collect::<Result<Vec<_>>>()?;
    let ids: Vec<(&str, usize)> = annotations.iter().map(|annotation| (annotation.name.as_str(), 0)).collect();
    let splits = match &lists {
        None => assign_splits(&ids).into_iter().map(Some).collect(),
        Some(lists) => ids.iter().map(|(name, _)| lists.get(*name).copied()).collect::<Vec<_>>(),
    };
    for (annotation, split) in annotations.iter_mut().zip(&splits) {
        annotation.split = split.unwrap_or(Split::Train);
    }
    // An image in no list belongs to no split.
    let kept = annotations.into_iter().zip(splits).filter_map(|(annotation, split)| split.map(|_| annotation));
    let kept: Vec<Annotation> = kept.collect();
    if kept.is_empty() {
        return Err(Error::malformed("Pascal VOC folder", folder, "no image of it is annotated and in a list"));
    }
    Ok(kept)
}

/// The split of each image that a list names; `None` without lists.
fn lists(folder: &Path) -> Result<Option<HashMap<String, Split>>> {
    let mut splits = HashMap::new();
    let mut any = false;
    for split in [Split::Train, Split::Val, Split::Test] {
        let path = folder.join("ImageSets").join("Main").join(format!("{split}.txt"));
        if !path.is_file() {
            continue;
        }
        any = true;
        let text = file::read_text(&path)?;
        for name in text.lines().filter_map(|line| line.split_whitespace().next()) {
            if let Some(other) = splits.insert(name.to_owned(), split).filter(|other| *other != split) {
                let reason = format!("image `{name}` is also in the list of {other}");
                return Err(Error::malformed("Pascal VOC list", &path, reason));
            }
        }
    }
    Ok(any.then_some(splits))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn annotation(path: &Path, images: &HashMap<String, PathBuf>) -> Result<Annotation> {
    let text = file::read_text(path)?;
    let malformed = |reason: String| Error::malformed(FORMAT, path, reason);
    let document = Document::parse(&text).map_err(|error| malformed(error.to_string()))?;
    let root = document.root_element();
    let name = stem(path);
    let image = images.get(&name).ok_or_else(|| {
        malformed(format!("`{IMAGES}` holds no image `{name}`, which this annotation is named after"))
    })?;
    let number = |node: Option<Node<'_, '_>>, name: &str| -> Result<f64> {
        let text = node.and_then(|node| child(node, name)).and_then(|node| node.text()).map(str::trim);
        let number = text.and_then(|text| text.parse::<f64>().ok()).filter(|number| number.is_finite());
        number.ok_or_else(|| malformed(format!("`{name}` must be a number, found `{}`", text.unwrap_or("nothing"))))
    };
    let size = child(root, "size").map(|size| -> Result<(u32, u32)> {
        Ok((number(Some(size), "width")? as u32, number(Some(size), "height")? as u32))
    });
    let objects = root.children().filter(|node| node.has_tag_name("object")).map(|object| {
        let class = child(object, "name").and_then(|node| node.text()).map(str::trim).unwrap_or_default();
        if !names_folder(class) {
            return Err(malformed(format!("an object's name must be a word that can name a folder, found `{class}`")));
        }
        let sides = child(object, "bndbox");
        let side = |name: &str| number(sides, name).map(|side| side.clamp(-1e9, 1e9).round() as i64);
        let sides = [side("xmin")? - 1, side("ymin")? - 1, side("xmax")?, side("ymax")?];
        Ok(Object { class: class.to_owned(), sides })
    });
    let objects = objects.collect::<Result<Vec<_>>>()?;
    // Some tools leave the size at zero.
    let size = size.transpose()?.filter(|(width, height)| *width > 0 && *height > 0);
    Ok(Annotation { name, path: image.clone(), size, objects, split: Split::Train })
}

fn child<'a, 'b>(node: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// Cuts the objects of one image out.
fn cut(annotation: &Annotation, target: &Path, config: CropConfig) -> Result<CropReport> {
    let image = decode_image(&annotation.path)?;
    if let Some((width, height)) = annotation.size.filter(|size| *size != image.dimensions()) {
        let found = format!("{} x {}", image.width(), image.height());
        let what = format!("size of image `{}`", annotation.path.display());
        return Err(Error::mismatch(what, format!("{width} x {height}, as annotated"), found));
    }
    let mut report = CropReport::default();
    for (number, object) in annotation.objects.iter().enumerate() {
        let Some([left, top, width, height]) = region(object.sides, image.dimensions(), config) else {
            report.left_out += 1;
            continue;
        };
        let crop: RgbImage = crop_imm(&image, left, top, width, height).to_image();
        let split = annotation.split.to_string();
        let folder = target.join(&split).join(&object.class);
        file::create_folder(&folder)?;
        let path = folder.join(format!("{}-{number:03}.png", annotation.name));
        let fault = |error: image::ImageError| Error::io("write", &path)(std::io::Error::other(error.to_string()));
        crop.save_with_format(&path, ImageFormat::Png).map_err(fault)?;
        *report.crops.entry(split).or_default().entry(object.class.clone()).or_default() += 1;
    }
    Ok(report)
}

/// The part of the image that is cut out for a box, `[left, top, width, height]`; `None` for a box that is left out.
fn region(sides: [i64; 4], (width, height): (u32, u32), config: CropConfig) -> Option<[u32; 4]> {
    let limits = [i64::from(width), i64::from(height)];
    let mut found = [0; 4];
    let inside = |axis: usize| (sides[axis].clamp(0, limits[axis]), sides[axis + 2].clamp(0, limits[axis]));
    let lengths = [0, 1].map(|axis| inside(axis).1 - inside(axis).0);
    let smallest = i64::from(config.smallest.max(1));
    if lengths.iter().any(|length| *length < smallest) {
        return None;
    }
    let grown = lengths.map(|length| length + 2 * (config.margin * length as f64).round() as i64);
    for axis in 0..2 {
        let wanted = if config.square { grown[0].max(grown[1]) } else { grown[axis] };
        let length = wanted.min(limits[axis]);
        let (low, high) = inside(axis);
        // Centred on the box, moved back inside where the image ends.
        let start = ((low + high - length).div_euclid(2)).clamp(0, limits[axis] - length);
        found[axis] = start as u32;
        found[axis + 2] = length as u32;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{CropConfig, region};

    #[test]
    fn boxes_grow_and_stay_inside() {
        let plain = CropConfig::default();
        assert_eq!(region([2, 3, 6, 9], (10, 10), plain), Some([2, 3, 4, 6]));
        assert_eq!(region([-5, -5, 3, 4], (10, 10), plain), Some([0, 0, 3, 4]));
        assert_eq!(region([8, 8, 30, 30], (10, 10), plain), Some([8, 8, 2, 2]));
        for outside in [[4, 4, 4, 8], [12, 1, 20, 5], [6, 6, 4, 4]] {
            assert_eq!(region(outside, (10, 10), plain), None);
        }
        assert_eq!(region([2, 2, 4, 4], (10, 10), CropConfig { smallest: 3, ..plain }), None);
        assert_eq!(region([4, 4, 8, 6], (20, 20), CropConfig { margin: 0.5, ..plain }), Some([2, 3, 8, 4]));
        assert_eq!(region([4, 4, 8, 6], (20, 20), CropConfig { square: true, ..plain }), Some([4, 3, 4, 4]));
        // At the edge it is moved, and no greater than the image.
        assert_eq!(region([0, 0, 8, 2], (20, 20), CropConfig { square: true, ..plain }), Some([0, 0, 8, 8]));
        assert_eq!(region([0, 0, 20, 2], (20, 5), CropConfig { square: true, ..plain }), Some([0, 0, 20, 5]));
    }
}
