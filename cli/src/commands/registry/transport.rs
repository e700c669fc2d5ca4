//! `registry push` and `registry pull`.

use inarch_registry::{Expect, PushOptions, Reference, Registry, Remote, Selector, Transfer, Version};

use super::list::title;
use crate::args::{PullArgs, PushArgs};
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

pub(super) fn push(args: &PushArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let remote = published::remote(&args.remote)?;
    let reference: Reference = args.reference.parse()?;
    let version = registry.resolve_reference(&reference)?;
    if !args.without_delta {
        delta_to_previous(&registry, &version)?;
    }
    let tags = match &reference.selector {
        Selector::Alias(alias) => vec![alias.to_string()],
        Selector::Latest => vec![inarch_registry::LATEST.to_string()],
        _ => Vec::new(),
    };
    let report = registry.push(&version, &*remote, &PushOptions { tags }, &Transfer::default())?;
    output.result(&report, || {
        format!(
            "pushed {} to {} as {} ({} bytes)",
            title(&version),
            report.address,
            report.tags.join(", "),
            report.bytes
        )
    });
    Ok(())
}

/// Attaches the difference to the version before, if there is one and it is worth it.
pub(super) fn delta_to_previous(registry: &Registry, version: &Version) -> Result<(), CommandError> {
    let has_delta = registry
        .attachments(version)?
        .iter()
        .any(|(_, manifest)| manifest.artifact_type.as_deref() == Some(inarch_registry::media_type::DELTA));
    let previous = registry.previous(version)?;
    if let Some(previous) = previous.filter(|_| !has_delta) {
        registry.make_delta(&previous, version)?;
    }
    Ok(())
}

pub(super) fn pull(args: &PullArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let remote: Box<dyn Remote> = published::remote(&args.remote)?;
    let reference: Reference = args.reference.parse()?;
    let Some(name) = &reference.name else {
        return Err(CommandError::usage("a digest alone does not say where to look", "give NAME@sha256:.."));
    };
    let alias = args.alias.as_ref().map(|alias| alias.parse()).transpose()?;
    let report = registry.pull(name, &reference.selector, &*remote, &Transfer::default())?;
    if let Some(alias) = &alias {
        registry.tag(
            name,
            alias,
            Some(report.version.number),
            Expect::Any,
            &format!("pulled from {}", remote.address()),
        )?;
    }
    output.result(&report, || match report.is_new {
        true => {
            let share = 100 * report.moved_bytes / report.full_bytes.max(1);
            format!(
                "pulled {}: {} of {} bytes moved ({share} %)",
                title(&report.version),
                report.moved_bytes,
                report.full_bytes
            )
        }
        false => format!("{} is here already", title(&report.version)),
    });
    Ok(())
}
