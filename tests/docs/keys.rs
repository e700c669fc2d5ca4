//! What `docs/json.md` says of the keys of an object.
//!
//! A heading is followed by a table of the object's own keys; the tables after that one are of objects inside it. Where its
//! first column is `command`, a row is of the commands named there, and a row without one of those above it. A key may be
//! absent where its meaning says so, and is of one command alone where that says "`COMMAND` only". `the keys of a
//! [name](#anchor)` in place of a key stands for the keys below that heading.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::page;

/// Keys, each with whether it is always there.
pub(crate) type Keys = BTreeMap<String, bool>;

/// The keys that the page says a command's object has, below a heading.
#[track_caller]
pub(crate) fn documented(heading: &str, command: &str) -> Keys {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| page("json.md"));
    let keys = read(page, &anchor(heading), command);
    assert!(!keys.is_empty(), "docs/json.md has no keys of `{command}` below the heading `{heading}`");
    keys
}

/// What a link to a heading names it by.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn read(page: &str, place: &str, command: &str) -> Keys {
    let mut keys = Keys::new();
    let mut commands = "";
    for row in table(page, place) {
        // The cell of the commands, where there is one, then key, type and meaning.
        let (named, rest) = row.split_at(row.len().saturating_sub(3));
        let [key, _, meaning] = rest else { panic!("a row of {} cells below #{place}: {row:?}", row.len()) };
        if let Some(&named) = named.first().filter(|named| !named.is_empty()) {
            commands = named;
        }
        let names = |text: &str| text.contains(&format!("`{command}`"));
        let is_of = match commands {
            "" => true,
            all_but if all_but.starts_with("all") => !names(all_but),
            some => names(some),
        };
        let is_of_others = meaning.contains("` only") && !meaning.contains(&format!("`{command}` only"));
        if !is_of || is_of_others {
            continue;
        }
        let always = !meaning.contains("absent");
        match key.split_once("](#").and_then(|(_, rest)| rest.split_once(')')) {
            Some((other, _)) => {
                let inner = read(page, other, command);
                assert!(!inner.is_empty(), "no keys below #{other}, which #{place} links to");
                keys.extend(inner.into_iter().map(|(key, inner)| (key, inner && always)));
            }
            None => {
                // `a.b` is of an object inside.
                let own = key.split('`').skip(1).step_by(2).filter(|key| !key.contains('.'));
                keys.extend(own.map(|key| (key.to_string(), always)));
            }
        }
    }
    keys
}

/// The cells of the first table below a heading, without its head.
fn table<'a>(page: &'a str, place: &str) -> Vec<Vec<&'a str>> {
    let heading = |line: &'a str| line.strip_prefix("## ").or_else(|| line.strip_prefix("### "));
    let below = page.lines().skip_while(|&line| heading(line).is_none_or(|heading| anchor(heading) != place));
    let section = below.skip(1).take_while(|&line| heading(line).is_none());
    let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn tables_are_read_with_what_they_link_to() {
    let eval = documented("eval", "eval");
    let places = ["accuracy", "temperature", "auroc", "method"].map(|key| eval.get(key).copied());
    assert_eq!(places, [Some(true), Some(false), Some(false), None]);
    let parts = ["combine", "convert"].map(|command| documented("combine and convert", command).contains_key("parts"));
    assert_eq!(parts, [true, false]);
    let output = ["data crop", "data tiles"].map(|command| documented("data commands", command).contains_key("output"));
    assert_eq!(output, [true, true]);
    let move_of = documented("registry commands", "rollback");
    assert_eq!((move_of.get("alias"), move_of.get("why"), move_of.get("card")), (Some(&true), Some(&false), None));
}
