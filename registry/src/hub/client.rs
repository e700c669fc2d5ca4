//! The HTTP API of the hub: what a repository holds, and its files from any byte on.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Component, Path};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::cache::Checksum;
use super::id::{HubId, is_commit};
use crate::error::{Error, Result};
use crate::transport::runtime;

/// How long nothing may happen.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a request may be sent elsewhere.
const REDIRECTS: usize = 8;
/// The longest list of a repository.
const LISTING_BYTES: usize = 16 << 20;
/// What the hub says of the file behind a redirect to its storage.
const LINKED_ETAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";
/// Why the hub refuses.
const ERROR_CODE: &str = "x-error-code";

/// What a repository holds at a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: BTreeMap<String, Known>,
}

/// What a list says of a file.
#[derive(Clone, Default)]
pub(super) struct Known {
    size: Option<u64>,
    checksum: Option<Checksum>,
}

/// A file to be brought.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) checksum: Checksum,
}

/// A hub.
pub(super) struct Client {
    endpoint: Url,
    token: Option<String>,
    client: reqwest::Client,
    runtime: Runtime,
}

/// An answer, and what was said of the file on the way to it.
struct Reply {
    response: Response,
    etag: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Client {
    pub(super) fn open(endpoint: &str, token: Option<&str>) -> Result<Self> {
        let wrong = |reason: String| Error::reference("address of a hub", endpoint, reason);
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(wrong("expected `https://HOST`".into()));
        }
        let builder = reqwest::Client::builder()
            .user_agent(concat!("inarch/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed here: what they say of a file is needed, and the token stays with the hub.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE);
        let builder = if is_loopback(&url) { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| failure("open", &url, error))?;
        Ok(Self { endpoint: url, token: token.map(String::from), client, runtime: runtime()? })
    }

    /// What a repository holds. Names that could lead out of a folder are refused.
    pub(super) fn list(&self, id: &HubId) -> Result<Listing> {
        let revision = id.revision().replace('/', "%2F");
        let url = self.url(&format!("api/models/{}/revision/{revision}?blobs=true", id.repository()))?;
        let bytes = self.runtime.block_on(async {
            let mut response = self.send(Method::GET, &url, 0).await?.response;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(id, None, &response));
            }
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| failure("list", &url, error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > LISTING_BYTES {
                    let (limit, found) = (LISTING_BYTES as u64, bytes.len() as u64);
                    return Err(Error::TooLarge { what: format!("the list of `{id}`"), unit: "bytes", limit, found });
                }
            }
            Ok::<_, Error>(bytes)
        })?;
        let malformed = |reason: String| Error::malformed("list of a hub", format!("`{url}`"), reason);
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if !is_commit(&answer.sha) {
            return Err(malformed(format!("`sha` must be a commit, found {:?}", shown(&answer.sha))));
        }
        if let Some(bad) = answer.siblings.iter().find(|sibling| !is_inside(&sibling.rfilename)) {
            return Err(malformed(format!("{:?} could lead out of the repository", shown(&bad.rfilename))));
        }
        let files = answer.siblings.into_iter().map(|sibling| {
            let lfs = sibling.lfs.as_ref();
            // The blob of a large file is a pointer to it.
            let checksum = match lfs {
                Some(lfs) => lfs.sha256.as_deref(),
                None => sibling.blob.as_deref(),
            };
            let checksum = checksum.and_then(Checksum::parse);
            let size = lfs.and_then(|lfs| lfs.size).or(sibling.size);
            (sibling.rfilename, Known { size, checksum })
        });
        Ok(Listing { commit: answer.sha, files: files.collect() })
    }

    /// Size and checksum of a file, which the list has or else the file's own headers.
    pub(super) fn entry(&self, id: &HubId, commit: &str, name: &str, known: Known) -> Result<Entry> {
        let name = name.to_string();
        if let Known { size: Some(size), checksum: Some(checksum) } = known {
            return Ok(Entry { name, size, checksum });
        }
        let url = self.file(id, commit, &name)?;
        let reply = self.runtime.block_on(self.send(Method::HEAD, &url, 0))?;
        let status = reply.response.status();
        if !(status == StatusCode::OK || status.is_redirection()) {
            return Err(self.refusal(id, Some(&name), &reply.response));
        }
        let checksum = known.checksum.or_else(|| Checksum::parse(reply.etag.as_deref()?));
        match (known.size.or(reply.size), checksum) {
            (Some(size), Some(checksum)) => Ok(Entry { name, size, checksum }),
            _ => {
                let reason =
                    "neither the list nor the headers give its size and its SHA-256, so nothing could be verified";
                Err(Error::malformed("file of a hub", format!("`{url}`"), reason))
            }
        }
    }

