//! How clips are read, on the command line.

use clap::{Args, ValueEnum};
use inarch_core::data::{ClipConfig, FrameSampling};

/// The heading of these options in the help; given to each, since one that is given to all goes on to the options behind them.
const HEADING: &str = "Clips";

#[derive(Debug, Args)]
pub(crate) struct ClipArgs {
    /// Frames that the model sees of a clip; folders of images inside class folders are then read as clips
    #[arg(long, help_heading = HEADING, value_name = "T")]
    pub(crate) frames: Option<usize>,
    /// Which frames
    #[arg(long, help_heading = HEADING, value_enum, value_name = "HOW")]
    pub(crate) sampling: Option<SamplingArg>,
    /// With dense sampling, the step between frames
    #[arg(long, help_heading = HEADING, value_name = "N")]
    pub(crate) frame_step: Option<usize>,
    /// Choices of frames of each clip that a test averages
    #[arg(long, help_heading = HEADING, value_name = "V")]
    pub(crate) clip_views: Option<usize>,
    /// Crops of each frame that a test averages: 1, the centre, or 3, along the longer side
    #[arg(long, help_heading = HEADING, value_name = "C")]
    pub(crate) clip_crops: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SamplingArg {
    /// The middle of each of as many equal segments as there are frames
    Uniform,
    /// The same; in training a random frame of each segment
    Segment,
    /// Neighbouring frames, `--frame-step` apart
    Dense,
}

impl From<SamplingArg> for FrameSampling {
    fn from(arg: SamplingArg) -> Self {
        match arg {
            SamplingArg::Uniform => Self::Uniform,
            SamplingArg::Segment => Self::Segment,
            SamplingArg::Dense => Self::Dense,
        }
    }
}

impl ClipArgs {
    /// Whether any of them is given.
    pub(crate) fn given(&self) -> bool {
        let numbers = [self.frames, self.frame_step, self.clip_views, self.clip_crops];
        self.sampling.is_some() || numbers.iter().any(Option::is_some)
    }

    /// These over what an adapter or a recipe says; `None` when nobody says anything.
    pub(crate) fn over(&self, base: Option<&ClipConfig>) -> Option<ClipConfig> {
        if !self.given() {
            return base.cloned();
        }
        let base = base.cloned().unwrap_or_default();
        Some(ClipConfig {
            frames: self.frames.unwrap_or(base.frames),
            sampling: self.sampling.map_or(base.sampling, FrameSampling::from),
            stride: self.frame_step.unwrap_or(base.stride),
            views: self.clip_views.unwrap_or(base.views),
            crops: self.clip_crops.unwrap_or(base.crops),
        })
    }
}
