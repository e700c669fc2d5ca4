//! A device of another machine: one process lends it, others compute on it as if it were theirs.
//!
//! Operations travel, not requests, in burn's own protocol over WebSocket, which is not encrypted: it is for a trusted network
//! or the end of a tunnel. The graph of a backward pass stays with the borrower.

use std::env::VarError;
use std::net::TcpListener;

use burn::remote::RemoteHost;
use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};
use burn::tensor::Device;

use crate::error::{Error, Result};

/// The environment variable with the word that lender and borrower share.
pub const TOKEN_VARIABLE: &str = "INARCH_DEVICE_TOKEN";

/// The shared word, where there is one.
///
/// # Errors
/// [`Error::Invalid`] for a word that is no Unicode.
pub fn device_token() -> Result<Option<String>> {
    match std::env::var(TOKEN_VARIABLE) {
        Ok(token) => Ok(Some(token).filter(|token| !token.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::invalid(TOKEN_VARIABLE, "it is not Unicode")),
    }
}

/// Connects to the device that `inarch lend` offers at `address`, `HOST:PORT`.
pub(crate) fn borrow(address: &str) -> Result<Device> {
    let what = || format!("device `remote:{address}`");
    let pair = address.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if pair.is_none() {
        return Err(Error::invalid(what(), "expected `remote:HOST:PORT` of a machine that runs `inarch lend`"));
    }
    let mut host = RemoteHost::websocket(&format!("ws://{address}"));
    if let Some(token) = device_token()? {
        host = host.with_credential(token);
    }
    Device::remote_options(&host).init().map_err(|error| {
        Error::invalid(what(), format!("{error}; `inarch lend` must run there, with the same {TOKEN_VARIABLE}"))
    })
}

/// Lends `device` to all who reach `listener` and know `token`, until the future is dropped, in a Tokio runtime.
///
/// # Errors
/// [`Error::Invalid`] for an empty token; the future ends with one when the connection fails, or for a device that burn does not
/// lend (libtorch, one that is borrowed itself).
pub fn lend(
    device: &Device,
    listener: TcpListener,
    token: &str,
) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
    let fault = |error: &dyn std::fmt::Display| Error::invalid("lending a device", error.to_string());
    let authorizer = TokenAuthorizer::new(token).map_err(|error| fault(&error))?;
    let server = RemoteServer::new([device.clone()]).with_authorizer(authorizer);
    let served = server.serve_async(WebSocketTransport::from_listener(listener));
    Ok(async move { served.await.map_err(|error| fault(&error)) })
}
