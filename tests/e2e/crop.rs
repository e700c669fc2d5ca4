//! `inarch data crop`: objects of a Pascal VOC set as a folder of class folders.

use std::collections::BTreeSet;
use std::path::Path;

use image::{Rgb, RgbImage};

use super::Program;
use crate::support::data_folder;

/// A VOC folder of `count` images; image `i` has a red square at `(4, 6)` of side `i + 2`, and a blue one.
fn voc(program: &Program, count: u32) {
    for folder in ["voc/Annotations", "voc/JPEGImages"] {
        std::fs::create_dir_all(program.path(folder)).expect("a writable folder");
    }
    for number in 0..count {
        let side = number + 2;
        let mut image = RgbImage::from_pixel(40, 30, Rgb([9, 9, 9]));
        for (x, y) in (0..side).flat_map(|x| (0..side).map(move |y| (x, y))) {
            image.put_pixel(4 + x, 6 + y, Rgb([255, 0, 0]));
            image.put_pixel(30 + x % 5, 20 + y % 5, Rgb([0, 0, 255]));
        }
        // Lossless under the name that the layout asks for; the content tells its format.
        let path = program.path(&format!("voc/JPEGImages/image {number}.jpg"));
        image.save_with_format(&path, image::ImageFormat::Png).expect("a writable folder");
        let object = |name: &str, sides: [u32; 4]| {
            let [left, top, right, bottom] = sides;
            format!(
                "<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>\
                 <ymax>{bottom}</ymax></bndbox></object>"
            )
        };
        let red = object("red square", [5, 7, 4 + side, 6 + side]);
        let none = object("blue", [50, 3, 60, 9]);
        let text = format!("<annotation><size><width>40</width><height>30</height></size>{red}{none}</annotation>");
        std::fs::write(program.path(&format!("voc/Annotations/image {number}.xml")), text).expect("a writable folder");
    }
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in inarch_core::file::list(&path).expect("a folder") {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.insert(entry.strip_prefix(folder).expect("inside").display().to_string());
            }
        }
    }
    found
}

#[test]
fn boxes_become_class_folders() {
    let program = Program::new();
    voc(&program, 12);
    let found = program.json(&["data", "crop", "voc", "-o", "crops"]);
    assert_eq!((found["images"].as_u64(), found["left_out"].as_u64()), (Some(12), Some(12)));
    let written = files(&program.path("crops"));
    assert_eq!(written.len(), 12);
    for name in &written {
        let number: u32 = name
            .split("image ")
            .nth(1)
            .and_then(|rest| rest.split('-').next())
            .expect("a name")
            .parse()
            .expect("a number");
        let crop = image::open(program.path("crops").join(name)).expect("a crop").to_rgb8();
        assert_eq!(crop.dimensions(), (number + 2, number + 2), "{name}");
        assert!(crop.pixels().all(|pixel| *pixel == Rgb([255, 0, 0])), "{name}");
    }
    // The same folder gives the same bytes.
    program.succeed(&["data", "crop", "voc", "-o", "again"]);
    assert_eq!(written, files(&program.path("again")));
    for name in &written {
        let [first, second] =
            ["crops", "again"].map(|folder| std::fs::read(program.path(folder).join(name)).expect("a crop"));
        assert!(first == second, "{name}");
    }
    program.fail(&["data", "crop", "voc", "-o", "crops"], 1, &["crops", "exists"]);
    // Lists decide where there are any, and leave out what they do not name.
    std::fs::create_dir_all(program.path("voc/ImageSets/Main")).expect("a writable folder");
    for (split, lines) in [("train", "image_no\n"), ("test", "")] {
        std::fs::write(program.path(&format!("voc/ImageSets/Main/{split}.txt")), lines).expect("a writable folder");
    }
    program.fail(&["data", "crop", "voc", "-o", "listed"], 1, &["no image"]);
    assert!(!program.path("listed").exists());
}

#[test]
fn annotations_that_are_wrong_are_named_and_nothing_is_written() {
    for (text, words) in [
        ("<annotation>", "image 0.xml"),
        ("<annotation><object><name>../x</name></object></annotation>", "name a folder"),
        ("<annotation><object><name>x</name><bndbox><xmin>a</xmin></bndbox></object></annotation>", "`xmin`"),
        ("<annotation><size><width>4</width><height>3</height></size></annotation>", "4 x 3"),
        ("<!DOCTYPE x [<!ENTITY a \"b\">]><annotation>&a;</annotation>", "image 0.xml"),
    ] {
        let program = Program::new();
        voc(&program, 3);
        std::fs::write(program.path("voc/Annotations/image 0.xml"), text).expect("a writable folder");
        program.fail(&["data", "crop", "voc", "-o", "crops"], 1, &[words]);
        let left: Vec<_> = inarch_core::file::list(&program.path(".")).expect("a folder");
        assert!(left.iter().all(|path| path.ends_with("voc") || !path.to_string_lossy().contains("crops")), "{left:?}");
    }
    let program = Program::new();
    voc(&program, 2);
    std::fs::remove_file(program.path("voc/JPEGImages/image 1.jpg")).expect("a file");
    program.fail(&["data", "crop", "voc", "-o", "crops"], 1, &["image 1", "JPEGImages"]);
    program.fail(&["data", "crop", "nowhere", "-o", "crops"], 1, &["nowhere"]);
}

#[test]
fn blood_cells_are_cut_out_by_image() {
    let program = Program::new();
    let source = data_folder().join("bccd/BCCD").display().to_string();
    let found = program.json(&["data", "crop", &source, "--square", "--smallest", "8", "-o", "cells"]);
    assert_eq!(found["images"], 364);
    let total: u64 = found["crops"]
        .as_object()
        .expect("splits")
        .values()
        .flat_map(|split| split.as_object().expect("classes").values().map(|count| count.as_u64().expect("a number")))
        .sum();
    assert_eq!(total + found["left_out"].as_u64().expect("a number"), 4888);
    let image =
        |name: &String| name.rsplit('/').next().and_then(|name| name.rsplit_once('-')).expect("a crop").0.to_string();
    let of =
        |split: &str| -> BTreeSet<String> { files(&program.path("cells").join(split)).iter().map(image).collect() };
    assert!(of("train").is_disjoint(&of("test")) && of("train").is_disjoint(&of("val")));
}
