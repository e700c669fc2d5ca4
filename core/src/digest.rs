//! Content identity: SHA-256 over canonical bytes.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Bytes of a file that are held at a time.
const PIECE: u64 = 1 << 16;

/// A SHA-256 digest, written `sha256:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DigestBuilder::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of a file's bytes, which are never held all at once.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let (mut hasher, mut piece) = (DigestBuilder::default(), Vec::new());
        while file.by_ref().take(PIECE).read_to_end(&mut piece).map_err(Error::io("read", path))? > 0 {
            hasher.update(&piece);
            piece.clear();
        }
        Ok(hasher.finish())
    }

    /// The digest of some values, as they lie in files.
    pub fn of_values(values: &[f32]) -> Self {
        Self::of(&little_endian(values))
    }

    /// The hex digits alone, as in the name of a file.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        let hex = self.hex();
        hex.get(..12).unwrap_or(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest over several pieces; each piece is preceded by its length, so that boundaries count.
#[derive(Default)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Adds one piece.
    pub fn piece(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds values as one piece.
    pub fn values(&mut self, values: &[f32]) -> &mut Self {
        self.piece(&little_endian(values))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        use std::fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in self.0.finalize() {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Digest(text)
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Digest, DigestBuilder, PIECE};

    #[test]
    fn values_have_the_digest_of_their_bytes() {
        let (values, bytes) = ([1.0, -2.5], [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        assert_eq!(Digest::of_values(&values), Digest::of(&bytes));
        let [mut as_values, mut as_bytes] = [(); 2].map(|()| DigestBuilder::default());
        as_values.values(&values);
        as_bytes.piece(&bytes);
        assert_eq!(as_values.finish(), as_bytes.finish());
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bytes");
        for length in [0, 1, PIECE as usize, 2 * PIECE as usize + 1] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Digest::of_file(&path).expect("read"), Digest::of(&bytes), "{length} bytes");
        }
        let error = Digest::of_file(&folder.path().join("none")).expect_err("no file").to_string();
        assert!(error.contains("none"), "{error}");
    }
}
