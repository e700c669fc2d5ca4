//! Which frames of a clip a model sees.

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::clip::Picture;
use super::dataset::Source;
use crate::error::{Error, Result};
use crate::image::{CropPlace, View};
use crate::seed::Seed;

/// More frames than any model is shown at once.
const MOST_FRAMES: usize = 1024;
/// More views than anyone averages.
const MOST_VIEWS: usize = 64;

/// How frames are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameSampling {
    /// The middle of each of as many equal segments as there are frames, in training too.
    Uniform,
    /// As uniform; in training a random frame of each segment (TSN: Wang et al., 2016, arXiv 1608.00859).
    #[default]
    Segment,
    /// Frames `stride` apart, from a random start in training and from the middle otherwise; past the end the last one is
    /// held.
    Dense,
}

/// How clips are read: the frames of one row of a batch, and how many such rows a test averages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipConfig {
    /// Frames that a model sees of a clip, at once.
    pub frames: usize,
    /// How they are chosen.
    pub sampling: FrameSampling,
    /// With dense sampling, the step between frames.
    pub stride: usize,
    /// Choices of frames that are averaged in a test.
    pub views: usize,
    /// Crops of each frame that are averaged in a test: 1, the centre, or 3, along the longer side of the frame.
    #[serde(skip_serializing_if = "is_one")]
    pub crops: usize,
}

/// Adapters of one crop are written as before there were others.
fn is_one(crops: &usize) -> bool {
    *crops == 1
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self { frames: 8, sampling: FrameSampling::Segment, stride: 4, views: 1, crops: 1 }
    }
}

/// What frames are chosen for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// A test, in one of its views.
    Test(usize),
    /// Training, by a draw.
    Train(Seed),
}

