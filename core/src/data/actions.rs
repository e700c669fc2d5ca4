//! A generated set of clips in which only the order of frames tells the class.
//!
//! Two real cut-outs stand on a coloured ground. In each clip one or both of them do one of ten things. Every scene is shown
//! twice, forwards as a clip of one class and backwards as a clip of its opposite: both hold the same frames, so neither a
//! frame nor the unordered set of frames tells the two apart. Things stand anywhere, turned and sized by chance, so that a
//! single frame says little about the kind of movement either.

use std::path::Path;
use std::sync::Arc;

use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, GrayImage, ImageFormat, RgbImage, Rgba, RgbaImage, imageops};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::dataset::Source;
use super::fresh_folder::{check_absent, fresh_folder};
use super::idx::read_idx_images;
use super::open::open_dataset;
use super::scene::{Ground, Pose, draw};
use crate::error::{Error, Result};
use crate::file;
use crate::image::decode_image;
use crate::seed::Seed;

/// The classes, each beside its opposite: what the second shows is what the first shows, backwards.
pub const ACTIONS: [[&str; 2]; 5] = [
    ["moving right", "moving left"],
    ["moving down", "moving up"],
    ["turning clockwise", "turning counterclockwise"],
    ["growing", "shrinking"],
    ["colliding", "parting"],
];

/// More cut-outs of one source than a set has use for.
const MOST_CUTOUTS: usize = 400;
/// Side of a cut-out in pixels.
const CUTOUT: u32 = 64;

/// What is generated.
#[derive(Debug, Clone, Serialize)]
pub struct ActionConfig {
    /// Training clips of each class.
    pub train: usize,
    /// Test clips of each class.
    pub test: usize,
    /// Frames of a clip, at least 2.
    pub frames: usize,
    /// Side of a frame in pixels.
    pub side: u32,
    /// Whether a clip is one animated GIF, and not a folder of PNG files.
    pub gif: bool,
    /// Decides everything.
    pub seed: u64,
}

impl Default for ActionConfig {
    fn default() -> Self {
        Self { train: 32, test: 40, frames: 24, side: 64, gif: false, seed: 1 }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionReport {
    /// Classes.
    pub classes: usize,
    /// Training clips.
    pub train: usize,
    /// Test clips.
    pub test: usize,
    /// Cut-outs that training clips show.
    pub train_cutouts: usize,
    /// Cut-outs that test clips show, none of which training clips do.
    pub test_cutouts: usize,
}

/// Writes `target/{train,test}/CLASS/NNN`, each a folder of frames or a GIF. Cut-outs come from `sources`: idx files of grey
/// images (`*-ubyte`, `.gz`), taken as white on nothing and coloured, or data sets of photos, whose plain ground is taken away.
/// The same sources and settings give the same bytes.
///
/// # Errors
/// [`Error::Invalid`] for settings outside their domain or a target that exists, and faults of the sources.
pub fn write_actions(sources: &[&Path], target: &Path, config: &ActionConfig) -> Result<ActionReport> {
    for (name, value, least, most) in [
        ("frames", config.frames, 2, 1000),
        ("side", config.side as usize, 16, 1024),
        ("train", config.train, 1, 100_000),
        ("test", config.test, 1, 100_000),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Error::invalid(name, format!("must be {least} to {most}, found {value}")));
        }
    }
    check_absent(target)?;
    let cutouts = sources.iter().map(|source| cutouts(source, config.seed)).collect::<Result<Vec<_>>>()?;
    // Of every source one half is learned from and the other tested on.
    let mut halves = [Vec::new(), Vec::new()];
    for own in cutouts {
        let middle = own.len() / 2;
        halves[1].extend_from_slice(&own[middle..]);
        halves[0].extend_from_slice(&own[..middle]);
    }
    if halves.iter().any(|half| half.len() < 2) {
        return Err(Error::invalid("sources", "at least four images are needed, from which cut-outs are made"));
    }
    let seed = Seed::new(config.seed).split("actions");
    fresh_folder(target, |into| {
        let jobs: Vec<(&str, &[Arc<RgbaImage>], usize, usize)> = [("train", config.train), ("test", config.test)]
            .into_iter()
            .zip(&halves)
            .flat_map(|((split, count), half)| {
                (0..ACTIONS.len())
                    .flat_map(move |pair| (0..count).map(move |scene| (split, half.as_slice(), pair, scene)))
            })
            .collect();
        jobs.par_iter().try_for_each(|(split, cutouts, pair, scene)| {
            let seed = seed.split(split).split(pair).split(scene);
            let mut frames = film(cutouts, *pair, config, seed);
            for name in ACTIONS[*pair] {
                let path = into.join(split).join(name).join(format!("{scene:03}"));
                write(&frames, &path, config.gif)?;
                frames.reverse();
            }
            Ok::<(), Error>(())
        })?;
        Ok(ActionReport {
            classes: 2 * ACTIONS.len(),
            train: 2 * ACTIONS.len() * config.train,
            test: 2 * ACTIONS.len() * config.test,
            train_cutouts: halves[0].len(),
            test_cutouts: halves[1].len(),
        })
    })
}

