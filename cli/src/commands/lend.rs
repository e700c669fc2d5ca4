//! `inarch lend`: a device of this machine for other machines.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use inarch_core::{TOKEN_VARIABLE, device_token};
use serde::Serialize;

use crate::args::LendArgs;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::stop_signal;

/// How often is looked whether it shall stop.
const GLANCE: Duration = Duration::from_millis(50);

/// What is printed with `--json`, once borrowers may come.
#[derive(Serialize)]
struct LendResult {
    device: String,
    address: String,
    token: bool,
}

pub(crate) fn run(args: &LendArgs, output: &Output) -> Result<(), CommandError> {
    let token = device_token();
    if token.is_none() && !args.listen.ip().is_loopback() {
        return Err(CommandError::refused(
            format!("`{}` is reached by other machines, and there is no token", args.listen),
            format!("set {TOKEN_VARIABLE} to a long random word here and on the machines that borrow"),
        ));
    }
    let device = inarch_core::device(&args.device.device)?;
    let busy = |error| {
        let hint = "`--listen 127.0.0.1:0` takes a free port";
        CommandError::failed(format!("cannot listen on `{}`: {error}", args.listen), hint)
    };
    let listener = TcpListener::bind(args.listen).map_err(busy)?;
    let address = listener.local_addr().map_err(busy)?.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(busy)?;
    let stop = stop_signal();
    runtime.block_on(async move {
        let lent = inarch_core::lend(&device, listener, token.as_deref())?;
        let result = LendResult { device: args.device.device.clone(), address, token: token.is_some() };
        output.result(&result, || {
            let open = if result.token { "" } else { "; open to all on this machine" };
            format!(
                "`--device remote:{}` computes on `{}` here{open}; Ctrl-C stops it\n",
                result.address, result.device
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
