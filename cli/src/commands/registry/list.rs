//! `registry list` and `registry show`.

use inarch_registry::{Card, Found, Query, Version};
use serde::Serialize;

use crate::args::ListArgs;
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::published;

/// What `list --json` prints.
#[derive(Serialize)]
struct ListResult {
    versions: Vec<Found>,
}

pub(super) fn list(args: &ListArgs, output: &Output) -> Result<(), CommandError> {
    let query = Query {
        name: args.name.clone(),
        method: args.method.clone(),
        backbone: args.backbone.clone(),
        data: args.data.clone(),
        labels: args.label.iter().cloned().collect(),
        metrics: args.bounds.clone(),
        limit: args.limit,
    };
    let result = ListResult { versions: published::open()?.search(&query)? };
    output.result(&result, || {
        if result.versions.is_empty() {
            return "no adapter matches; `inarch registry publish FOLDER NAME` publishes one".into();
        }
        let mut rows =
            vec![["version", "aliases", "method", "backbone", "accuracy", "published"].map(String::from).to_vec()];
        for Found { version, card, aliases } in &result.versions {
            let aliases: Vec<&str> = aliases.iter().map(|alias| alias.as_str()).collect();
            rows.push(vec![
                title(version),
                aliases.join(","),
                card.method.clone(),
                card.backbone_name.clone(),
                card.metrics.get("accuracy").map_or(String::new(), |accuracy| crate::output::percent(*accuracy)),
                day(&version.published),
            ]);
        }
        table(&rows)
    });
    Ok(())
}

/// What `show --json` prints.
#[derive(Serialize)]
struct ShowResult {
    #[serde(flatten)]
    version: Version,
    card: Card,
    aliases: Vec<String>,
    is_pinned: bool,
    files: Vec<FileEntry>,
    attachments: Vec<String>,
    bytes: u64,
}

#[derive(Serialize)]
struct FileEntry {
    file: String,
    bytes: u64,
    digest: inarch_registry::Digest,
}

pub(super) fn show(reference: &str, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let version = registry.resolve(reference)?;
    let manifest = registry.manifest(&version.digest)?;
    let aliases = registry.aliases(&version.name)?;
    let result = ShowResult {
        card: registry.card(&version)?,
        aliases: aliases
            .into_iter()
            .filter(|(_, number)| *number == version.number)
            .map(|(alias, _)| alias.to_string())
            .collect(),
        is_pinned: registry.pins(&version.name)?.contains(&version.number),
        files: manifest
            .layers
            .iter()
            .map(|layer| FileEntry {
                file: layer.title().unwrap_or("(unnamed)").into(),
                bytes: layer.size,
                digest: layer.digest,
            })
            .collect(),
        attachments: registry
            .attachments(&version)?
            .into_iter()
            .map(|(_, manifest)| manifest.artifact_type.unwrap_or_default())
            .collect(),
        bytes: manifest.bytes(),
        version,
    };
    output.result(&result, || text(&result));
    Ok(())
}

fn text(result: &ShowResult) -> String {
    let ShowResult { version, card, aliases, is_pinned, files, attachments, bytes } = result;
    let mut text = format!("{}\n", title(version));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
    };
    line("digest", version.digest.to_string());
    line("published", version.published.clone());
    line("aliases", aliases.join(", "));
    line("pinned", if *is_pinned { "yes".into() } else { String::new() });
    line("method", format!("{}, {} trained values, {} classes", card.method, card.parameters, card.classes));
    line("backbone", format!("{} ({})", card.backbone_name, card.backbone));
    line("data", card.data.clone().unwrap_or_default());
    line("parents", card.parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    line("verdict", card.verdict.as_ref().map_or(String::new(), |verdict| format!("{verdict:?}")));
    for (name, value) in &card.metrics {
        line("metric", format!("{name} {value:.4}"));
    }
    for (key, value) in &card.labels {
        line("label", format!("{key}={value}"));
    }
    for file in files {
        line("file", format!("{} {} bytes, {}", file.file, file.bytes, file.digest.short()));
    }
    for attachment in attachments {
        line("attached", attachment.clone());
    }
    line("size", format!("{bytes} bytes"));
    text
}

/// `chest@3`, with the semantic version where there is one.
pub(super) fn title(version: &Version) -> String {
    match &version.release {
        Some(release) => format!("{version} ({release})"),
        None => version.to_string(),
    }
}

/// A time to the second.
pub(super) fn day(time: &str) -> String {
    time.chars().take(19).collect::<String>().replace('T', " ")
}
