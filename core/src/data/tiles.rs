//! Slides cut into tiles: a folder of tiles for each slide, which is what clips are read from.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage, imageops};
use rayon::prelude::*;
use serde::Serialize;

use super::dataset::{Dataset, Source};
use super::fresh_folder::fresh_folder;
use crate::error::{Error, Result};
use crate::file;
use crate::image::{ImageAddress, OnBadImage, Slide};

/// Difference between the channels of a pixel from which on it counts as stained. Glass, paper and scanner black are grey.
const STAINED: u8 = 20;

/// How slides are cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileConfig {
    /// Side of a tile as it is written, in pixels.
    pub side: u32,
    /// How many pixels of the slide become one, along each side.
    pub shrink: u32,
    /// The least share of stained pixels that a tile is kept for; 0 keeps all.
    pub tissue: f64,
}

impl Default for TileConfig {
    fn default() -> Self {
        Self { side: 224, shrink: 1, tissue: 0.1 }
    }
}

/// What was cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TileReport {
    /// Slides by split and class.
    pub slides: BTreeMap<String, BTreeMap<String, usize>>,
    /// Tiles that were written.
    pub tiles: usize,
    /// Tiles that were left out, since they show too little tissue.
    pub empty: usize,
    /// Slides that could not be read, where these are left out.
    pub skipped: Vec<String>,
}

/// Cuts every slide of a data set into `target/SPLIT/CLASS/SLIDE/ROW-COLUMN.png`. Tiles lie side by side from the upper left;
/// what is left at the right and below is not a whole tile and is left out. The same slides give the same bytes. `target` must
/// not exist; it appears when all is done. Memory is bounded whatever the size of a slide that is stored in tiles.
///
/// # Errors
/// [`Error::Invalid`] for settings outside their domain, a target that exists, a data set whose images have several labels, a
/// class that cannot name a folder, a slide that is smaller than a tile or shows no tissue; [`Error::BadImage`], unless such
/// slides are left out by `policy`.
pub fn write_tiles(dataset: &Dataset, target: &Path, config: &TileConfig, policy: OnBadImage) -> Result<TileReport> {
    for (name, value, most) in [("side", config.side, 4096), ("shrink", config.shrink, 256)] {
        if !(1..=most).contains(&value) {
            return Err(Error::invalid(name, format!("must be 1 to {most}, found {value}")));
        }
    }
    if !(0.0..=1.0).contains(&config.tissue) {
        return Err(Error::invalid("tissue", format!("must be 0 to 1, found {}", config.tissue)));
    }
    if dataset.multi_label {
        let reason = "its images have several labels each, and a folder stands for one class";
        return Err(Error::invalid(format!("data set `{}`", dataset.name), reason));
    }
    dataset.need_folder_names()?;
    let mut report = TileReport::default();
    let mut jobs = Vec::new();
    let mut taken: HashSet<PathBuf> = HashSet::new();
    for (split, example) in dataset.examples() {
        let Source::Image(path) = &example.source else {
            return Err(Error::invalid(format!("data set `{}`", dataset.name), "it holds no images that could be cut"));
        };
        let class = &dataset.classes[example.label];
        let stem = ImageAddress::of(path).file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let within = Path::new(&split.to_string()).join(class);
        // Slides of different folders may have one name.
        let (mut folder, mut count) = (within.join(&stem), 1);
        while !taken.insert(folder.clone()) {
            count += 1;
            folder = within.join(format!("{stem}.{count}"));
        }
        jobs.push((path.clone(), folder, [split.to_string(), class.clone()]));
    }
    fresh_folder(target, |into| {
        let cut = |(path, folder, _): &(PathBuf, PathBuf, [String; 2])| match cut(path, &into.join(folder), config) {
            Err(Error::BadImage { .. }) if policy == OnBadImage::Skip => {
                // Tiles of the part that could be read are no slide.
                let partial = into.join(folder);
                if partial.exists() { file::remove_folder(&partial).map(|()| None) } else { Ok(None) }
            }
            outcome => outcome.map(Some),
        };
        let counts = jobs.par_iter().map(cut).collect::<Result<Vec<Option<[usize; 2]>>>>()?;
        for ((path, _, [split, class]), counts) in jobs.into_iter().zip(counts) {
            let Some([tiles, empty]) = counts else {
                report.skipped.push(path.display().to_string());
                continue;
            };
            report.tiles += tiles;
            report.empty += empty;
            *report.slides.entry(split).or_default().entry(class).or_default() += 1;
        }
        if report.slides.is_empty() {
            return Err(Error::invalid("slides", format!("none of the {} can be read", report.skipped.len())));
        }
        Ok(report)
    })
}

