//! The Python server that serving is compared with.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Arguments, Fault, Load, agent, load};

/// A Python server that ends with this value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same load on the Python server, once switching adapters by request and once with mixed batches.
pub(super) fn theirs(
    python: &Path,
    arguments: &Arguments,
    images: &[Vec<u8>],
    root: &Path,
) -> Result<Vec<Load>, Fault> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/serve.py");
    let mut loads = Vec::new();
    let most = arguments.peer_adapters.min(arguments.adapters);
    for (server, mode, mixes) in
        [("PEFT, set_adapter", "switch", vec![1, most]), ("PEFT, adapter_names", "mixed", vec![1, 16, most])]
    {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        drop(listener);
        let mut command = Command::new(python);
        command.arg(&script).arg(&arguments.backbone).arg(root).arg(most.to_string());
        command.arg(address.port().to_string()).arg(mode).stdin(Stdio::null());
        let _peer = Peer(command.spawn()?);
        wait_for(address)?;
        load("warm-up", address, images, mixes[0], arguments);
        for mix in mixes {
            loads.push(load(server, address, images, mix, arguments));
        }
    }
    Ok(loads)
}

fn wait_for(address: SocketAddr) -> Result<(), Fault> {
    let until = Instant::now() + Duration::from_secs(1800);
    while Instant::now() < until {
        if agent().get(format!("http://{address}/health")).call().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err("the peer does not answer".into())
}
