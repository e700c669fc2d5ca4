//! What an operator decides about a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a server; the defaults suit one machine behind a proxy.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Most bytes of a request's body.
    pub body_bytes: usize,
    /// Most pixels of an image, checked before it is decoded.
    pub image_pixels: u64,
    /// Most images of one request.
    pub images: usize,
    /// Most class names of one request.
    pub classes: usize,
    /// Most images of one pass through the backbone.
    pub batch: usize,
    /// How long a batch waits for more images once it has one.
    pub batch_wait: Duration,
    /// Most images that wait; more are answered with 429.
    pub queue: usize,
    /// Most time from arrival to answer.
    pub timeout: Duration,
    /// How long a client may send nothing of a request that it has begun, or keep a connection without one.
    pub silence: Duration,
    /// Bytes of adapters kept in memory.
    pub adapter_bytes: u64,
    /// Bytes of class features kept in memory.
    pub class_bytes: u64,
    /// Threads that run the backbone.
    pub workers: usize,
    /// Whether an adapter that has the machine to itself may be written into a copy of the weights.
    pub fold: bool,
    /// Folder below which adapters may be loaded by path; none when absent.
    pub adapter_root: Option<PathBuf>,
    /// Who may do what; all is open when absent.
    pub tokens: Option<PathBuf>,
    /// Certificate chain and private key, PEM.
    pub tls: Option<Tls>,
    /// Origins whose pages may call this server.
    pub cors: Vec<String>,
    /// How long requests in flight may take once the server is told to stop.
    pub drain: Duration,
}

/// Files of a certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_bytes: 32 << 20,
            image_pixels: 50_000_000,
            images: 256,
            classes: 10_000,
            batch: 32,
            batch_wait: Duration::ZERO,
            queue: 1024,
            timeout: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            adapter_bytes: 1 << 30,
            class_bytes: 256 << 20,
            workers: 1,
            fold: true,
            adapter_root: None,
            tokens: None,
            tls: None,
            cors: Vec::new(),
            drain: Duration::from_secs(10),
        }
    }
}