impl ClipConfig {
    /// Whether training sees other frames each time.
    pub fn draws(&self) -> bool {
        self.sampling != FrameSampling::Uniform
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("clips.frames", self.frames, MOST_FRAMES),
            ("clips.stride", self.stride, usize::MAX),
            ("clips.views", self.views, MOST_VIEWS),
        ] {
            if value == 0 || value > most {
                return Err(Error::invalid(name, format!("must be 1 to {most}, found {value}")));
            }
        }
        if ![1, CropPlace::ALL.len()].contains(&self.crops) {
            let reason = format!("must be 1, the centre, or {}, found {}", CropPlace::ALL.len(), self.crops);
            return Err(Error::invalid("clips.crops", reason));
        }
        Ok(())
    }

    /// Views that a test averages: choices of frames, each in all crops.
    pub fn test_views(&self) -> usize {
        self.views * self.crops
    }

    /// Which frames a view of a test shows, and which part of them; the first view shows the centre.
    pub fn test_view(&self, view: usize) -> (Purpose, View) {
        let crops = self.crops.clamp(1, CropPlace::ALL.len());
        let shown = match CropPlace::ALL[view % crops] {
            CropPlace::Centre => View::Centre,
            place => View::Crop(place),
        };
        (Purpose::Test(view / crops), shown)
    }

    /// Which of `length` frames are seen, in the order of time; a short clip repeats some.
    pub fn choose(&self, length: usize, purpose: Purpose) -> Vec<usize> {
        let (frames, last) = (self.frames, length.max(1) - 1);
        // The place of a test's view among its views, 0.5 for a single one.
        let place = |view: usize| (view as f64 + 0.5) / self.views as f64;
        let mut draws = match purpose {
            Purpose::Train(seed) => Some(seed.split("frames").rng()),
            Purpose::Test(_) => None,
        };
        let mut within = || match (&mut draws, purpose) {
            (Some(rng), _) if self.draws() => rng.random_range(0.0..1.0),
            (_, Purpose::Test(view)) => place(view),
            (_, Purpose::Train(_)) => 0.5,
        };
        match self.sampling {
            FrameSampling::Uniform | FrameSampling::Segment => {
                let segment = length as f64 / frames as f64;
                (0..frames).map(|at| (((at as f64 + within()) * segment) as usize).min(last)).collect()
            }
            FrameSampling::Dense => {
                let span = (frames - 1).saturating_mul(self.stride).saturating_add(1);
                let starts = length.saturating_sub(span) + 1;
                let start = ((within() * starts as f64) as usize).min(starts - 1);
                (0..frames).map(|at| start.saturating_add(at.saturating_mul(self.stride)).min(last)).collect()
            }
        }
    }

    /// The frames of an example, in the order of time; an image stands still, and a feature has none.
    pub fn pictures(&self, source: &Source, purpose: Purpose) -> Vec<Picture> {
        match source {
            Source::Clip(clip) => {
                self.choose(clip.len(), purpose).into_iter().map(|index| clip.picture(index)).collect()
            }
            Source::Image(path) => vec![Picture { path: path.clone(), frame: None, bytes: None }; self.frames],
            Source::Bytes(name, bytes) => {
                vec![Picture { path: name.clone(), frame: None, bytes: Some(bytes.clone()) }; self.frames]
            }
            Source::Row(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClipConfig, FrameSampling, Purpose};
    use crate::seed::Seed;

    fn config(frames: usize, sampling: FrameSampling) -> ClipConfig {
        ClipConfig { frames, sampling, stride: 3, ..ClipConfig::default() }
    }

    #[test]
    fn a_test_sees_the_middles_of_equal_segments() {
        for sampling in [FrameSampling::Uniform, FrameSampling::Segment] {
            assert_eq!(config(4, sampling).choose(40, Purpose::Test(0)), [5, 15, 25, 35]);
            assert_eq!(config(4, sampling).choose(2, Purpose::Test(0)), [0, 0, 1, 1]);
            assert_eq!(config(1, sampling).choose(9, Purpose::Test(0)), [4]);
        }
        // A span of 10 frames in 20 starts at one of 11 places.
        assert_eq!(config(4, FrameSampling::Dense).choose(20, Purpose::Test(0)), [5, 8, 11, 14]);
        assert_eq!(config(4, FrameSampling::Dense).choose(5, Purpose::Test(0)), [0, 3, 4, 4]);
    }

    #[test]
    fn views_of_a_test_see_different_frames() {
        for (sampling, expected) in
            [(FrameSampling::Segment, [[0, 4], [2, 6], [3, 7]]), (FrameSampling::Dense, [[0, 3], [2, 5], [4, 7]])]
        {
            let config = ClipConfig { views: 3, ..config(2, sampling) };
            let found: Vec<Vec<usize>> = (0..3).map(|view| config.choose(8, Purpose::Test(view))).collect();
            assert_eq!(found, expected.map(Vec::from), "{sampling:?}");
        }
    }

    #[test]
    fn every_choice_of_frames_is_shown_in_every_crop() {
        let config = ClipConfig { views: 2, crops: 3, ..config(2, FrameSampling::Segment) };
        assert_eq!(config.test_views(), 6);
        let found: Vec<String> = (0..6).map(|view| format!("{:?}", config.test_view(view))).collect();
        let expected = [
            "(Test(0), Centre)",
            "(Test(0), Crop(Start))",
            "(Test(0), Crop(End))",
            "(Test(1), Centre)",
            "(Test(1), Crop(Start))",
            "(Test(1), Crop(End))",
        ];
        assert_eq!(found, expected);
        // One crop is written as before.
        let one = serde_json::to_string(&ClipConfig::default()).expect("plain data");
        assert!(!one.contains("crops"), "{one}");
        assert_eq!(serde_json::from_str::<ClipConfig>(&one).expect("the same"), ClipConfig::default());
        let text = serde_json::to_string(&config).expect("plain data");
        assert_eq!(serde_json::from_str::<ClipConfig>(&text).expect("the same"), config);
    }

    #[test]
    fn training_draws_one_frame_of_each_segment_and_repeats_by_seed() {
        let segments = config(4, FrameSampling::Segment);
        let draw = |seed: u64| segments.choose(40, Purpose::Train(Seed::new(seed)));
        let mut seen = [[false; 10]; 4];
        for seed in 0..200 {
            assert_eq!(draw(seed), draw(seed));
            for (segment, frame) in draw(seed).into_iter().enumerate() {
                assert_eq!(frame / 10, segment);
                seen[segment][frame % 10] = true;
            }
        }
        assert_eq!(seen, [[true; 10]; 4], "every frame is drawn at some time");
        let dense = config(4, FrameSampling::Dense);
        let starts: std::collections::BTreeSet<usize> =
            (0..200).map(|seed| dense.choose(20, Purpose::Train(Seed::new(seed)))[0]).collect();
        assert_eq!(starts, (0..=10).collect());
        let uniform = config(4, FrameSampling::Uniform);
        assert_eq!(uniform.choose(40, Purpose::Train(Seed::new(1))), [5, 15, 25, 35]);
    }

    #[test]
    fn settings_outside_their_domain_are_named() {
        let good = ClipConfig::default();
        good.check().expect("the default");
        for (bad, name) in [
            (ClipConfig { frames: 0, ..good.clone() }, "clips.frames"),
            (ClipConfig { frames: 5000, ..good.clone() }, "clips.frames"),
            (ClipConfig { stride: 0, ..good.clone() }, "clips.stride"),
            (ClipConfig { views: 0, ..good.clone() }, "clips.views"),
            (ClipConfig { crops: 2, ..good }, "clips.crops"),
        ] {
            assert!(bad.check().expect_err("refused").to_string().contains(name));
        }
    }
}
