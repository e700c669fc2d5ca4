//! `registry export` and `registry import`.

use std::path::Path;

use super::list::title;
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

pub(super) fn export(references: &[String], path: &Path, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let versions = references.iter().map(|reference| Ok(registry.resolve(reference)?));
    let versions = versions.collect::<Result<Vec<_>, CommandError>>()?;
    let report = registry.export(&versions, path)?;
    output.result(&report, || {
        format!("{} versions in {} blobs ({} bytes) in {}", report.versions, report.blobs, report.bytes, path.display())
    });
    Ok(())
}

pub(super) fn import(bundle: &Path, set_aliases: bool, output: &Output) -> Result<(), CommandError> {
    let report = published::open()?.import(bundle, set_aliases)?;
    output.result(&report, || {
        let mut text: String = report.imported.iter().map(|version| format!("imported {}\n", title(version))).collect();
        text.extend(report.present.iter().map(|version| format!("{} is here already\n", title(version))));
        for (name, alias, number) in &report.aliases {
            let verb = if set_aliases { "set" } else { "not set (--aliases sets it)" };
            text.push_str(&format!("alias {name}@{alias} -> {number}: {verb}\n"));
        }
        if report.skipped > 0 {
            text.push_str(&format!("{} entries are no adapters\n", report.skipped));
        }
        text
    });
    Ok(())
}
