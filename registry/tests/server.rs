//! A registry server in this process, as much of the OCI distribution protocol as clients need, on a port of loopback
//! that the system picks. It can cut and corrupt what it sends.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use inarch_registry::Digest;

#[derive(Default)]
pub(crate) struct Content {
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    /// How many of the next blob downloads break off in the middle.
    cuts: AtomicUsize,
    /// How many of the next blob downloads have a wrong byte.
    corruptions: AtomicUsize,
    /// How many of the next requests are answered with 503.
    refusals: AtomicUsize,
    sent: AtomicUsize,
    stopped: AtomicBool,
}

/// The server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) host: String,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let host = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped.load(Ordering::Relaxed) {
                    break;
                }
                let server = Arc::clone(&server);
                if let Ok(stream) = stream {
                    std::thread::spawn(move || drop(serve(stream, &server)));
                }
            }
        });
        Self { host, shared }
    }

    pub(crate) fn address(&self, path: &str) -> String {
        format!("oci://{}/{path}", self.host)
    }

    pub(crate) fn cut(&self, downloads: usize) {
        self.shared.cuts.store(downloads, Ordering::Relaxed);
    }

    pub(crate) fn corrupt(&self, downloads: usize) {
        self.shared.corruptions.store(downloads, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, requests: usize) {
        self.shared.refusals.store(requests, Ordering::Relaxed);
    }

    /// Bytes of blobs that were sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Content) -> T) -> T {
        look(&mut self.shared.content.lock().expect("no panic"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

/// Takes one from a counter, if there is one.
fn take(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next().unwrap_or_default().to_string(), parts.next().unwrap_or_default().to_string());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if take(&shared.refusals) {
        return answer(stream, "503 Service Unavailable", &[], b"", method == "HEAD");
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = path.trim_start_matches("/v2/").to_string();
    if path.is_empty() {
        return answer(stream, "200 OK", &[], b"{}", false);
    }
    let mut content = shared.content.lock().expect("no panic");
    let is_head = method == "HEAD";
    let missing = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown","detail":""}]}"#;
    if let Some((name, reference)) = path.split_once("/manifests/") {
        if method == "PUT" {
            let digest = Digest::of(&body).to_string();
            let kind = headers.get("content-type").cloned().unwrap_or_default();
            for key in [reference, digest.as_str()] {
                content.manifests.insert(format!("{name}:{key}"), (kind.clone(), body.clone()));
            }
            return answer(
                stream,
                "201 Created",
                &[("Location", format!("/v2/{name}/manifests/{digest}"))],
                b"",
                false,
            );
        }
        let Some((kind, bytes)) = content.manifests.get(&format!("{name}:{reference}")).cloned() else {
            return answer(stream, "404 Not Found", &[], missing, is_head);
        };
        let digest = Digest::of(&bytes).to_string();
        return answer(stream, "200 OK", &[("Content-Type", kind), ("Docker-Content-Digest", digest)], &bytes, is_head);
    }
    let Some((name, blob)) = path.split_once("/blobs/") else {
        return answer(stream, "404 Not Found", &[], missing, is_head);
    };
    if let Some(id) = blob.strip_prefix("uploads/") {
        let id = if method == "POST" { content.uploads.len().to_string() } else { id.to_string() };
        let location = ("Location", format!("/v2/{name}/blobs/uploads/{id}"));
        let upload = content.uploads.entry(id).or_default();
        upload.extend(body);
        let received = ("Range", format!("0-{}", upload.len().saturating_sub(1)));
        if method == "PUT" {
            let bytes = std::mem::take(upload);
            let digest = Digest::of(&bytes).to_string();
            let wanted =
                query.split('&').find_map(|pair| pair.strip_prefix("digest=")).unwrap_or_default().replace("%3A", ":");
            if wanted != digest {
                return answer(
                    stream,
                    "400 Bad Request",
                    &[],
                    br#"{"errors":[{"code":"DIGEST_INVALID","message":"","detail":""}]}"#,
                    false,
                );
            }
            content.blobs.insert(digest.clone(), bytes);
            return answer(stream, "201 Created", &[("Location", format!("/v2/{name}/blobs/{digest}"))], b"", false);
        }
        return answer(stream, "202 Accepted", &[location, received], b"", false);
    }
    let Some(mut bytes) = content.blobs.get(blob).cloned() else {
        return answer(stream, "404 Not Found", &[], missing, is_head);
    };
    drop(content);
    if is_head {
        return answer(stream, "200 OK", &[], &bytes, true);
    }
    let offset = headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok())
        .unwrap_or(0);
    let bytes_from = bytes.split_off(std::cmp::min(offset, bytes.len()));
    let mut bytes = bytes_from;
    if !bytes.is_empty() && take(&shared.corruptions) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
    }
    let status = if offset > 0 { "206 Partial Content" } else { "200 OK" };
    if bytes.len() > 1 && take(&shared.cuts) {
        let half = bytes.len() / 2;
        shared.sent.fetch_add(half, Ordering::Relaxed);
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
        return stream.write_all(&bytes[..half]);
    }
    shared.sent.fetch_add(bytes.len(), Ordering::Relaxed);
    answer(stream, status, &[], &bytes, false)
}

fn answer(
    mut stream: TcpStream,
    status: &str,
    headers: &[(&str, String)],
    body: &[u8],
    is_head: bool,
) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if !is_head {
        stream.write_all(body)?;
    }
    stream.flush()
}
