//! `registry log` and `registry diff`.

use inarch_registry::{Event, MoveKind};
use serde::Serialize;

use super::list::{day, title};
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

/// What `log --json` prints.
#[derive(Serialize)]
struct LogResult {
    events: Vec<Event>,
}

pub(super) fn log(name: &str, limit: usize, output: &Output) -> Result<(), CommandError> {
    let mut events = published::open()?.log(&name.parse()?)?;
    events.truncate(limit);
    let result = LogResult { events };
    output.result(&result, || result.events.iter().map(line).collect());
    Ok(())
}

fn line(event: &Event) -> String {
    let at = day(event.at());
    match event {
        Event::Published { version, .. } => format!("{at}  published {} {}\n", title(version), version.digest.short()),
        Event::Removed { number, .. } => format!("{at}  removed {number}\n"),
        Event::Moved { alias, step } => {
            let side = |number: Option<u64>| number.map_or("nothing".into(), |number| number.to_string());
            let verb = match step.kind {
                MoveKind::Rollback => "rolled back",
                MoveKind::Delete => "deleted",
                MoveKind::Set => "moved",
            };
            let why = if step.why.is_empty() { String::new() } else { format!(": {}", step.why) };
            format!("{at}  {verb} {alias} {} -> {}{why}\n", side(step.from), side(step.to))
        }
    }
}

pub(super) fn diff(before: &str, after: &str, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let result = registry.diff(&registry.resolve(before)?, &registry.resolve(after)?)?;
    output.result(&result, || {
        let mut text = format!("{} -> {}\n", title(&result.before), title(&result.after));
        for (fact, [before, after]) in &result.facts {
            text.push_str(&format!("  {fact}: {} -> {}\n", or_none(before), or_none(after)));
        }
        for change in &result.files {
            let verb = match (change.before, change.after) {
                (None, _) => "new",
                (_, None) => "gone",
                _ => "changed",
            };
            text.push_str(&format!(
                "  {}: {verb}, {} -> {} bytes\n",
                change.file, change.bytes_before, change.bytes_after
            ));
        }
        text.push_str(&format!("  the same in both: {} bytes\n", result.shared_bytes));
        text
    });
    Ok(())
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}
