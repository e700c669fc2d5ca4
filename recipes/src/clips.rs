//! Examples as jobs of a loader, one for each frame.

use inarch_core::backbone::{Backbone, Frames};
use inarch_core::data::{ClipConfig, Dataset, Example, Picture, Purpose, Source};
use inarch_core::image::{ImageBatch, ImageJob, View};

use crate::error::Result;

/// How many rows of the image tower an example has.
pub(crate) fn frames(clips: Option<&ClipConfig>) -> Frames {
    clips.map_or(Frames::STILL, |clips| Frames::of(clips.frames))
}

/// Refuses several crops for a backbone that is shown whole frames, squeezed to its size: they would all be the same.
pub(crate) fn check_crops(backbone: &Backbone, dataset: &Dataset) -> Result<()> {
    let several = dataset.features.is_none() && dataset.clips.as_ref().is_some_and(|clips| clips.crops > 1);
    if several && !backbone.preprocess().leaves_over() {
        let reason =
            format!("backbone {} is shown whole frames, of which all crops are the same; take 1", backbone.name());
        return Err(inarch_core::Error::invalid("clips.crops", reason).into());
    }
    Ok(())
}

/// The jobs of an example in one view, numbered from `first`: one for each frame, in the order of time, all varied alike. None
/// for an example that is a feature.
pub(crate) fn jobs(
    example: &Example,
    clips: Option<&ClipConfig>,
    purpose: Purpose,
    view: &View,
    first: usize,
) -> Vec<ImageJob> {
    let pictures = match (clips, &example.source) {
        (Some(clips), source) => clips.pictures(source, purpose),
        (None, Source::Image(path)) => vec![Picture { path: path.clone(), frame: None, bytes: None }],
        (None, Source::Bytes(name, bytes)) => {
            vec![Picture { path: name.clone(), frame: None, bytes: Some(bytes.clone()) }]
        }
        // A clip among images shows its middle.
        (None, Source::Clip(clip)) => vec![clip.picture(clip.len() / 2)],
        (None, Source::Row(_)) => Vec::new(),
    };
    let job = |(place, Picture { path, frame, bytes })| ImageJob {
        index: first + place,
        path,
        frame,
        bytes,
        view: view.clone(),
    };
    pictures.into_iter().enumerate().map(job).collect()
}

/// The clips of a batch that have all their frames, numbered as clips. The frames of clip `i` are numbered from `i * frames`.
pub(crate) fn whole(batch: ImageBatch, frames: Frames) -> ImageBatch {
    let ImageBatch { indices, pixels, shape } = batch;
    let count = frames.count();
    let values = shape[1..].iter().product::<usize>();
    let (mut clips, mut kept, mut at) = (Vec::new(), Vec::with_capacity(pixels.len()), 0);
    for group in indices.chunk_by(|left, right| left / count == right / count) {
        if group.len() == count {
            clips.push(group[0] / count);
            kept.extend_from_slice(&pixels[at * values..(at + count) * values]);
        }
        at += group.len();
    }
    let shape = [clips.len() * count, shape[1], shape[2], shape[3]];
    ImageBatch { indices: clips, pixels: kept, shape }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::Frames;
    use inarch_core::image::ImageBatch;

    use super::whole;

    #[test]
    fn a_clip_that_lacks_a_frame_is_left_out() {
        let pixels: Vec<f32> = (0..7).map(|value| value as f32).collect();
        let batch = ImageBatch { indices: vec![2, 3, 5, 6, 7, 8, 9], pixels, shape: [7, 1, 1, 1] };
        let found = whole(batch, Frames::of(2));
        assert_eq!(
            found,
            ImageBatch { indices: vec![1, 3, 4], pixels: vec![0., 1., 3., 4., 5., 6.], shape: [6, 1, 1, 1] }
        );
    }
}
