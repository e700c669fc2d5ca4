//! How data is read beside several adapters that become one.

use inarch_core::data::{ClipConfig, FrameSampling};
use inarch_core::image::Window;

use crate::artifact::Artifact;
use crate::error::Result;

/// What adapters that become one agree on. A part that says nothing, as one of still images does of clips, goes by the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CommonReading {
    /// How clips are read. Of the views and crops that a test averages as many as any part has.
    pub clips: Option<ClipConfig>,
    /// The window that grey values are shown in.
    pub window: Option<Window>,
    /// The pattern that tells groups apart; `None` where parts have several, since names of one data set mean nothing in another.
    pub group_by: Option<String>,
}

impl CommonReading {
    /// What the parts agree on, whatever their order.
    ///
    /// # Errors
    /// Parts that saw other frames of their clips, or other windows: no reading is that of both.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a Artifact>) -> Result<Self> {
        let mut common = Self::default();
        let mut groups: Vec<&str> = Vec::new();
        for part in parts {
            let manifest = &part.manifest;
            if let Some(own) = &manifest.clips {
                common.clips = Some(match common.clips.take() {
                    Some(clips) => joined(clips, own)?,
                    None => own.clone(),
                });
            }
            if let Some(own) = manifest.window {
                let window = *common.window.get_or_insert(own);
                if window != own {
                    return Err(refused("windows", "`--window`", format!("`{window}`"), format!("`{own}`")).into());
                }
            }
            if let Some(own) = manifest.group_by.as_deref()
                && !groups.contains(&own)
            {
                groups.push(own);
            }
        }
        if let [pattern] = &groups[..] {
            common.group_by = Some((*pattern).to_string());
        }
        Ok(common)
    }
}

/// Clips as two parts read them.
fn joined(clips: ClipConfig, own: &ClipConfig) -> Result<ClipConfig> {
    // The step is that of dense clips alone; the other two samplings differ in training and show a test the same frames.
    let stride = |clips: &ClipConfig| (clips.sampling == FrameSampling::Dense).then_some(clips.stride);
    if (clips.frames, stride(&clips)) != (own.frames, stride(own)) {
        let [one, other] = [&clips, own].map(|clips| serde_json::to_string(clips).unwrap_or_default());
        return Err(refused("clips", "`--frames`, `--sampling` and `--frame-step`", one, other).into());
    }
    let sampling = if own.sampling == FrameSampling::Segment { own.sampling } else { clips.sampling };
    let stride = clips.stride.min(own.stride);
    Ok(ClipConfig { sampling, stride, views: clips.views.max(own.views), crops: clips.crops.max(own.crops), ..clips })
}

fn refused(what: &str, options: &str, expected: String, found: String) -> inarch_core::Error {
    let what = format!("{what} of adapters that are to become one (fit them with the same {options})");
    inarch_core::Error::Refused { what, expected, found }
}
