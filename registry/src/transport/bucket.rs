//! Folders and S3: blobs by digest, tags as small objects that hold a digest.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use tokio::runtime::Runtime;

use super::remote::Remote;
use super::retry::runtime;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// Larger files are sent in parts, in bytes.
const PART_BYTES: usize = 16 << 20;

/// Objects under a prefix.
pub(super) struct Bucket {
    address: String,
    prefix: Key,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.address)
    }
}

impl Bucket {
    pub(super) fn folder(address: &str, path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create folder", path))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(wrong(address))?.with_fsync(true);
        Ok(Self { address: address.into(), prefix: Key::default(), store: Arc::new(store), runtime: runtime()? })
    }

    pub(super) fn s3(address: &str) -> Result<Self> {
        let store = AmazonS3Builder::from_env().with_url(address).build().map_err(wrong(address))?;
        let prefix = address.trim_start_matches("s3://").split_once('/').map_or("", |(_, prefix)| prefix);
        Ok(Self { address: address.into(), prefix: Key::from(prefix), store: Arc::new(store), runtime: runtime()? })
    }

    fn key(&self, parts: &[&str]) -> Key {
        parts.iter().flat_map(|part| part.split('/')).fold(self.prefix.clone(), |key, part| key.join(part))
    }

    fn blob_key(&self, digest: &Digest) -> Key {
        self.key(&["blobs", "sha256", &digest.hex()])
    }

    fn failure<'a>(&'a self, action: &'static str, key: &'a Key) -> impl FnOnce(object_store::Error) -> Error + 'a {
        move |error| {
            let transient =
                matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. });
            let address = format!("{}/{key}", self.address.trim_end_matches('/'));
            Error::Remote { action, address, reason: error.to_string(), transient }
        }
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Option<Vec<u8>>> {
        self.runtime.block_on(async {
            let result = match self.store.get(key).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                result => result.map_err(self.failure("read", key))?,
            };
            let found = result.meta.size;
            if found > limit {
                return Err(Error::TooLarge { what: format!("`{key}`"), unit: "bytes", limit, found });
            }
            Ok(Some(result.bytes().await.map_err(self.failure("read", key))?.to_vec()))
        })
    }

    fn write(&self, key: &Key, bytes: Vec<u8>) -> Result<()> {
        self.runtime.block_on(self.store.put(key, bytes.into())).map(drop).map_err(self.failure("write", key))
    }
}

fn wrong(address: &str) -> impl FnOnce(object_store::Error) -> Error + '_ {
    move |error| Error::reference("remote", address, error)
}

impl Remote for Bucket {
    fn address(&self) -> &str {
        &self.address
    }

    fn manifest(&self, repository: &str, tag: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let digest: Digest = match tag.starts_with("sha256:") {
            true => tag.parse()?,
            false => {
                let key = self.key(&["tags", repository, tag]);
                let Some(text) = self.read(&key, 4096)? else { return Ok(None) };
                String::from_utf8_lossy(&text).trim().parse()?
            }
        };
        self.read(&self.blob_key(&digest), limit)
    }

    fn put_manifest(&self, repository: &str, tag: &str, _media_type: &str, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes);
        self.write(&self.blob_key(&digest), bytes.to_vec())?;
        match tag.starts_with("sha256:") {
            true => Ok(()),
            false => self.write(&self.key(&["tags", repository, tag]), digest.to_string().into_bytes()),
        }
    }

    fn has_blob(&self, _repository: &str, blob: &Descriptor) -> Result<bool> {
        let key = self.blob_key(&blob.digest);
        match self.runtime.block_on(self.store.head(&key)) {
            Ok(meta) => Ok(meta.size == blob.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failure("look for", &key)(error)),
        }
    }

    fn blob(
        &self,
        _repository: &str,
        blob: &Descriptor,
        offset: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let key = self.blob_key(&blob.digest);
        self.runtime.block_on(async {
            let range = (offset > 0).then_some(GetRange::Offset(offset));
            let options = GetOptions { range, ..GetOptions::default() };
            let result = self.store.get_opts(&key, options).await.map_err(self.failure("pull", &key))?;
            let mut stream = result.into_stream();
            while let Some(chunk) = stream.next().await {
                sink(&chunk.map_err(self.failure("pull", &key))?)?;
            }
            Ok(())
        })
    }

    fn put_blob(&self, repository: &str, blob: &Descriptor, path: &Path) -> Result<()> {
        if self.has_blob(repository, blob)? {
            return Ok(());
        }
        let key = self.blob_key(&blob.digest);
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if bytes.len() <= PART_BYTES {
            return self.write(&key, bytes);
        }
        self.runtime.block_on(async {
            let upload = self.store.put_multipart(&key).await.map_err(self.failure("push", &key))?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            parts.write(&bytes);
            parts.finish().await.map(drop).map_err(self.failure("push", &key))
        })
    }
}
