//! A model hub in this process, as much of its API as a download needs, on a port of loopback that the system picks.
//! It can break off, corrupt, refuse, and say less than it should.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inarch_core::Digest;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

/// The one repository that there is.
pub(super) const REPOSITORY: &str = "org/tiny";
/// Its one commit, and the branches that it is.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REVISIONS: [&str; 3] = ["main", "v1", COMMIT];

/// What the hub holds and how it behaves.
#[derive(Default)]
pub(super) struct Behaviour {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Names that are listed beside the files.
    pub(super) further: Vec<String>,
    /// Whether lists give names only.
    pub(super) is_terse: bool,
    /// What lists say of the size of each large file.
    pub(super) claimed: Option<u64>,
    /// What has to be sent as a token.
    pub(super) token: Option<String>,
    /// How many of the next requests are answered with 503.
    pub(super) refusals: usize,
    /// How many of the next large downloads break off in the middle.
    pub(super) cuts: usize,
    /// Whether large files have a wrong byte.
    pub(super) corrupts: bool,
    /// Method, path and range of what was asked.
    pub(super) requests: Vec<String>,
    stopped: bool,
}

/// The hub; it stops when dropped.
pub(super) struct HubServer {
    host: String,
    shared: Arc<Mutex<Behaviour>>,
}

impl HubServer {
    /// Offers the files of a folder.
    pub(super) fn start(folder: &Path) -> Self {
        let mut behaviour = Behaviour::default();
        for path in inarch_core::file::list(folder).expect("a folder") {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            behaviour.files.insert(name, std::fs::read(&path).expect("a file"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let host = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Mutex::new(behaviour));
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&server).stopped {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let server = Arc::clone(&server);
                std::thread::spawn(move || drop(serve(stream, &server)));
            }
        });
        Self { host, shared }
    }

    pub(super) fn address(&self) -> String {
        format!("http://{}", self.host)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Behaviour) -> T) -> T {
        look(&mut lock(&self.shared))
    }

    /// What was asked since the last call.
    pub(super) fn requests(&self) -> Vec<String> {
        self.with(|behaviour| std::mem::take(&mut behaviour.requests))
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.with(|behaviour| behaviour.stopped = true);
        let _ = TcpStream::connect(&self.host);
    }
}

fn lock(shared: &Mutex<Behaviour>) -> MutexGuard<'_, Behaviour> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one from a counter, if there is one.
fn take(counter: &mut usize) -> bool {
    let is_left = *counter > 0;
    *counter = counter.saturating_sub(1);
    is_left
}

/// Weights are kept beside git, everything else in it.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// What git calls a file.
pub(super) fn git_name(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()).as_bytes());
    hash.update(bytes);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum that a file goes by in the cache.
pub(super) fn checksum(name: &str, bytes: &[u8]) -> String {
    if is_large(name) { Digest::of(bytes).hex().to_string() } else { git_name(bytes) }
}

fn listing(behaviour: &Behaviour) -> Value {
    let mut siblings: Vec<Value> = behaviour
        .files
        .iter()
        .map(|(name, bytes)| {
            let size = behaviour.claimed.filter(|_| is_large(name)).unwrap_or(bytes.len() as u64);
            match (behaviour.is_terse, is_large(name)) {
                (true, _) => json!({ "rfilename": name }),
                (false, true) => {
                    let lfs = json!({ "sha256": checksum(name, bytes), "size": size, "pointerSize": 134 });
                    json!({ "rfilename": name, "size": size, "blobId": git_name(b"a pointer"), "lfs": lfs })
                }
                (false, false) => json!({ "rfilename": name, "size": size, "blobId": git_name(bytes) }),
            }
        })
        .collect();
    siblings.extend(behaviour.further.iter().map(|name| json!({ "rfilename": name })));
    json!({ "id": REPOSITORY, "sha": COMMIT, "siblings": siblings })
}

fn serve(stream: TcpStream, shared: &Mutex<Behaviour>) -> std::io::Result<()> {
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
    let mut behaviour = lock(shared);
    let path = target.split('?').next().unwrap_or_default().trim_start_matches('/').to_string();
    let range = headers.get("range").cloned().unwrap_or_default();
    behaviour.requests.push(format!("{method} {path} {range}").trim_end().to_string());
    let is_head = method == "HEAD";
    if take(&mut behaviour.refusals) {
        return answer(stream, "503 Service Unavailable", &[], b"", is_head);
    }
    if let Some(name) = path.strip_prefix("storage/") {
        // What storage is sent must not hold what the hub was sent; here both are one host, so only the content counts.
        let bytes = behaviour.files.get(name).cloned().unwrap_or_default();
        let offset = range.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok());
        return send(stream, &mut behaviour, bytes, offset.unwrap_or(0), is_head);
    }
    let expected = behaviour.token.as_ref().map(|token| format!("Bearer {token}"));
    if expected.is_some() && headers.get("authorization") != expected.as_ref() {
        return answer(stream, "401 Unauthorized", &[("X-Error-Code", "GatedRepo".to_string())], b"", is_head);
    }
    let missing =
        |stream, code: &str| answer(stream, "404 Not Found", &[("X-Error-Code", code.to_string())], b"", is_head);
    if let Some(rest) = path.strip_prefix("api/models/") {
        let Some(revision) = rest.strip_prefix(REPOSITORY).and_then(|rest| rest.strip_prefix("/revision/")) else {
            return missing(stream, "RepoNotFound");
        };
        if !REVISIONS.contains(&revision) {
            return missing(stream, "RevisionNotFound");
        }
        return answer(stream, "200 OK", &[], listing(&behaviour).to_string().as_bytes(), is_head);
    }
    let name = path.strip_prefix(&format!("{REPOSITORY}/resolve/{COMMIT}/")).unwrap_or_default();
    let Some(bytes) = behaviour.files.get(name) else { return missing(stream, "EntryNotFound") };
    if is_large(name) {
        let headers = [
            ("Location", format!("/storage/{name}?signature=secret")),
            ("X-Linked-Etag", format!("\"{}\"", checksum(name, bytes))),
            ("X-Linked-Size", bytes.len().to_string()),
        ];
        return answer(stream, "302 Found", &headers, b"elsewhere", is_head);
    }
    answer(stream, "200 OK", &[("ETag", format!("\"{}\"", git_name(bytes)))], bytes, is_head)
}

/// Sends a large file from a byte on.
fn send(
    mut stream: TcpStream,
    behaviour: &mut Behaviour,
    mut bytes: Vec<u8>,
    offset: usize,
    is_head: bool,
) -> std::io::Result<()> {
    if behaviour.corrupts && !bytes.is_empty() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
    }
    let all = bytes.len();
    let rest = bytes.split_off(offset.min(all));
    let (status, mut headers) = match offset {
        0 => ("200 OK", Vec::new()),
        _ => {
            ("206 Partial Content", vec![("Content-Range", format!("bytes {offset}-{}/{all}", all.saturating_sub(1)))])
        }
    };
    headers.push(("ETag", "\"what storage calls it\"".to_string()));
    if take(&mut behaviour.cuts) {
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len())?;
        return stream.write_all(&rest[..rest.len() / 2]);
    }
    answer(stream, status, &headers, &rest, is_head)
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
