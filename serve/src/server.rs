//! A server from its settings to its end.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use inarch_core::backbone::Backbone;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use crate::adapters::{Bind, Shelf, Source};
use crate::engine::{Engine, EngineSettings};
use crate::error::{Error, Result};
use crate::http::{App, Tokens, openapi, router};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::streams::Streams;

/// An adapter that is there from the start.
#[derive(Debug, Clone)]
pub enum Preload {
    /// The adapter in a folder, under a name.
    Folder {
        /// The name.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// An adapter of the source, kept in memory.
    Reference(String),
}

/// A server that listens, and serves once it is [run](Self::run) or [spawned](Self::spawn).
///
/// ```no_run
/// use std::sync::Arc;
/// use inarch_serve::{Server, Settings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = inarch_core::device("cpu")?;
/// let backbone = inarch_core::checkpoint::open_backbone("clip-b32".as_ref(), &device)?;
/// let server = Server::bind(Arc::new(backbone), None, &[], Settings::default())?;
/// println!("http://{}", server.address());
/// let running = server.spawn();
/// running.stop();
/// # Ok(())
/// # }
/// ```
pub struct Server {
    app: Arc<App>,
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
}

impl Server {
    /// Loads what shall be there from the start, and listens.
    ///
    /// # Errors
    /// An adapter that cannot be loaded, a file of tokens or certificates that cannot be read, an address that is taken.
    pub fn bind(
        backbone: Arc<Backbone>,
        source: Option<Arc<dyn Source>>,
        preload: &[Preload],
        settings: Settings,
    ) -> Result<Self> {
        backbone.need_towers("a server")?;
        let address = settings.address;
        let listen = |source| Error::Listen { address, source };
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(listen)?;
        let metrics = Arc::new(Metrics::new());
        let engine = EngineSettings {
            batch: settings.batch.max(1),
            wait: settings.batch_wait,
            queue: settings.queue,
            workers: settings.workers,
            fold: settings.fold,
        };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let app = Arc::new(App {
            shelf: Shelf::new(backbone.clone(), source, settings.adapter_bytes, settings.class_bytes),
            engine: Engine::start(&backbone, engine, &metrics),
            metrics,
            tokens: settings.tokens.as_deref().map(Tokens::read).transpose()?,
            decoders: Semaphore::new(2 * cores),
            adapting: Arc::new(Semaphore::new(1)),
            streams: Streams::default(),
            stopping: AtomicBool::new(false),
            backbone,
            settings,
        });
        runtime.block_on(load(&app, preload))?;
        let tls = match &app.settings.tls {
            None => None,
            Some(tls) => {
                // A second server of this process finds the provider installed already.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let config = RustlsConfig::from_pem_file(&tls.certificate, &tls.key);
                let wrong = |source| Error::Tls { certificate: tls.certificate.clone(), key: tls.key.clone(), source };
                Some(runtime.block_on(config).map_err(wrong)?)
            }
        };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { app, runtime, listener, address, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The description of its routes, OpenAPI as JSON.
    pub fn openapi(&self) -> String {
        openapi(&self.app)
    }

    /// Serves until `stop` is ready, then answers what is in flight and ends.
    ///
    /// # Errors
    /// The socket fails.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Self { app, runtime, listener, address, tls } = self;
        let service = router(app.clone()).into_make_service();
        let handle = Handle::new();
        let (stopped, drain) = (handle.clone(), app.settings.drain);
        let state = app.clone();
        runtime.spawn(async move {
            stop.await;
            state.stopping.store(true, Ordering::Relaxed);
            stopped.graceful_shutdown(Some(drain));
        });
        let failed = |source| Error::Listen { address, source };
        let silence = app.settings.silence;
        let outcome = runtime.block_on(async move {
            match tls {
                Some(tls) => {
                    let mut server = axum_server::from_tcp_rustls(listener, tls)?;
                    server.http_builder().http1().header_read_timeout(silence);
                    server.handle(handle).serve(service).await
                }
                None => {
                    let mut server = axum_server::from_tcp(listener)?;
                    server.http_builder().http1().header_read_timeout(silence);
                    server.handle(handle).serve(service).await
                }
            }
        });
        app.engine.close();
        outcome.map_err(failed)
    }

    /// Serves on a thread of its own.
    pub fn spawn(self) -> Running {
        let address = self.address;
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            // A handle that was dropped means stop as well.
            let _ = stopped.await;
        };
        let thread = std::thread::spawn(move || self.run(until));
        Running { address, stop: Some(stop), thread: Some(thread) }
    }
}

/// A server on a thread of its own; it stops when this is dropped.
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers what is in flight and ends.
    pub fn stop(self) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn load(app: &App, preload: &[Preload]) -> Result<()> {
    for one in preload {
        let outcome = match one {
            Preload::Folder { name, folder } => {
                let (name, folder) = (name.clone(), folder.clone());
                app.shelf.bind(Bind { name, folder, pin: true, replace: false, expected: None }).await
            }
            Preload::Reference(reference) => app.shelf.pin(reference).await,
        };
        // Only this call waits for the adapter, but the cache may not have let go of its fault yet.
        outcome.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared))?;
    }
    Ok(())
}
