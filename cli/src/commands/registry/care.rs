//! `registry verify`, `checkout`, `pin`, `gc` and `reindex`.

use std::path::PathBuf;

use inarch_registry::{GcPolicy, VerifyReport, Version};
use serde::Serialize;

use super::list::title;
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

pub(super) fn verify(reference: Option<&str>, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let report = match reference {
        Some(reference) => registry.verify_version(&registry.resolve(reference)?)?,
        None => registry.verify()?,
    };
    output.result(&report, || text(&report));
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => Err(CommandError::failed(
            format!("{} of what was verified is wrong, first `{}`", report.problems.len(), problem.what),
            "publish, pull or import the version again: what is whole stays, what is damaged is replaced",
        )),
    }
}

fn text(report: &VerifyReport) -> String {
    let mut text: String =
        report.problems.iter().map(|problem| format!("{}: {}\n", problem.what, problem.reason)).collect();
    text.push_str(&format!(
        "{} versions, {} blobs, {} bytes: {}\n",
        report.versions,
        report.blobs,
        report.bytes,
        if report.problems.is_empty() { "all whole".into() } else { format!("{} problems", report.problems.len()) }
    ));
    if report.garbage > 0 {
        text.push_str(&format!("{} blobs belong to nothing; `inarch registry gc` removes them\n", report.garbage));
    }
    text
}

/// What `checkout --json` prints.
#[derive(Serialize)]
struct CheckoutResult {
    #[serde(flatten)]
    version: Version,
    folder: PathBuf,
}

pub(super) fn checkout(reference: &str, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let checkout = registry.checkout(&registry.resolve(reference)?)?;
    let result = CheckoutResult { version: checkout.version().clone(), folder: checkout.folder().to_path_buf() };
    output.result(&result, || result.folder.display().to_string());
    Ok(())
}

/// What `pin --json` prints.
#[derive(Serialize)]
struct PinResult {
    #[serde(flatten)]
    version: Version,
    is_pinned: bool,
}

pub(super) fn pin(reference: &str, remove: bool, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let version = registry.resolve(reference)?;
    registry.pin(&version, !remove)?;
    let result = PinResult { version, is_pinned: !remove };
    output.result(&result, || {
        format!("{} is {}", title(&result.version), if remove { "no longer pinned" } else { "pinned" })
    });
    Ok(())
}

pub(super) fn gc(keep: Option<usize>, dry_run: bool, output: &Output) -> Result<(), CommandError> {
    let report = published::open()?.gc(&GcPolicy { keep, dry_run })?;
    output.result(&report, || {
        let verb = if dry_run { "would remove" } else { "removed" };
        let mut text: String =
            report.versions.iter().map(|removal| format!("{verb} {}\n", title(&removal.version))).collect();
        text.push_str(&format!(
            "{verb} {} versions, {} blobs ({} bytes), {} unused checkouts, {} unfinished files\n",
            report.versions.len(),
            report.blobs,
            report.bytes,
            report.checkouts,
            report.unfinished
        ));
        text
    });
    Ok(())
}

pub(super) fn reindex(output: &Output) -> Result<(), CommandError> {
    let report = published::open()?.reindex()?;
    output.result(&report, || format!("indexed {} versions of {} adapters", report.versions, report.names));
    Ok(())
}
