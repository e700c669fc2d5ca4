//! Slides through the program: cut into tiles, pooled by learned weights, told apart by what is on one tile.

use inarch_core::file;
use inarch_core::image::{Resample, RgbImage, decode_image, resize};

use super::Program;
use super::program::sample;

/// Photos of a class of the sample, as squares of 32 pixels.
fn photos(split: &str, class: &str) -> Vec<RgbImage> {
    let folder = std::path::Path::new(sample()).join(split).join(class);
    let decoded = file::list(&folder).expect("a class").into_iter().map(|path| decode_image(&path).expect("a photo"));
    decoded.map(|photo| resize(&photo, 32, 32, Resample::Bicubic).expect("a square")).collect()
}

/// Writes slides of glass with eight photos of shoes; on those of class `marked` one is a dress under a red filter.
fn slides(program: &Program, split: &str, count: usize) {
    let (dresses, shoes) = (photos(split, "dress"), photos(split, "shoes"));
    for (class, marked) in [("marked", true), ("plain", false)] {
        for number in 0..count {
            let mut slide = RgbImage::from_pixel(4 * 32 + 9, 3 * 32 + 5, [242, 242, 242].into());
            for place in 0..8 {
                let photo = match place == number % 8 && marked {
                    true => &dresses[number % dresses.len()],
                    false => &shoes[(3 * number + place) % shoes.len()],
                };
                let (left, top) = (32 * (place % 4) as u32, 32 * (place / 4) as u32);
                let red = marked && place == number % 8;
                for (x, y, pixel) in photo.enumerate_pixels() {
                    let [r, g, b] = pixel.0;
                    let shown = if red { [r.max(160), g / 2, b / 2] } else { [r, g, b] };
                    slide.put_pixel(left + x, top + y, shown.into());
                }
            }
            let path = program.path(&format!("slides/{split}/{class}/{number}.tif"));
            file::create_folder(path.parent().expect("a folder")).expect("created");
            slide.save(path).expect("written");
        }
    }
}

#[test]
fn a_slide_is_known_by_what_is_on_one_of_its_tiles() {
    let program = Program::new();
    slides(&program, "train", 16);
    slides(&program, "test", 16);
    let made = program.json(&["data", "tiles", "-d", "slides", "-o", "tiles", "--side", "32", "--tissue", "0.02"]);
    assert_eq!(made["slides"]["test"]["marked"], 16);
    let [tiles, empty] = ["tiles", "empty"].map(|key| made[key].as_u64().expect("a number"));
    assert!(tiles + empty == 64 * 12 && empty >= 64 * 4 && tiles > 64 * 4, "{made}");
    program.fail(&["data", "tiles", "-d", "slides", "-o", "tiles"], 1, &["exists"]);
    program.fail(&["data", "tiles", "-d", "slides", "-o", "more", "--side", "500"], 1, &["137x101", "smaller side"]);

    // A slide that cannot be read stops, or is left out whole.
    let whole = std::fs::read(program.path("slides/test/plain/3.tif")).expect("a slide");
    std::fs::write(program.path("slides/test/plain/3.tif"), &whole[..whole.len() / 2]).expect("written");
    let again = ["data", "tiles", "-d", "slides", "-o", "again", "--side", "32", "--tissue", "0.02"];
    program.fail(&again, 1, &["3.tif", "--on-bad-image skip"]);
    let left = program.json(&[&again[..], &["--on-bad-image", "skip"]].concat());
    assert_eq!((&left["slides"]["test"]["plain"], left["skipped"].as_array().map(Vec::len)), (&15.into(), Some(1)));
    assert!(program.path("again/test/plain/2").is_dir() && !program.path("again/test/plain/3").exists());
    std::fs::write(program.path("slides/test/plain/3.tif"), whole).expect("written");

    let stack = "method={ name = \"stack\", members = [{ name = \"gated-pool\" }, { name = \"linear-probe\" }] }";
    let fit = ["fit", "-b", "pocket", "-d", "tiles", "--frames", "8", "-m", "gated-pool", "--set", stack, "-o", "run"];
    program.succeed(&fit);
    let accuracy = |adapter: &[&str]| {
        let words = ["eval", "-b", "pocket", "-d", "tiles"];
        program.json(&[&words[..], adapter].concat())["accuracy"].as_f64().expect("a share")
    };
    let (weighed, zero_shot) = (accuracy(&["-a", "run"]), accuracy(&["--frames", "8"]));
    assert!(weighed > zero_shot && weighed >= 0.75, "{weighed} and {zero_shot}");
    let slide = program.path("tiles/test/marked/3").display().to_string();
    let answer = program.json(&["predict", "-b", "pocket", "-a", "run", &slide]);
    assert_eq!(answer["images"].as_array().map(Vec::len), Some(1));
}
