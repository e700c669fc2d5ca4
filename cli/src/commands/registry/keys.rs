//! `registry keys` and `registry sign`.

use std::path::{Path, PathBuf};

use inarch_registry::{Policy, PublicKey, SecretKey, Version};
use serde::Serialize;

use super::list::title;
use crate::args::KeysCommand;
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

/// What is printed with `--json`.
#[derive(Serialize)]
struct KeysResult {
    /// How many must have signed; 0 without a policy.
    threshold: usize,
    /// Ids of the trusted keys.
    trusted: Vec<String>,
}

/// What `generate --json` prints.
#[derive(Serialize)]
struct GenerateResult {
    id: String,
    secret: PathBuf,
    public: PathBuf,
}

pub(super) fn run(command: &KeysCommand, output: &Output) -> Result<(), CommandError> {
    match command {
        KeysCommand::Generate { file } => {
            let key = SecretKey::generate()?;
            key.write(file)?;
            let public = PathBuf::from(format!("{}.pub", file.display()));
            let result = GenerateResult { id: key.public().id().to_string(), secret: file.clone(), public };
            output.result(&result, || {
                format!(
                    "key {}\n  secret {} (keep it)\n  public {} (give it away)",
                    result.id,
                    file.display(),
                    result.public.display()
                )
            });
        }
        KeysCommand::Trust { file, threshold } => {
            let policy = published::open()?.trust(&PublicKey::read(file)?, *threshold)?;
            show(Some(policy), output);
        }
        KeysCommand::Distrust { file } => show(published::open()?.distrust(&PublicKey::read(file)?.id())?, output),
        KeysCommand::List => show(published::open()?.policy()?, output),
    }
    Ok(())
}

fn show(policy: Option<Policy>, output: &Output) {
    let policy = policy.unwrap_or_default();
    let trusted: Vec<String> = policy.keys().iter().map(|key| key.id().to_string()).collect();
    let result = KeysResult { threshold: policy.threshold, trusted };
    output.result(&result, || {
        if result.trusted.is_empty() {
            return "no key is trusted: adapters need no signatures here".into();
        }
        let mut text = format!("{} of these keys must have signed what is used here:\n", result.threshold);
        text.extend(result.trusted.iter().map(|id| format!("  {id}\n")));
        text
    });
}

/// What `sign --json` prints.
#[derive(Serialize)]
struct SignResult {
    #[serde(flatten)]
    version: Version,
    key: String,
}

pub(super) fn sign(reference: &str, key: &Path, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let version = registry.resolve(reference)?;
    let key = SecretKey::read(key)?;
    registry.sign(&version, &key)?;
    let result = SignResult { version, key: key.public().id().to_string() };
    output.result(&result, || format!("{} is signed by {}", title(&result.version), result.key));
    Ok(())
}
