//! The model hub as this process finds it: its address, cache and token come from the variables that the hub's own
//! libraries read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use inarch_core::checkpoint::{COMPANION_FILES, WEIGHT_FILES, check_family};
use inarch_registry::{Error as RegistryError, Hub, HubId, Pulled, Snapshot, Transfer, Wanted};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CommandError;

/// The hub where none is named.
const ENDPOINT: &str = "https://huggingface.co";
/// What of a repository is a backbone.
const WANTED: Wanted<'static> = Wanted { beside: &COMPANION_FILES, weights: &WEIGHT_FILES };
/// The longest token, in bytes.
const TOKEN_BYTES: u64 = 4096;

/// Brings a backbone into the cache, whatever of it is there already.
pub(crate) fn pull(id: &HubId) -> Result<Pulled, CommandError> {
    if let Some(variable) = offline() {
        return Err(CommandError::usage(
            format!("`{id}` is not downloaded: {variable} forbids the network"),
            format!(
                "unset {variable} and run `inarch backbone pull {id}`, or copy a folder with its files here and give \
                 its path"
            ),
        ));
    }
    let hub = hub()?;
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:<9} {bar:30} {bytes}/{total_bytes}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix("download");
    let progress = |here: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(here);
    };
    let admit = |folder: &Path| check_family(folder).map_err(|error| error.to_string());
    let pulled = hub.pull(id, WANTED, &admit, &progress);
    bar.finish_and_clear();
    pulled.map_err(explained)
}

/// The folder of a backbone of the hub: from the cache, or else downloaded.
pub(crate) fn locate(id: &HubId) -> Result<PathBuf, CommandError> {
    match cached(id)? {
        Some(folder) => Ok(folder),
        None => download(id),
    }
}

/// The folder of a backbone that was downloaded before.
pub(crate) fn cached(id: &HubId) -> Result<Option<PathBuf>, CommandError> {
    Ok(hub()?.find(id, WANTED))
}

/// The backbones in the cache that can be opened; none where there is no cache.
pub(crate) fn list() -> Vec<Snapshot> {
    let mut snapshots = hub().map(|hub| hub.list(WANTED)).unwrap_or_default();
    snapshots.retain(|snapshot| check_family(&snapshot.path).is_ok());
    snapshots
}

#[expect(clippy::print_stderr, reason = "a command that goes to the network says so")]
fn download(id: &HubId) -> Result<PathBuf, CommandError> {
    if offline().is_none() {
        eprintln!("downloading `{id}` from {}", endpoint());
    }
    let pulled = pull(id).map_err(|error| {
        error.with_hint(format!("`{id}` was taken for a repository of the hub, as no such file or folder is here"))
    })?;
    eprintln!("downloaded {} to `{}`", ByteSize(pulled.moved), pulled.path.display());
    Ok(pulled.path)
}

/// A fault of a pull, with what helps.
fn explained(error: RegistryError) -> CommandError {
    let message = error.to_string();
    match error {
        RegistryError::Remote { .. } => {
            let hint = "run it again: what was moved is kept, and it goes on from there";
            let copy = "without a network: copy a folder with its files here and give its path";
            CommandError::failed(message, hint).with_hint(copy)
        }
        RegistryError::Damaged { .. } => {
            let hint =
                "it was removed: run it again; if it stays so, the hub or a proxy on the way sends something else";
            CommandError::failed(message, hint)
        }
        RegistryError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            let hint = "make room, or set HF_HUB_CACHE to a folder on another disk; what was moved is kept";
            CommandError::failed(message, hint)
        }
        RegistryError::Unknown { .. } => {
            let hint = "look it up on the hub: an id is ORG/NAME, with @REVISION for a branch, a tag or a commit";
            CommandError::usage(message, hint)
        }
        error => error.into(),
    }
}

/// The variable that forbids the network, if one does.
fn offline() -> Option<&'static str> {
    let is_set = |name: &&str| {
        variable(name).is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.to_string_lossy().to_ascii_lowercase().as_str())
        })
    };
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(is_set)
}

fn hub() -> Result<Hub, CommandError> {
    Ok(Hub { endpoint: endpoint(), cache: cache()?, token: token(), transfer: Transfer::default() })
}

fn endpoint() -> String {
    variable("HF_ENDPOINT").map_or(ENDPOINT.into(), |value| value.to_string_lossy().into_owned())
}

/// Where the hub's libraries keep what they download.
fn cache() -> Result<PathBuf, CommandError> {
    let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
    named.or_else(|| Some(home()?.join("hub"))).ok_or_else(|| {
        CommandError::usage("no home directory was found", "set HF_HUB_CACHE to a folder this program may write to")
    })
}

/// What the user is known by: a variable, or the file that `hf auth login` writes.
fn token() -> Option<String> {
    use std::io::Read as _;
    let text = match variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        Some(value) => value.into_string().ok()?,
        None => {
            let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")))?;
            let mut text = String::new();
            std::fs::File::open(path).ok()?.take(TOKEN_BYTES).read_to_string(&mut text).ok()?;
            text
        }
    };
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

/// The folder of the hub's libraries.
fn home() -> Option<PathBuf> {
    let named = variable("HF_HOME").map(PathBuf::from);
    let caches = || {
        let named = variable("XDG_CACHE_HOME").map(PathBuf::from);
        Some(named.or_else(|| Some(directories::BaseDirs::new()?.home_dir().join(".cache")))?.join("huggingface"))
    };
    named.or_else(caches)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
