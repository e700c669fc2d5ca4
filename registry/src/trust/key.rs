//! Ed25519 keys in the files that `openssl` makes and reads: PKCS#8 for the secret, SPKI for the public half.

use std::fmt;
use std::path::Path;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::channel::canonical;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::{beside, read_bounded};

/// The largest key file, in bytes.
const MAX_KEY_BYTES: u64 = 1 << 14;

/// What a key goes by: the SHA-256 of its canonical description, as in TUF.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub(crate) String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The half of a key that is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key file; of a secret one, the public half.
    ///
    /// # Errors
    /// [`Error::Untrusted`] for anything else.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path, MAX_KEY_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        match VerifyingKey::from_public_key_pem(&text) {
            Ok(key) => Ok(Self(key)),
            Err(_) => SecretKey::read(path).map(|key| key.public()),
        }
    }

    /// The key as a PEM file.
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("a public key always has this form")
    }

    /// What it goes by.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&canonical(&self.description())).hex())
    }

    /// The description that TUF metadata has.
    pub(crate) fn description(&self) -> Value {
        let public: String = self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } })
    }

    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let bytes: [u8; 32] = hex_bytes(hex)?.try_into().ok()?;
        VerifyingKey::from_bytes(&bytes).ok().map(Self)
    }

    pub(crate) fn hex(&self) -> String {
        self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a signature, in hex, is of this message. Weak keys and malleable signatures are not accepted.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let bytes = hex_bytes(signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        bytes.is_some_and(|bytes| self.0.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok())
    }
}

/// The half of a key that signs.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when the system gives none.
    pub fn generate() -> Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Error::Untrusted { what: "a new key".into(), reason: error.to_string() })?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// A key from a seed, for tests.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads a secret key file.
    ///
    /// # Errors
    /// [`Error::Untrusted`] for anything else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_bounded(path, MAX_KEY_BYTES)?;
        let key = SigningKey::from_pkcs8_pem(&String::from_utf8_lossy(&text));
        key.map(Self).map_err(|_| Error::Untrusted {
            what: format!("key file `{}`", path.display()),
            reason: "it holds no ed25519 key in PEM; `inarch registry keys generate FILE` makes one".into(),
        })
    }

    /// Writes the secret file, which only its owner can read, and the public one beside it (`.pub`): both, or none.
    ///
    /// # Errors
    /// [`Error::Io`]; a file that exists is never overwritten.
    pub fn write(&self, path: &Path) -> Result<()> {
        let secret = self.0.to_pkcs8_pem(LineEnding::LF).expect("a secret key always has this form");
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = Path::new(&public);
        // A temporary file is its owner's alone.
        let mut private = tempfile::Builder::new();
        private.prefix(".inarch-");
        let secret = staged(&private, path, secret.as_bytes())?;
        let open = staged(&beside(".inarch-"), public, self.public().to_pem().as_bytes())?;
        let place = |file: NamedTempFile, path: &Path| {
            file.persist_noclobber(path).map(drop).map_err(|error| Error::io("create", path)(error.error))
        };
        place(secret, path)?;
        place(open, public).inspect_err(|_| drop(std::fs::remove_file(path)))
    }

    /// The half that is given away.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature of a message, in hex.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        self.0.sign(message).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A whole file that has no name yet.
fn staged(builder: &tempfile::Builder<'_, '_>, path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    use std::io::Write as _;

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || {
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    attempt().map_err(Error::io("create", path))
}

pub(crate) fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if digits.len() > 4096 || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
