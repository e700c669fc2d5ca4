//! Registry servers that speak the OCI distribution protocol.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use tokio::runtime::Runtime;

use super::remote::{Credentials, Remote};
use super::retry::runtime;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, media_type};

/// How long nothing may happen.
const SILENCE: Duration = Duration::from_secs(60);

/// A registry server and a path on it.
pub(super) struct OciRemote {
    address: String,
    host: String,
    path: String,
    client: Client,
    auth: RegistryAuth,
    runtime: Runtime,
}

impl std::fmt::Debug for OciRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OciRemote({})", self.address)
    }
}

impl OciRemote {
    pub(super) fn open(address: &str, rest: &str, plain: bool, credentials: Option<Credentials>) -> Result<Self> {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        if host.is_empty() || !(path.is_empty() || path.parse::<crate::name::Name>().is_ok()) {
            return Err(Error::reference(
                "remote",
                address,
                "expected `oci://HOST[:PORT]/PATH`, the path in lower case",
            ));
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // Loopback never leaves the machine, so registries on it need no certificates; docker does the same.
        let is_plain = plain || ["localhost", "127.0.0.1", "[::1]"].contains(&name);
        let config = ClientConfig {
            protocol: if is_plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(SILENCE),
            read_timeout: Some(SILENCE),
            user_agent: concat!("inarch/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let auth = credentials.map_or(RegistryAuth::Anonymous, |one| RegistryAuth::Basic(one.user, one.password));
        let (address, host, path) = (address.trim_end_matches('/').to_string(), host.into(), path.into());
        Ok(Self { address, host, path, client: Client::new(config), auth, runtime: runtime()? })
    }

    fn repository(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}/{name}", self.path) }
    }

    fn reference(&self, repository: &str, tag: &str) -> Reference {
        let repository = self.repository(repository);
        match tag.starts_with("sha256:") {
            true => Reference::with_digest(self.host.clone(), repository, tag.into()),
            false => Reference::with_tag(self.host.clone(), repository, tag.into()),
        }
    }

    fn failure<'a>(&'a self, action: &'static str, what: &'a str) -> impl FnOnce(OciDistributionError) -> Error + 'a {
        move |error| {
            let transient = match &error {
                OciDistributionError::RequestError(error) => {
                    error.status().is_none_or(|status| status.is_server_error() || status.as_u16() == 429)
                }
                OciDistributionError::ServerError { code, .. } => *code >= 500 || *code == 429,
                OciDistributionError::IoError(_) | OciDistributionError::DigestError(_) => true,
                _ => false,
            };
            // The reason of the reason is where the network speaks.
            let mut reason = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                reason = format!("{reason}: {cause}");
                source = cause.source();
            }
            Error::Remote { action, address: format!("{}/{what}", self.address), reason, transient }
        }
    }

    async fn signed_in(&self, reference: &Reference, operation: RegistryOperation) -> Result<(), OciDistributionError> {
        self.client.auth(reference, &self.auth, operation).await.map(drop)
    }
}

fn descriptor(blob: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: blob.media_type.clone(),
        digest: blob.digest.to_string(),
        size: blob.size as i64,
        ..OciDescriptor::default()
    }
}

impl Remote for OciRemote {
    fn address(&self) -> &str {
        &self.address
    }

    fn manifest(&self, repository: &str, tag: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let reference = self.reference(repository, tag);
        let accepted = [media_type::MANIFEST, media_type::INDEX];
        let pulled = self.runtime.block_on(async {
            self.signed_in(&reference, RegistryOperation::Pull).await?;
            self.client.pull_manifest_raw(&reference, &self.auth, &accepted).await
        });
        match pulled {
            Ok((bytes, _)) if bytes.len() as u64 > limit => {
                let what = format!("`{tag}` of `{}`", self.address);
                Err(Error::TooLarge { what, unit: "bytes", limit, found: bytes.len() as u64 })
            }
            Ok((bytes, _)) => Ok(Some(bytes.to_vec())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failure("read", &format!("{repository}:{tag}"))(error)),
        }
    }

    fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let reference = self.reference(repository, tag);
        let kind =
            media_type.parse().map_err(|_| Error::reference("media type", media_type, "it is no header value"))?;
        let pushed = self.runtime.block_on(async {
            self.signed_in(&reference, RegistryOperation::Push).await?;
            self.client.push_manifest_raw(&reference, bytes.to_vec(), kind).await
        });
        pushed.map(drop).map_err(self.failure("push", &format!("{repository}:{tag}")))
    }

    fn has_blob(&self, repository: &str, blob: &Descriptor) -> Result<bool> {
        let digest = blob.digest.to_string();
        let reference = self.reference(repository, &digest);
        let found = self.runtime.block_on(async {
            self.signed_in(&reference, RegistryOperation::Pull).await?;
            self.client.blob_exists(&reference, &digest).await
        });
        match found {
            // A repository that does not exist yet has no blobs.
            Err(error) if is_missing(&error) => Ok(false),
            found => found.map_err(self.failure("look for", &format!("{repository}@{digest}"))),
        }
    }

    fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        offset: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let digest = blob.digest.to_string();
        let what = format!("{repository}@{digest}");
        let reference = self.reference(repository, &digest);
        self.runtime.block_on(async {
            let begin = async {
                self.signed_in(&reference, RegistryOperation::Pull).await?;
                match offset {
                    0 => Ok(BlobResponse::Full(self.client.pull_blob_stream(&reference, &descriptor(blob)).await?)),
                    _ => self.client.pull_blob_stream_partial(&reference, &descriptor(blob), offset, None).await,
                }
            };
            let (mut stream, mut skip) = match begin.await.map_err(self.failure("pull", &what))? {
                BlobResponse::Partial(partial) => (partial.stream, 0),
                BlobResponse::Full(whole) => (whole.stream, offset),
            };
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|error| self.failure("pull", &what)(OciDistributionError::IoError(error)))?;
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                sink(&chunk[skipped as usize..])?;
            }
            Ok(())
        })
    }

    fn put_blob(&self, repository: &str, blob: &Descriptor, path: &Path) -> Result<()> {
        if self.has_blob(repository, blob)? {
            return Ok(());
        }
        let digest = blob.digest.to_string();
        let reference = self.reference(repository, &digest);
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let pushed = self.runtime.block_on(async {
            self.signed_in(&reference, RegistryOperation::Push).await?;
            self.client.push_blob(&reference, bytes, &digest).await
        });
        pushed.map(drop).map_err(self.failure("push", &format!("{repository}@{digest}")))
    }
}

fn is_missing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RequestError(error) => error.status().is_some_and(|status| status.as_u16() == 404),
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            use OciErrorCode::{BlobUnknown, ManifestUnknown, NameUnknown, NotFound};
            matches!(error.code, BlobUnknown | ManifestUnknown | NameUnknown | NotFound)
        }),
        _ => false,
    }
}
