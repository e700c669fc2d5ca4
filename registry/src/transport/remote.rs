//! What every remote can do, and how addresses name one.

use std::fmt;
use std::path::Path;

use super::bucket::Bucket;
use super::oci::OciRemote;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, EMPTY, Manifest, media_type};

/// A place where versions are kept for others. A repository is the name of an adapter, or `channel/<name>`.
pub trait Remote: Send + Sync + fmt::Debug {
    /// Where it is, for messages.
    fn address(&self) -> &str;

    /// The bytes of a manifest, by tag or digest; none when there is no such one. At most `limit` bytes are taken.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::TooLarge`].
    fn manifest(&self, repository: &str, tag: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// Stores a manifest under a tag or its digest. What it refers to must be there.
    ///
    /// # Errors
    /// [`Error::Remote`].
    fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()>;

    /// Whether a blob is there.
    ///
    /// # Errors
    /// [`Error::Remote`].
    fn has_blob(&self, repository: &str, blob: &Descriptor) -> Result<bool>;

    /// Reads a blob from an offset on.
    ///
    /// # Errors
    /// [`Error::Remote`], or what the sink says.
    fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        offset: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()>;

    /// Stores a blob from a file.
    ///
    /// # Errors
    /// [`Error::Remote`].
    fn put_blob(&self, repository: &str, blob: &Descriptor, path: &Path) -> Result<()>;
}

/// Name and password for a registry server.
#[derive(Clone)]
pub struct Credentials {
    /// Name.
    pub user: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.user)
    }
}

/// Opens a remote: `oci://HOST[:PORT]/PATH` for a registry server (`oci+http://` without TLS, as for loopback),
/// `s3://BUCKET/PATH` with the usual `AWS_*` variables, or a folder.
///
/// # Errors
/// [`Error::Reference`] for anything else.
pub fn open_remote(address: &str, credentials: Option<Credentials>) -> Result<Box<dyn Remote>> {
    if let Some(rest) = address.strip_prefix("oci://") {
        return Ok(Box::new(OciRemote::open(address, rest, false, credentials)?));
    }
    if let Some(rest) = address.strip_prefix("oci+http://") {
        return Ok(Box::new(OciRemote::open(address, rest, true, credentials)?));
    }
    if address.starts_with("s3://") {
        return Ok(Box::new(Bucket::s3(address)?));
    }
    let path = address.strip_prefix("file://").unwrap_or(address);
    let is_path = path.starts_with(['/', '.', '\\']) || Path::new(path).is_dir() || address.starts_with("file://");
    if is_path && !path.contains("://") {
        return Ok(Box::new(Bucket::folder(address, Path::new(path))?));
    }
    Err(Error::reference(
        "remote",
        address,
        "expected `oci://HOST/PATH`, `s3://BUCKET/PATH` or a folder such as `./mirror`",
    ))
}

/// A small file under a tag; none when there is no such one.
pub(crate) fn file(remote: &dyn Remote, repository: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = remote.manifest(repository, name, 1 << 16)? else { return Ok(None) };
    let what = format!("`{name}` of `{}`", remote.address());
    let manifest = Manifest::parse(&bytes, &what)?;
    let [layer] = &manifest.layers[..] else {
        return Err(Error::malformed("file in a registry", what, "it must have one layer"));
    };
    let too_large = |found| Error::TooLarge { what: what.clone(), unit: "bytes", limit, found };
    if layer.size > limit {
        return Err(too_large(layer.size));
    }
    let mut content = Vec::new();
    remote.blob(repository, layer, 0, &mut |bytes| {
        content.extend_from_slice(bytes);
        if content.len() as u64 > limit { Err(too_large(content.len() as u64)) } else { Ok(()) }
    })?;
    let found = Digest::of(&content);
    if found == layer.digest { Ok(Some(content)) } else { Err(Error::damaged(what, &layer.digest, &found)) }
}

/// Stores a small file under a tag.
pub(crate) fn put_file(remote: &dyn Remote, repository: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let put = |media_type: &str, bytes: &[u8]| -> Result<Descriptor> {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        let temporary = tempfile::NamedTempFile::new().map_err(Error::io("create", &std::env::temp_dir()))?;
        std::fs::write(temporary.path(), bytes).map_err(Error::io("write", temporary.path()))?;
        remote.put_blob(repository, &descriptor, temporary.path())?;
        Ok(descriptor)
    };
    let layer = put("application/json", bytes)?;
    let config = put(media_type::EMPTY, EMPTY)?;
    let manifest = Manifest::new("application/vnd.inarch.channel.v1+json", config, vec![layer]);
    remote.put_manifest(repository, name, media_type::MANIFEST, &manifest.encode())
}
