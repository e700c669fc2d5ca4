//! Medical data as a team meets it: DICOM files among class folders, patients, rare classes, several findings an image.

mod answers;
mod classes;
mod findings;
mod patients;
mod scans;

use image::{Rgb, RgbImage};
use serde_json::Value;

use super::Program;

/// Images whose left half says one thing and whose right half another.
fn halves(program: &Program, path: &str, left: bool, right: bool, number: u32) {
    let path = program.path(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    let shade = |number: u32| (60 + number * 7 % 40) as u8;
    let image = RgbImage::from_fn(32, 32, |x, y| {
        let noise = ((x * 31 + y * 17 + number * 13) % 23) as u8;
        match x < 16 {
            true if left => Rgb([220 - noise, 20, noise]),
            false if right => Rgb([noise, 30, 230 - noise]),
            _ => Rgb([shade(number) + noise; 3]),
        }
    });
    image.save(path).expect("a writable folder");
}

fn share(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}
