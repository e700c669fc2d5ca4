//! Images of a request: from bytes to the pixels of the backbone, within limits that are checked first.

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use inarch_core::image::{Window, decode_image_bytes_within};

use super::app::App;
use super::problem::Problem;

/// The bytes of an image given as base64, with or without `data:image/...;base64,` in front.
pub(crate) fn from_base64(text: &str) -> Result<Bytes, Problem> {
    let text = text.trim();
    let text = match text.strip_prefix("data:") {
        Some(rest) => rest
            .split_once(";base64,")
            .map(|(_, data)| data)
            .ok_or_else(|| Problem::invalid("a data URL of an image must be base64: `data:image/png;base64,...`"))?,
        None if text.starts_with("http://") || text.starts_with("https://") => {
            return Err(Problem::invalid("images are not fetched from URLs").hint("send the image's bytes as base64"));
        }
        None => text,
    };
    let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
    decoded.map(Bytes::from).map_err(|error| Problem::invalid(format!("the image is not valid base64: {error}")))
}

/// Pixels of some images in a window, one after the other, `[images, 3, size, size]`.
pub(crate) async fn pixels(
    app: &Arc<App>,
    images: Vec<Bytes>,
    window: Option<Window>,
) -> Result<Arc<Vec<f32>>, Problem> {
    check_count(app, images.len())?;
    let permit = app.decoders.acquire().await.map_err(|_| Problem::failed())?;
    let (backbone, limit) = (app.backbone.clone(), app.settings.image_pixels);
    let work = move || -> Result<Vec<f32>, Problem> {
        let mut pixels = Vec::with_capacity(images.len() * backbone.preprocess().values_per_image());
        for (at, bytes) in images.iter().enumerate() {
            let name = format!("image {at} of the request");
            let image = decode_image_bytes_within(bytes, Path::new(&name), limit, window);
            let image = image.and_then(|image| backbone.preprocess().pixels(&image));
            pixels.extend(image.map_err(|error| Problem::from(crate::error::Error::from(error)))?);
        }
        Ok(pixels)
    };
    let pixels = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::failed())??;
    drop(permit);
    Ok(Arc::new(pixels))
}

/// Refuses no image, and more than allowed.
pub(crate) fn check_count(app: &App, count: usize) -> Result<(), Problem> {
    let most = app.settings.images;
    match count {
        0 => Err(Problem::invalid("the request has no image").hint("send `image` or `images`")),
        count if count > most => Err(Problem::too_large(format!("{count} images; at most {most} fit one request"))),
        _ => Ok(()),
    }
}
