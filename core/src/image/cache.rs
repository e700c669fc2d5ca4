//! Decoded images kept in memory for the next epoch.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::image::RgbImage;

/// A bounded store of decoded images.
///
/// Once full it keeps what it has: over repeated epochs each image is asked for once an epoch, and then evicting the
/// oldest would throw away exactly what is needed next. A file that changes on disk is not noticed.
#[derive(Debug)]
pub struct ImageCache {
    limit_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    images: HashMap<(PathBuf, Option<usize>), Arc<RgbImage>>,
}

impl ImageCache {
    /// An empty cache for at most `limit_bytes` of pixels (3 bytes a pixel).
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, held: Mutex::default() }
    }

    /// Bytes of pixels held.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Number of images held.
    pub fn len(&self) -> usize {
        self.lock().images.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image of a path, or a frame of an animation, if held.
    pub(super) fn get(&self, path: &Path, frame: Option<usize>) -> Option<Arc<RgbImage>> {
        self.lock().images.get(&(path.to_path_buf(), frame)).cloned()
    }

    /// Keeps an image if there is room.
    pub(super) fn offer(&self, path: &Path, frame: Option<usize>, image: &Arc<RgbImage>) {
        let place = (path.to_path_buf(), frame);
        let bytes = image.as_raw().len();
        let mut held = self.lock();
        if held.bytes + bytes <= self.limit_bytes && !held.images.contains_key(&place) {
            held.bytes += bytes;
            held.images.insert(place, Arc::clone(image));
        }
    }

    /// No code can panic between the two changes made under the lock, so a poisoned lock still guards whole data.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ::image::RgbImage;

    use super::ImageCache;

    #[test]
    fn a_full_cache_keeps_what_it_has() {
        let cache = ImageCache::new(40);
        let image = Arc::new(RgbImage::new(2, 2));
        for name in ["a", "b", "c", "d", "a"] {
            cache.offer(Path::new(name), None, &image);
        }
        assert_eq!((cache.len(), cache.bytes(), cache.is_empty()), (3, 36, false));
        let held = |name: &str, frame| cache.get(Path::new(name), frame).is_some();
        assert!(held("a", None) && !held("d", None) && !held("a", Some(0)));
    }
}