/// Cuts one slide; gives the number of tiles that were written and left out.
fn cut(path: &Path, folder: &Path, config: &TileConfig) -> Result<[usize; 2]> {
    let invalid = |reason: String| Error::invalid(format!("slide `{}`", path.display()), reason);
    let mut slide = Slide::open(path)?;
    let (width, height) = slide.size();
    let step = config.side * config.shrink;
    let (columns, rows) = (width / step, height / step);
    if columns == 0 || rows == 0 {
        return Err(invalid(format!(
            "its {width}x{height} pixels are fewer than a tile's {step}x{step}; take a smaller side"
        )));
    }
    file::create_folder(folder)?;
    let digits = columns.max(rows).to_string().len();
    let (mut written, mut empty) = (0, 0);
    for row in 0..rows {
        for column in 0..columns {
            let region = slide.region([column * step, row * step, step, step])?;
            let tile = match config.shrink {
                1 => region,
                _ => imageops::thumbnail(&region, config.side, config.side),
            };
            if stained(&tile) < config.tissue {
                empty += 1;
                continue;
            }
            let target = folder.join(format!("{row:0digits$}-{column:0digits$}.png"));
            let save = tile.save_with_format(&target, ImageFormat::Png);
            save.map_err(|error| Error::io("write", &target)(std::io::Error::other(error)))?;
            written += 1;
        }
    }
    if written == 0 {
        let reason = format!(
            "none of its {empty} tiles has {} % of coloured pixels; grey slides need `--tissue 0`",
            100.0 * config.tissue
        );
        return Err(invalid(reason));
    }
    Ok([written, empty])
}

