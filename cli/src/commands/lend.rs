//! `inarch lend`: a device of this machine for other machines.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inarch_core::{TOKEN_VARIABLE, device_token};
use serde::Serialize;

use crate::args::LendArgs;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::stop_signal;

/// How often is looked whether it shall stop.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes of a token that is drawn.
const TOKEN_BYTES: usize = 24;

/// What is printed with `--json`, once borrowers may come.
#[derive(Serialize)]
struct LendResult {
    device: String,
    address: String,
    /// The token that was drawn; absent where the environment had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

pub(crate) fn run(args: &LendArgs, output: &Output) -> Result<(), CommandError> {
    let name = &args.device.device;
    if ["libtorch", "remote"].contains(&name.split(':').next().unwrap_or_default()) {
        let hint = "lend the processor or a device of `cuda`, `vulkan`, `wgpu`, `metal` or `rocm`";
        return Err(CommandError::refused(format!("device `{name}` cannot be lent"), hint));
    }
    let device = inarch_core::device(name)?;
    // Also on this machine alone: a page in a browser here reaches the port as well.
    let (token, drawn) = match device_token()? {
        Some(token) => (token, None),
        None => {
            let token = fresh_token()?;
            (token.clone(), Some(token))
        }
    };
    let busy = |error| {
        let hint = "`--listen 127.0.0.1:0` takes a free port";
        CommandError::failed(format!("cannot listen on `{}`: {error}", args.listen), hint)
    };
    let listener = TcpListener::bind(args.listen).map_err(busy)?;
    let address = listener.local_addr().map_err(busy)?.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::failed(format!("no threads to lend with: {error}"), "try again"))?;
    let stop = stop_signal();
    runtime.block_on(async move {
        let lent = inarch_core::lend(&device, listener, &token)?;
        let result = LendResult { device: name.clone(), address, token: drawn };
        output.result(&result, || {
            let token = result.token.as_ref().map(|token| format!("with {TOKEN_VARIABLE}={token}\n"));
            format!(
                "`--device remote:{}` computes on `{}` here; Ctrl-C stops it\n{}",
                result.address,
                result.device,
                token.unwrap_or_default()
            )
        });
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::select! {
            ended = lent => Ok(ended?),
            () = stopped => Ok(()),
        }
    })
}

/// A word that nobody guesses.
fn fresh_token() -> Result<String, CommandError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        let hint = format!("set {TOKEN_VARIABLE} to a long random word here and on the machine that borrows");
        CommandError::failed(format!("no random numbers: {error}"), hint)
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