/// The frames of a scene, forwards.
fn film(cutouts: &[Arc<RgbaImage>], pair: usize, config: &ActionConfig, seed: Seed) -> Vec<RgbImage> {
    let mut rng = seed.rng();
    let first = rng.random_range(0..cutouts.len());
    // Another one than the first.
    let second = (first + rng.random_range(1..cutouts.len())) % cutouts.len();
    let ground = Ground([[0.0f32; 3]; 4].map(|corner| corner.map(|_| rng.random_range(10.0..60.0))));
    let scene = Scene::draw(pair, &mut rng);
    let shown = |frame: usize| {
        let mut canvas = ground.canvas(config.side);
        let poses = scene.at(frame as f32 / (config.frames - 1) as f32);
        draw(&mut canvas, &cutouts[second], poses[1]);
        draw(&mut canvas, &cutouts[first], poses[0]);
        canvas
    };
    (0..config.frames).map(shown).collect()
}

/// Two things, where each begins and where it ends.
struct Scene {
    poses: [[Pose; 2]; 2],
}

impl Scene {
    /// Draws a scene of a pair of classes, forwards.
    fn draw(pair: usize, rng: &mut ChaCha8Rng) -> Self {
        // What does not act is small; where both act they are of one kind of size.
        let sizes = if pair < 4 { [0.38..0.5, 0.15..0.22] } else { [0.3..0.4, 0.3..0.4] };
        let [mut actor, mut other] = sizes.map(|size| {
            let centre = [rng.random_range(0.25..0.75), rng.random_range(0.25..0.75)];
            let angle = rng.random_range(0.0..std::f32::consts::TAU);
            [Pose { centre, size: rng.random_range(size), angle }; 2]
        });
        let way = rng.random_range(0.4..0.55);
        let low = rng.random_range(0.18..(0.82 - way));
        match pair {
            0 | 1 => {
                actor[0].centre[pair] = low;
                actor[1].centre[pair] = low + way;
            }
            2 => actor[1].angle += rng.random_range(1.6..2.8),
            3 => {
                actor[0].size = rng.random_range(0.2..0.3);
                actor[1].size = actor[0].size * rng.random_range(1.9..2.4);
            }
            _ => {
                // Along a line of any direction, towards its middle from both sides.
                let (sine, cosine) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
                let middle = [rng.random_range(0.42..0.58), rng.random_range(0.42..0.58)];
                for (things, side) in [(&mut actor, 1.0), (&mut other, -1.0)] {
                    for (pose, distance) in things.iter_mut().zip([0.34, 0.1]) {
                        pose.centre = [middle[0] + side * distance * cosine, middle[1] + side * distance * sine];
                    }
                }
            }
        }
        Self { poses: [actor, other] }
    }

    /// Where things are at a time from 0 to 1.
    fn at(&self, time: f32) -> [Pose; 2] {
        self.poses.map(|[begin, end]| {
            let between = |from: f32, to: f32| from + (to - from) * time;
            Pose {
                centre: [between(begin.centre[0], end.centre[0]), between(begin.centre[1], end.centre[1])],
                size: between(begin.size, end.size),
                angle: between(begin.angle, end.angle),
            }
        })
    }
}

