//! Grey images in the format of MNIST (LeCun et al., 1998): `idx3-ubyte`, as it is or gzipped.

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use image::GrayImage;

use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "idx image file";
/// Bytes of the header: magic number, count, rows, columns.
const HEADER: usize = 16;
/// Most bytes that are unpacked; MNIST's training images are 47 million.
const MOST_BYTES: u64 = 512 << 20;

/// Reads all images of a file, in order.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for another format, or a file that is cut short or larger than 512 MiB.
pub fn read_idx_images(path: &Path) -> Result<Vec<GrayImage>> {
    let wrong = |reason: String| Error::malformed(FORMAT, path, reason);
    let mut bytes = file::read(path)?;
    if bytes.starts_with(&[0x1F, 0x8B]) {
        let mut unpacked = Vec::new();
        GzDecoder::new(bytes.as_slice())
            .take(MOST_BYTES + 1)
            .read_to_end(&mut unpacked)
            .map_err(|error| wrong(error.to_string()))?;
        bytes = unpacked;
    }
    if bytes.len() as u64 > MOST_BYTES {
        return Err(wrong(format!("it holds more than {MOST_BYTES} bytes")));
    }
    let number = |at: usize| bytes.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]));
    let (Some(0x0803), Some(count), Some(height), Some(width)) = (number(0), number(4), number(8), number(12)) else {
        return Err(wrong("its first bytes are not those of images (idx3-ubyte)".into()));
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels.checked_mul(u64::from(count)) != Some((bytes.len() - HEADER) as u64) {
        let found = bytes.len() - HEADER;
        return Err(wrong(format!("{count} images of {width} x {height} are promised, and {found} bytes follow")));
    }
    let image = |data: &[u8]| GrayImage::from_raw(width, height, data.to_vec()).expect("as many bytes as pixels");
    Ok(bytes[HEADER..].chunks_exact(pixels as usize).map(image).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::read_idx_images;

    #[test]
    fn images_are_read_and_what_is_cut_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("images.gz");
        let mut plain = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3];
        plain.extend([1, 2, 3, 4, 5, 6]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&plain).expect("packed");
        for bytes in [plain.clone(), packed.finish().expect("packed")] {
            std::fs::write(&path, bytes).expect("written");
            let images = read_idx_images(&path).expect("images");
            assert_eq!((images.len(), images[1].dimensions()), (2, (3, 1)));
            assert_eq!(images[1].as_raw(), &[4, 5, 6]);
        }
        for cut in [0, 3, 15, 16, plain.len() - 1] {
            std::fs::write(&path, &plain[..cut]).expect("written");
            assert!(read_idx_images(&path).is_err(), "cut to {cut}");
        }
        plain[7] = 255;
        plain[4] = 255;
        std::fs::write(&path, plain).expect("written");
        assert!(read_idx_images(&path).expect_err("a lie").to_string().contains("are promised"));
    }
}
