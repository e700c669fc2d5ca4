//! Settings in the commands of the guide reach the program as they are meant, through a shell that takes blanks and quotes.

use std::path::{Path, PathBuf};

use toml::Table;

/// Options whose values may be tables and lists.
const OPTIONS: [&str; 2] = ["--set ", "--tune "];

/// Where commands are shown: the guide, and the heads of recipes.
const PLACES: [(&str, &str); 7] = [
    ("", "md"),
    ("docs", "md"),
    ("docs/decisions", "md"),
    ("benches/peers", "md"),
    ("recipes/presets", "toml"),
    ("recipes/examples", "toml"),
    ("continual/recipes", "toml"),
];

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let of = |(folder, ending): (&str, &str)| {
        let files = inarch_core::file::list(&root.join(folder)).expect("a folder of the repository");
        files.into_iter().filter(|path| path.extension().is_some_and(|found| found == ending)).collect::<Vec<_>>()
    };
    PLACES.into_iter().flat_map(of).collect()
}

/// The values of those options in a text, as a shell hands them over.
fn values(text: &str) -> Vec<String> {
    let after =
        |option: &'static str| text.match_indices(option).map(move |(at, found)| word(&text[at + found.len()..]));
    OPTIONS.into_iter().flat_map(after).collect()
}

/// The first word of a text: up to a blank outside of quotes, or the end of code within a line.
fn word(text: &str) -> String {
    let mut word = String::new();
    let mut quote = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match quote {
            Some(open) if next == open => quote = None,
            None if next == '\'' || next == '"' => quote = Some(next),
            None if next == '`' || next.is_whitespace() => break,
            None | Some('"') if next == '\\' => word.extend(rest.next()),
            _ => word.push(next),
        }
    }
    word
}

/// Whether a value is the beginning of a table or a list and no more, which is what an unquoted one with blanks comes to, or
/// has lost its inner quotes.
fn is_broken(value: &str) -> bool {
    let Some((_, given)) = value.split_once('=') else { return false };
    given.starts_with(['{', '[']) && toml::from_str::<Table>(&format!("value = {given}")).is_err()
}

#[test]
fn tables_and_lists_of_the_guide_are_quoted() {
    let (mut all, mut tables) = (0, 0);
    for path in pages() {
        let text = std::fs::read_to_string(&path).expect("a page");
        for value in values(&text) {
            assert!(!is_broken(&value), "{}: a shell makes `{value}` of a setting; quote it", path.display());
            all += 1;
            tables += usize::from(value.contains(['{', '[']));
        }
    }
    assert!(all > 40 && tables > 10, "{all} settings, {tables} tables or lists: are commands still found?");
}

#[test]
fn what_a_shell_would_take_apart_is_found() {
    let broken = |text: &str| values(text).iter().map(|value| is_broken(value)).collect::<Vec<_>>();
    assert_eq!(broken("fit --set train.budget={ iterations = 4 } --set views=1"), [true, false]);
    assert_eq!(broken("fit --set 'train.budget={ iterations = 4 }' --set method.rank=4"), [false, false]);
    assert_eq!(broken("`--set method.targets=[\"image.*\"]`"), [true], "the quotes are the shell's");
    assert_eq!(
        broken("`--set 'method.targets=[\"image.*\"]'`, `--set name=\\\"er\\\"` or `--set KEY=VALUE`"),
        [false; 3]
    );
    assert_eq!(values("--tune a=1,2 and `--set b=3`"), ["b=3", "a=1,2"]);
}