fn write(frames: &[RgbImage], path: &Path, gif: bool) -> Result<()> {
    let fault = |error: image::ImageError| Error::invalid("frame", error.to_string());
    if gif {
        let mut bytes = Vec::new();
        {
            let mut encoder = GifEncoder::new(&mut bytes);
            for frame in frames {
                let whole = image::DynamicImage::from(frame.clone()).to_rgba8();
                let delay = Delay::from_numer_denom_ms(80, 1);
                encoder.encode_frame(Frame::from_parts(whole, 0, 0, delay)).map_err(fault)?;
            }
        }
        return file::write(&path.with_extension("gif"), &bytes);
    }
    for (number, frame) in frames.iter().enumerate() {
        let mut bytes = std::io::Cursor::new(Vec::new());
        frame.write_to(&mut bytes, ImageFormat::Png).map_err(fault)?;
        file::write(&path.join(format!("{number:03}.png")), bytes.get_ref())?;
    }
    Ok(())
}

/// Cut-outs of a source, in a drawn order.
fn cutouts(source: &Path, seed: u64) -> Result<Vec<Arc<RgbaImage>>> {
    let seed = Seed::new(seed).split("cutouts");
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if source.is_file() && (name.contains("ubyte") || name.ends_with(".gz")) {
        let images = read_idx_images(source)?;
        let chosen = seed.order(images.len()).into_iter().take(MOST_CUTOUTS);
        return Ok(chosen.map(|at| Arc::new(coloured(&images[at], seed.split(at)))).collect());
    }
    let dataset = open_dataset(source, None)?;
    let paths: Vec<&Path> = dataset
        .examples()
        .filter_map(|(_, example)| match &example.source {
            Source::Image(path) => Some(path.as_path()),
            Source::Bytes(..) | Source::Clip(_) | Source::Row(_) => None,
        })
        .collect();
    if paths.is_empty() {
        return Err(Error::malformed("source of cut-outs", source, "it holds no images"));
    }
    let chosen: Vec<usize> = seed.order(paths.len()).into_iter().take(MOST_CUTOUTS).collect();
    chosen.par_iter().map(|at| Ok(Arc::new(cut_out(&decode_image(paths[*at])?)))).collect()
}

/// A grey image as a colour that covers as much as it is bright.
fn coloured(image: &GrayImage, seed: Seed) -> RgbaImage {
    let mut rng = seed.rng();
    let [red, green, blue] = [(); 3].map(|()| rng.random_range(120..=255));
    let large = imageops::resize(image, CUTOUT, CUTOUT, imageops::FilterType::Triangle);
    RgbaImage::from_fn(CUTOUT, CUTOUT, |x, y| Rgba([red, green, blue, large.get_pixel(x, y).0[0]]))
}