    /// Brings what is missing of a file; what is at `part` already stays. `seen` is told how much is there.
    pub(super) fn download(
        &self,
        id: &HubId,
        commit: &str,
        entry: &Entry,
        part: &Path,
        seen: &dyn Fn(u64),
    ) -> Result<()> {
        let url = self.file(id, commit, &entry.name)?;
        let mut have = fs::metadata(part).map_or(0, |about| about.len());
        if have > entry.size {
            fs::remove_file(part).map_err(Error::io("remove", part))?;
            have = 0;
        }
        seen(have);
        if have == entry.size && part.is_file() {
            return Ok(());
        }
        self.runtime.block_on(async {
            let mut response = self.send(Method::GET, &url, have).await?.response;
            let resumes = match response.status() {
                StatusCode::PARTIAL_CONTENT if begins_at(&response, have) => true,
                // The whole file, whatever was asked for.
                StatusCode::OK => false,
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                    let _ = fs::remove_file(part);
                    return Err(remote("resume", &url, "the server does not go on from there".into(), true));
                }
                _ => return Err(self.refusal(id, Some(&entry.name), &response)),
            };
            have = if resumes { have } else { 0 };
            let mut options = OpenOptions::new();
            let options = options.create(true).write(true).append(resumes).truncate(!resumes);
            let mut file = options.open(part).map_err(Error::io("write", part))?;
            while let Some(chunk) = response.chunk().await.map_err(|error| failure("download", &url, error))? {
                have += chunk.len() as u64;
                if have > entry.size {
                    let _ = fs::remove_file(part);
                    let what = format!("`{}` of `{id}`", entry.name);
                    return Err(Error::TooLarge { what, unit: "bytes", limit: entry.size, found: have });
                }
                file.write_all(&chunk).map_err(Error::io("write", part))?;
                seen(have);
            }
            file.sync_all().map_err(Error::io("write", part))?;
            if have < entry.size {
                let reason = format!("it ended after {have} of {} bytes", entry.size);
                return Err(remote("download", &url, reason, true));
            }
            Ok(())
        })
    }

    fn url(&self, path: &str) -> Result<Url> {
        let joined = self.endpoint.join(path);
        joined.map_err(|error| Error::reference("address of a hub", path, error))
    }

    fn file(&self, id: &HubId, commit: &str, name: &str) -> Result<Url> {
        self.url(&format!("{}/resolve/{commit}/{name}", id.repository()))
    }

    /// Sends a request and follows where it leads. A request for headers stops where the hub has said all of the file.
    async fn send(&self, method: Method, start: &Url, from: u64) -> Result<Reply> {
        let mut url = start.clone();
        let (mut etag, mut size): (Option<String>, Option<u64>) = (None, None);
        for _ in 0..=REDIRECTS {
            // As it is, so that sizes are those of the file.
            let mut request = self.client.request(method.clone(), url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token_for(&url) {
                request = request.bearer_auth(token);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|error| failure("reach", &url, error))?;
            etag = etag.or_else(|| header(&response, LINKED_ETAG));
            size = size.or_else(|| header(&response, LINKED_SIZE).and_then(|text| text.parse().ok()));
            let is_known = method == Method::HEAD && etag.is_some() && size.is_some();
            if is_known || !response.status().is_redirection() {
                etag = etag.or_else(|| header(&response, ETAG.as_str()));
                size = size.or_else(|| header(&response, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()));
                return Ok(Reply { response, etag, size });
            }
            let location = header(&response, LOCATION.as_str()).unwrap_or_default();
            let next = url.join(&location).map_err(|error| remote("follow", &url, error.to_string(), false))?;
            if location.is_empty() || (url.scheme() == "https" && next.scheme() != "https") {
                return Err(remote("follow", &url, "it leads nowhere, or away from TLS".into(), false));
            }
            url = next;
        }
        Err(remote("follow", start, format!("it leads on more than {REDIRECTS} times"), false))
    }

    /// The token, for the hub itself and where nobody can read it on the way.
    fn token_for(&self, url: &Url) -> Option<&str> {
        let is_safe = url.scheme() == "https" || is_loopback(url);
        let is_hub = url.origin() == self.endpoint.origin();
        self.token.as_deref().filter(|_| is_safe && is_hub)
    }

    fn refusal(&self, id: &HubId, file: Option<&str>, response: &Response) -> Error {
        let status = response.status();
        let code = header(response, ERROR_CODE).unwrap_or_default();
        let place = format!(" at `{}`", self.endpoint.origin().ascii_serialization());
        let repository = id.repository();
        let is_denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_denied {
            let what = format!("`{repository}`{place}");
            let who = match self.token_for(&self.endpoint) {
                Some(_) => "the token that was sent may not read it",
                None => "no token was sent",
            };
            let state = if code == "RepoNotFound" {
                "there is no such repository, or it is private"
            } else {
                "it is gated or private"
            };
            let cure = "accept its terms on its page where it has some, and set HF_TOKEN to a token that may read it";
            return Error::refused(what, format!("{state} ({}; {who}): {cure}", status.as_u16()));
        }
        if status == StatusCode::NOT_FOUND {
            let (kind, name) = match (file, code.as_str()) {
                (Some(file), _) => ("file", format!("{file}` of `{id}")),
                (None, "RevisionNotFound") => ("revision", format!("{}` of `{repository}", id.revision())),
                // A hub that gives no code has said all it knows.
                (None, "RepoNotFound") => ("repository", repository),
                (None, _) => ("repository or revision", id.to_string()),
            };
            return Error::unknown(kind, name, place);
        }
        let is_transient =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        remote("read", response.url(), format!("the server answered {status}"), is_transient)
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(String::from)
}

/// Whether a part of a file is the rest that was asked for.
fn begins_at(response: &Response, from: u64) -> bool {
    header(response, CONTENT_RANGE.as_str()).is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// Loopback never leaves the machine.
fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether a name stays below the folder that it is joined to.
fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// What is shown of a name that a server made up is bounded.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// An address without what may be secret in it.
fn address(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn remote(action: &'static str, url: &Url, reason: String, transient: bool) -> Error {
    Error::Remote { action, address: address(url), reason, transient }
}

fn failure(action: &'static str, url: &Url, error: reqwest::Error) -> Error {
    let transient = !error.is_builder();
    let error = error.without_url();
    // The reason of the reason is where the network speaks.
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    remote(action, url, reason, transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_the_hub_alone_and_never_in_the_clear() {
        let sends = |endpoint: &str, url: &str| {
            let client = Client::open(endpoint, Some("secret")).expect("a hub");
            client.token_for(&Url::parse(url).expect("an address")).is_some()
        };
        assert!(sends("https://huggingface.co", "https://huggingface.co/a/b/resolve/main/config.json"));
        assert!(sends("http://127.0.0.1:80", "http://127.0.0.1:80/a"));
        assert!(!sends("https://huggingface.co", "https://cdn.example/a"));
        assert!(!sends("https://huggingface.co", "https://huggingface.co:8443/a"));
        assert!(!sends("http://mirror.example", "http://mirror.example/a"));
        assert!(!sends("http://127.0.0.1.example", "http://127.0.0.1.example/a"));
    }

    #[test]
    fn a_name_stays_inside() {
        for name in ["config.json", "1_Pooling/config.json"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["", "../../x", "a/../../x", "/etc/passwd", "..\\x", "./a/../b"] {
            assert!(!is_inside(name), "{name}");
        }
    }

    #[test]
    fn an_address_of_a_hub_is_checked() {
        for endpoint in ["", "huggingface.co", "file:///tmp", "https://"] {
            assert!(matches!(Client::open(endpoint, None), Err(Error::Reference { .. })), "{endpoint}");
        }
    }
}
