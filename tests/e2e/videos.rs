//! Video files through the program: the same clips as folders of their frames.

use std::path::Path;

use super::Program;
use crate::support::fixture;

/// Class folders of videos, four in each split.
fn videos(program: &Program) {
    let files = [("waves", "b-frames.mp4"), ("waves", "plain.mp4"), ("squares", "full.m4v"), ("squares", "open.mov")];
    for split in ["train", "test"] {
        for (class, name) in files {
            let folder = program.path(&format!("videos/{split}/{class}"));
            std::fs::create_dir_all(&folder).expect("a writable folder");
            std::fs::copy(fixture("parity/video").join(name), folder.join(name)).expect("a writable folder");
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    std::fs::write(path, bytes).expect("a writable folder");
}

#[cfg(feature = "video")]
mod decoded {
    use inarch_core::data::FeatureFile;
    use inarch_core::image::{animation_frames, decode_frames};

    use super::{Program, videos, write};

    /// The videos of a set as folders of frames.
    fn unpack(program: &Program, from: &str, to: &str) {
        for split in ["train", "test"] {
            for class in ["waves", "squares"] {
                let folder = program.path(&format!("{from}/{split}/{class}"));
                for path in inarch_core::file::list(&folder).expect("videos") {
                    let frames = animation_frames(&path).expect("a video");
                    let images = decode_frames(&path, &(0..frames).collect::<Vec<_>>()).expect("frames");
                    let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
                    let clip = program.path(&format!("{to}/{split}/{class}/{stem}"));
                    std::fs::create_dir_all(&clip).expect("a writable folder");
                    for (number, image) in images.iter().enumerate() {
                        image.save(clip.join(format!("{number}.png"))).expect("a writable folder");
                    }
                }
            }
        }
    }

    fn encode(program: &Program, images: &str, more: &[&str]) -> FeatureFile {
        let _ = std::fs::remove_file(program.path("f.safetensors"));
        program.succeed(&[&["encode", "-b", "pocket", "--images", images, "-o", "f.safetensors"][..], more].concat());
        FeatureFile::read(&program.path("f.safetensors")).expect("features")
    }

    #[test]
    fn a_video_is_the_clip_of_its_frames_in_every_verb() {
        let program = Program::new();
        videos(&program);
        unpack(&program, "videos", "frames");
        // Without a word: they can be nothing but clips.
        let eval = program.json(&["eval", "-b", "pocket", "-d", "videos"]);
        assert_eq!(eval["n"], 4);
        let of_frames = program.json(&["eval", "-b", "pocket", "-d", "frames", "--frames", "8"]);
        assert_eq!((&eval["accuracy"], &eval["ece"]), (&of_frames["accuracy"], &of_frames["ece"]));
        for more in [
            &["--frames", "4"][..],
            &["--frames", "4", "--sampling", "uniform", "--clip-views", "3"],
            &["--frames", "3", "--sampling", "dense", "--frame-step", "2", "--clip-views", "2", "--clip-crops", "3"],
        ] {
            let (of_videos, of_frames) = (encode(&program, "videos", more), encode(&program, "frames", more));
            assert_eq!((of_videos.rows(), of_videos.values), (8, of_frames.values), "{more:?}");
        }
        // A store changes nothing, whether it is empty or full.
        let plain = encode(&program, "videos", &["--frames", "4"]).values;
        for _ in 0..2 {
            assert_eq!(encode(&program, "videos", &["--frames", "4", "--store", "1GiB"]).values, plain);
        }

        let fit = ["fit", "-b", "pocket", "-d", "videos", "-m", "temporal-conv", "--frames", "4", "-o", "adapter"];
        program.succeed(&[&fit[..], &["--set", "train.budget={ iterations = 4 }"]].concat());
        let own = program.json(&["eval", "-b", "pocket", "-d", "videos", "-a", "adapter"]);
        assert_eq!(own["n"], 4);
        let video = program.path("videos/test/squares/open.mov").display().to_string();
        let found = program.json(&["predict", "-b", "pocket", "-a", "adapter", &video]);
        assert_eq!(found["images"].as_array().map(Vec::len), Some(1));
        assert_eq!(encode(&program, &video, &["--frames", "4"]).rows(), 1);
    }

    #[test]
    fn videos_stand_beside_folders_and_gifs_and_in_manifests() {
        let program = Program::new();
        videos(&program);
        unpack(&program, "videos", "mixed");
        let video = program.path("videos/test/waves/b-frames.mp4");
        std::fs::copy(&video, program.path("mixed/test/waves/one.mp4")).expect("a writable folder");
        let eval = ["eval", "-b", "pocket", "-d", "mixed"];
        program.fail(&eval, 1, &["one.mp4", "a video among images", "--frames T"]);
        assert_eq!(program.json(&[&eval[..], &["--frames", "4"]].concat())["n"], 5);

        let rows = "path,label,split\nvideos/test/waves/plain.mp4,waves,train\nmixed/test/waves/plain,waves,test\n\
                    videos/test/squares/open.mov,squares,train\nvideos/test/squares/full.m4v,squares,test\n";
        write(&program.path("list.csv"), rows.as_bytes());
        assert_eq!(program.json(&["eval", "-b", "pocket", "-d", "list.csv"])["n"], 2);

        // One that is damaged is named.
        let broken = program.path("videos/test/waves/plain.mp4");
        let bytes = std::fs::read(&broken).expect("the fixture");
        std::fs::write(&broken, &bytes[..bytes.len() / 2]).expect("a writable folder");
        program.fail(&["eval", "-b", "pocket", "-d", "videos"], 1, &["plain.mp4", "cut short"]);
        let path = broken.display().to_string();
        program.fail(&["encode", "-b", "pocket", "--images", &path, "-o", "x.safetensors"], 1, &["cut short"]);
        // One whose frames are damaged is left out as a whole.
        let (start, end) = (bytes.len() / 8, bytes.len() / 2);
        let mut damaged = bytes;
        damaged[start..end].fill(0xFF);
        std::fs::write(&broken, damaged).expect("a writable folder");
        program.fail(&["eval", "-b", "pocket", "-d", "videos"], 1, &["plain.mp4"]);
        let left = program.json(&["eval", "-b", "pocket", "-d", "videos", "--on-bad-image", "skip"]);
        assert_eq!((&left["n"], left["skipped"].as_array().map(Vec::len)), (&3.into(), Some(1)));
    }
}

#[cfg(not(feature = "video"))]
#[test]
fn a_video_without_the_feature_is_named_with_the_way_to_frames() {
    let program = Program::new();
    videos(&program);
    let words = ["plain.mp4", "--features video", "mkdir ", "ffmpeg -i "];
    let video = program.path("videos/test/waves/plain.mp4").display().to_string();
    program.fail(&["predict", "-b", "pocket", "--classes", "a,b", &video], 1, &words);
    program.fail(&["encode", "-b", "pocket", "--images", &video, "-o", "x.safetensors"], 1, &words);
    let rows = "path,label,split\nvideos/test/waves/plain.mp4,waves,train\nvideos/train/waves/plain.mp4,waves,test\n\
                videos/test/squares/open.mov,squares,train\nvideos/test/squares/full.m4v,squares,test\n";
    write(&program.path("list.csv"), rows.as_bytes());
    program.fail(&["eval", "-b", "pocket", "-d", "list.csv"], 1, &words[1..]);
    for more in [&["--frames", "4"][..], &[]] {
        program.fail(&[&["eval", "-b", "pocket", "-d", "videos"][..], more].concat(), 1, &words[1..]);
    }
    // Among images too.
    let image = program.path("photos/test/waves/plain.mp4");
    write(&image, b"whatever it is");
    for name in [
        "photos/test/waves/1.png",
        "photos/test/squares/1.png",
        "photos/train/waves/1.png",
        "photos/train/squares/1.png",
    ] {
        write(&program.path(name), b"no image");
    }
    program.fail(&["eval", "-b", "pocket", "-d", "photos"], 1, &words);
    assert!(!Path::new(&program.path("x.safetensors")).exists());
}