/// The middle of a photo without what looks like its border: the farther a pixel's colour from the border's mean, the more
/// it covers; outside of an ellipse nothing does.
fn cut_out(photo: &RgbImage) -> RgbaImage {
    let side = photo.width().min(photo.height());
    let (left, top) = ((photo.width() - side) / 2, (photo.height() - side) / 2);
    let square = imageops::crop_imm(photo, left, top, side, side).to_image();
    let small = imageops::resize(&square, CUTOUT, CUTOUT, imageops::FilterType::Triangle);
    let on_border = |x: u32, y: u32| x.min(y) < 3 || x.max(y) + 3 >= CUTOUT;
    let (mut sum, mut count) = ([0.0f32; 3], 0.0f32);
    for (_, _, pixel) in small.enumerate_pixels().filter(|(x, y, _)| on_border(*x, *y)) {
        sum.iter_mut().zip(pixel.0).for_each(|(sum, value)| *sum += f32::from(value));
        count += 1.0;
    }
    let border = sum.map(|sum| sum / count);
    RgbaImage::from_fn(CUTOUT, CUTOUT, |x, y| {
        let pixel = small.get_pixel(x, y).0;
        let distance =
            pixel.iter().zip(border).map(|(value, mean)| (f32::from(*value) - mean).powi(2)).sum::<f32>().sqrt();
        let place = |at: u32| (at as f32 + 0.5) / CUTOUT as f32 * 2.0 - 1.0;
        let inside = place(x).powi(2) + place(y).powi(2) < 0.95;
        let cover = if inside { ((distance - 20.0) / 30.0).clamp(0.0, 1.0) } else { 0.0 };
        Rgba([pixel[0], pixel[1], pixel[2], (255.0 * cover) as u8])
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{Rgb, RgbImage};

    use super::{ACTIONS, ActionConfig, write_actions};
    use crate::data::{ClipConfig, DataOptions, Source, open_dataset, open_dataset_with};
    use crate::image::{decode_frames, decode_image};

    /// Photos of a bright disc on a plain ground.
    fn photos(folder: &Path) {
        for number in 0..8u8 {
            let photo = RgbImage::from_fn(40, 30, |x, y| {
                let inside = (x as i32 - 20).pow(2) + (y as i32 - 15).pow(2) < 60 + 5 * i32::from(number);
                Rgb(if inside { [200, 30 * number, 40] } else { [10, 10, 10] })
            });
            let path = folder.join(["a", "b"][usize::from(number % 2)]).join(format!("{number}.png"));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            photo.save(path).expect("written");
        }
    }

    #[test]
    fn opposites_show_the_same_frames_backwards_and_bytes_repeat() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        photos(&root.join("photos"));
        let config = ActionConfig { train: 2, test: 1, frames: 5, side: 32, ..ActionConfig::default() };
        let report = write_actions(&[&root.join("photos")], &root.join("set"), &config).expect("written");
        assert_eq!((report.classes, report.train, report.test, report.train_cutouts), (10, 20, 10, 4));
        let frame = |class: &str, scene: &str, number: usize| {
            decode_image(&root.join("set/train").join(class).join(scene).join(format!("{number:03}.png")))
                .expect("read")
        };
        for [forwards, backwards] in ACTIONS {
            for number in 0..5 {
                assert_eq!(frame(forwards, "001", number), frame(backwards, "001", 4 - number), "{forwards} {number}");
            }
            assert_ne!(frame(forwards, "001", 0), frame(forwards, "001", 4), "{forwards} does something");
            assert_ne!(frame(forwards, "000", 0), frame(forwards, "001", 0));
        }
        let wanted = DataOptions { clips: Some(ClipConfig::default()), ..DataOptions::default() };
        let clips = open_dataset_with(&root.join("set"), &wanted).expect("clips");
        assert_eq!((clips.train.len(), clips.test.len(), clips.classes.len()), (20, 10, 10));

        let gif = ActionConfig { gif: true, ..config.clone() };
        write_actions(&[&root.join("photos")], &root.join("gifs"), &gif).expect("written");
        let moving = open_dataset(&root.join("gifs"), None).expect("clips");
        let Source::Clip(clip) = &moving.train[0].source else { panic!("a GIF that moves is a clip") };
        assert_eq!((clip.len(), moving.clips.is_some()), (5, true));
        let shown = decode_frames(clip.path(), &[4]).expect("decoded").remove(0);
        let exact = frame(&moving.classes[moving.train[0].label], "000", 4);
        let apart = |left: &RgbImage, right: &RgbImage| {
            let differences = left.as_raw().iter().zip(right.as_raw()).map(|(left, right)| left.abs_diff(*right));
            differences.map(f64::from).sum::<f64>() / left.as_raw().len() as f64
        };
        assert!(apart(&shown, &exact) < 4.0, "256 colours are near the drawn ones: {}", apart(&shown, &exact));

        write_actions(&[&root.join("photos")], &root.join("again"), &config).expect("written");
        let bytes = |set: &str| std::fs::read(root.join(set).join("test/growing/000/003.png")).expect("read");
        assert_eq!(bytes("set"), bytes("again"));
        let error = write_actions(&[&root.join("photos")], &root.join("again"), &config).expect_err("exists");
        assert!(error.to_string().contains("it exists"));
        let one = ActionConfig { frames: 1, ..config };
        assert!(
            write_actions(&[&root.join("photos")], &root.join("new"), &one)
                .expect_err("still")
                .to_string()
                .contains("frames")
        );
    }
}