/// The share of stained pixels.
fn stained(tile: &RgbImage) -> f64 {
    let is_stained = |pixel: &&image::Rgb<u8>| {
        let [red, green, blue] = pixel.0;
        red.max(green).max(blue) - red.min(green).min(blue) >= STAINED
    };
    tile.pixels().filter(is_stained).count() as f64 / f64::from(tile.width() * tile.height()).max(1.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{Rgb, RgbImage};

    use super::{TileConfig, TileReport, write_tiles};
    use crate::data::open_dataset;
    use crate::file;
    use crate::image::{OnBadImage, decode_image};

    /// Glass with a stained square whose colours tell where it is.
    fn slide(path: &Path) {
        let glass = RgbImage::from_fn(45, 33, |x, y| match (10..30).contains(&x) && (8..24).contains(&y) {
            true => Rgb([200, x as u8, y as u8]),
            false => Rgb([240; 3]),
        });
        file::create_folder(path.parent().expect("a folder")).expect("created");
        glass.save(path).expect("written");
    }

    #[test]
    fn tiles_with_tissue_are_written_and_tell_their_places() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["train/a/p1/s.png", "train/a/p2/s.png", "train/b/s.png", "test/b/s.tif"] {
            slide(&folder.path().join("slides").join(name));
        }
        let dataset = open_dataset(&folder.path().join("slides"), None).expect("a data set");
        let target = folder.path().join("tiles");
        let config = TileConfig { side: 8, shrink: 1, tissue: 0.5 };
        let report = write_tiles(&dataset, &target, &config, OnBadImage::Fail).expect("slides");
        // Rows 1 and 2 of four; of columns 1 to 3 the first has its stain from pixel 10 on.
        assert_eq!((report.tiles, report.empty), (4 * 6, 4 * (4 * 5 - 6)));
        assert_eq!(report.slides["train"]["a"], 2);
        for name in ["train/a/s", "train/a/s.2", "test/b/s"] {
            assert_eq!(file::list(&target.join(name)).expect("a folder").len(), 6, "{name}");
        }
        let tile = decode_image(&target.join("test/b/s/2-3.png")).expect("a tile");
        assert_eq!((tile.dimensions(), tile.get_pixel(1, 2).0), ((8, 8), [200, 25, 18]));

        let halves = folder.path().join("halves");
        let shrunk = TileConfig { side: 8, shrink: 2, tissue: 0.0 };
        let TileReport { tiles, empty, .. } =
            write_tiles(&dataset, &halves, &shrunk, OnBadImage::Fail).expect("slides");
        assert_eq!((tiles, empty), (4 * 2 * 2, 0));
        assert_eq!(decode_image(&halves.join("test/b/s/0-1.png")).expect("a tile").get_pixel(0, 4).0, [200, 17, 9]);
    }

    #[test]
    fn slides_of_one_name_have_folders_of_their_own_and_classes_name_folders() {
        const SLIDES: [&str; 5] = ["p1/s.a.png", "p2/s.a.png", "p1/s.b.png", "p2/s.b.png", "p3/s.a.2.png"];
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        SLIDES.iter().chain(["other.png"].iter()).for_each(|name| slide(&path(name)));
        let cut = |class: &str| {
            let rows: String = SLIDES.iter().map(|name| format!("{name},x,train\n")).collect();
            std::fs::write(path("list.csv"), format!("path,label,split\n{rows}other.png,{class},train\n"))
                .expect("written");
            let dataset = open_dataset(&path("list.csv"), None).expect("a data set");
            let config = TileConfig { side: 8, shrink: 1, tissue: 0.5 };
            write_tiles(&dataset, &path("tiles"), &config, OnBadImage::Fail)
        };
        for class in ["n/a", "../up", "/up", ".hidden"] {
            let error = cut(class).expect_err(class).to_string();
            assert!(error.contains(&format!("`{class}` cannot name a folder")), "{error}");
        }
        assert!(!path("tiles").exists());
        assert_eq!(cut("y").expect("slides").tiles, 6 * 6);
        let made = file::list(&path("tiles/train/x")).expect("folders");
        let names: Vec<_> = made.iter().map(|made| made.file_name().unwrap_or_default().to_string_lossy()).collect();
        assert_eq!(names, ["s.a", "s.a.2", "s.a.2.2", "s.b", "s.b.2"]);
        assert!(made.iter().all(|made| file::list(made).expect("tiles").len() == 6));
    }

    #[test]
    fn slides_without_a_tile_are_named_and_nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        slide(&folder.path().join("slides/train/a/s.png"));
        slide(&folder.path().join("slides/train/b/s.png"));
        let dataset = open_dataset(&folder.path().join("slides"), None).expect("a data set");
        let target = folder.path().join("tiles");
        let fault = |side, shrink, tissue| {
            let error = write_tiles(&dataset, &target, &TileConfig { side, shrink, tissue }, OnBadImage::Fail)
                .expect_err("no tile");
            assert!(!target.exists());
            error.to_string()
        };
        assert!(fault(8, 5, 0.1).contains("45x33"), "{}", fault(8, 5, 0.1));
        assert!(fault(30, 1, 1.0).contains("--tissue 0"), "{}", fault(30, 1, 1.0));
        assert!(fault(0, 1, 0.1).contains("side"));
        assert!(fault(8, 1, f64::NAN).contains("tissue"));
    }
}
