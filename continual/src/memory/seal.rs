//! Encryption at rest: XChaCha20-Poly1305 under a key from a file.

use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use inarch_core::file;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// What encrypted bytes begin with; also bound to the content.
const MAGIC: &[u8; 8] = b"INARCHE1";
/// Bytes of a nonce.
const NONCE: usize = 24;

/// A key of 32 bytes. It is never printed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads a key file: 64 hex digits.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        let wrong =
            || inarch_core::Error::malformed("key file", path, "expected 64 hex digits; `memory key` makes one");
        let digits = text.trim().as_bytes();
        let mut key = [0; 32];
        if digits.len() != 64 {
            return Err(wrong().into());
        }
        for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            let text = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(text, 16).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }

    /// Draws a new key from the system's randomness and writes it to a file that only its owner may read.
    ///
    /// # Errors
    /// A file that exists already or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        use std::io::Write as _;
        let mut key = [0u8; 32];
        rand::rng().fill(&mut key);
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = std::fs::OpenOptions::new();
        // A key that is overwritten would lock its owner out of everything it ever encrypted.
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(path).map_err(inarch_core::Error::io("create", path))?;
        // On the disk before anything is encrypted under it; a file without a key would be in the way of the next one.
        if let Err(fault) = writeln!(file, "{text}").and_then(|()| file.sync_all()) {
            let _ = std::fs::remove_file(path);
            return Err(inarch_core::Error::io("write", path)(fault).into());
        }
        Ok(Self(key))
    }

    /// Encrypts. Equal content gives equal bytes: the nonce is a keyed hash of the content, so it repeats only where
    /// everything does.
    pub(crate) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(plain);
        let cipher = XChaCha20Poly1305::new(&self.0.into());
        let payload = Payload { msg: plain, aad: MAGIC };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).expect("memory is far below the cipher's limit");
        [&MAGIC[..], &nonce, &sealed].concat()
    }

    /// Decrypts; `path` is named in errors.
    pub(crate) fn open(&self, sealed: &[u8], path: &Path) -> Result<Vec<u8>> {
        let fault = |reason: &str| Error::Sealed { path: path.to_path_buf(), reason: reason.into() };
        let body = sealed.strip_prefix(MAGIC).ok_or_else(|| fault("it does not begin as an encrypted file"))?;
        let (nonce, body) = body.split_at_checked(NONCE).ok_or_else(|| fault("it is truncated"))?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| fault("it is truncated"))?;
        let cipher = XChaCha20Poly1305::new(&self.0.into());
        let opened = cipher.decrypt(&XNonce::from(nonce), Payload { msg: body, aad: MAGIC });
        opened.map_err(|_| fault("the key is another one, or the file was changed"))
    }

    fn nonce(&self, plain: &[u8]) -> [u8; NONCE] {
        // Two passes with the key in front, as in HMAC, so that the hash of one content says nothing about another.
        let inner = Sha256::new().chain_update(self.0).chain_update([0]).chain_update(plain).finalize();
        let outer = Sha256::new().chain_update(self.0).chain_update([1]).chain_update(inner).finalize();
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&outer[..NONCE]);
        nonce
    }
}

/// Whether bytes are encrypted.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The content of a file that may be encrypted; `path` is named in errors.
pub(crate) fn opened(bytes: Vec<u8>, key: Option<&Key>, path: &Path) -> Result<Vec<u8>> {
    match key {
        _ if !is_sealed(&bytes) => Ok(bytes),
        Some(key) => key.open(&bytes, path),
        None => Err(Error::Sealed { path: path.to_path_buf(), reason: "give its key file with `--key`".into() }),
    }
}

/// Bytes that encryption adds.
pub(super) const OVERHEAD: u64 = 8 + NONCE as u64 + 16;
