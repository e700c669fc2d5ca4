//! Faults as people meet them: what happened, why, and what to do.

use std::path::{Path, PathBuf};

use inarch_continual::Error as ContinualError;
use inarch_core::{Error as CoreError, file};
use inarch_peft::{Error as PeftError, MANIFEST_FILE};
use inarch_recipes::Error as RecipeError;
use inarch_registry::Error as RegistryError;
use inarch_serve::Error as ServeError;

/// The most names that a hint lists.
const LISTED: usize = 200;
/// Width of a hint, in characters.
const LINE: usize = 100;

/// What kind of fault it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    Refused,
}

/// The fault that ends a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    message: String,
    hints: Vec<String>,
}

impl CommandError {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into(), hints: vec![hint.into()] }
    }

    /// Something that was tried and went wrong.
    pub(crate) fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into(), hints: vec![hint.into()] }
    }

    /// Something that was said no to.
    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into(), hints: vec![hint.into()] }
    }

    /// With another hint.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// With `name` for a path that its reader never gave.
    pub(crate) fn calling(mut self, path: &Path, name: &str) -> Self {
        self.message = self.message.replace(&*path.to_string_lossy(), name);
        self
    }

    /// What happened.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
        }
    }

    /// Writes the fault to stderr.
    #[expect(clippy::print_stderr, reason = "this is where faults reach the user")]
    pub(crate) fn print(&self) {
        eprintln!("error: {}", self.message);
        for hint in &self.hints {
            eprintln!("hint: {hint}");
        }
    }
}

impl From<CoreError> for CommandError {
    fn from(error: CoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&CoreError> for CommandError {
    fn from(error: &CoreError) -> Self {
        let message = error.to_string();
        let (kind, hints) = match error {
            CoreError::Unknown { kind: "backbone", name, candidates } => {
                let mut hints = suggestions(name, candidates);
                hints.push("`-b` takes a folder or a file as well, looked up from the working folder".into());
                (Kind::Usage, hints)
            }
            CoreError::Unknown { name, candidates, .. } => (Kind::Usage, suggestions(name, candidates)),
            CoreError::Refused { what, .. } if of_another_backbone(what) => (
                Kind::Refused,
                vec!["adapters and features belong to the backbone that they were made with; `inarch backbone show` prints identities".into()],
            ),
            CoreError::Refused { .. } => (Kind::Refused, Vec::new()),
            CoreError::Leak { .. } => (
                Kind::Refused,
                vec![
                    "put the whole group into one split, or leave the `split` column out: splits that are made here keep \
                     groups together"
                        .into(),
                ],
            ),
            CoreError::BadImage { .. } => {
                let hint = "`--on-bad-image skip` leaves such images out and lists them in the report; a command without it needs \
                            them all: mend the file, or take it out";
                (Kind::Failed, vec![hint.into()])
            }
            CoreError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                (Kind::Failed, vec![missing(path)])
            }
            _ => (Kind::Failed, Vec::new()),
        };
        let read = match error {
            CoreError::Malformed { path, .. } | CoreError::BadImage { path, .. } | CoreError::Tensor { path, .. } => {
                Some(path)
            }
            _ => None,
        };
        match read.and_then(|path| pointer(path)) {
            // Whatever else could be done about the file, it is not here.
            Some(hint) => Self { kind, message, hints: vec![hint] },
            None => Self { kind, message, hints },
        }
    }
}

/// What to do about a file that Git LFS left a pointer for.
fn pointer(path: &Path) -> Option<String> {
    const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";
    // Pointers have a few lines; nothing large, no device and no pipe is read for this.
    std::fs::metadata(path).ok().filter(|about| about.is_file() && about.len() < 1024)?;
    let bytes = file::read(path).ok()?;
    let hint =
        || format!("`{}` is a pointer of Git LFS: `git lfs pull` in its repository fetches the file", path.display());
    bytes.starts_with(BEGINNING).then(hint)
}

/// Whether it is the backbone that two things do not share.
fn of_another_backbone(what: &str) -> bool {
    what.starts_with("backbone of") || what.starts_with("image preparation of")
}

/// What to do about a path that does not exist.
fn missing(path: &Path) -> String {
    if path.ends_with(MANIFEST_FILE) {
        let inner = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let is_run = |path: &PathBuf| {
            path.join(MANIFEST_FILE).is_file()
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
        };
        if let Some(run) = inner.map(|entry| entry.path()).filter(is_run).min() {
            return format!("that folder holds a run for each seed: give one, such as `{}`", run.display());
        }
        let beside = |name: &str| path.parent().map(|folder| folder.join(name)).filter(|path| path.exists());
        if beside("state.json").is_some() {
            return "that folder holds a run that was stopped: the same `inarch fit` ends it".into();
        }
        if let Some(current) = beside("current").and_then(|current| file::read_text(&current).ok()) {
            let version = path.with_file_name(current.trim());
            return format!("that folder holds versions: give one, such as `{}`", version.display());
        }
        return "`-a` takes a folder that `inarch fit` wrote; without it the command works zero-shot".into();
    }
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() => format!("the path is looked up from `{}`", folder.display()),
        _ => "check the path".into(),
    }
}

impl From<PeftError> for CommandError {
    fn from(error: PeftError) -> Self {
        Self::from(&error)
    }
}

impl From<&PeftError> for CommandError {
    fn from(error: &PeftError) -> Self {
        let message = error.to_string();
        match error {
            PeftError::Core(error) => error.into(),
            PeftError::UnknownClass { class, candidates, .. } => {
                Self { kind: Kind::Usage, message, hints: suggestions(class, candidates) }
            }
            PeftError::NoTarget { .. } | PeftError::Setting { .. } => {
                Self { kind: Kind::Usage, message, hints: Vec::new() }
            }
            PeftError::SelfTest { .. } => Self {
                kind: Kind::Refused,
                message,
                hints: vec![
                    "the adapter or the device gives other numbers than when it was saved; do not use it".into(),
                ],
            },
            _ => Self { kind: Kind::Failed, message, hints: Vec::new() },
        }
    }
}

impl From<ContinualError> for CommandError {
    fn from(error: ContinualError) -> Self {
        let message = error.to_string();
        match error {
            ContinualError::Core(error) => error.into(),
            ContinualError::Peft(error) => error.into(),
            ContinualError::Recipe(error) => error.into(),
            ContinualError::Stale { .. } => Self {
                kind: Kind::Refused,
                message,
                hints: vec![
                    "use the backbone and the window that the memory was made with, or start a new memory".into(),
                ],
            },
            ContinualError::Target { .. } => Self { kind: Kind::Usage, message, hints: Vec::new() },
            ContinualError::CannotForget { .. } | ContinualError::Gate(_) | ContinualError::Refused(_) => {
                Self { kind: Kind::Refused, message, hints: Vec::new() }
            }
            ContinualError::Sealed { .. } => Self {
                kind: Kind::Usage,
                message,
                hints: vec!["`--key FILE` names the file that `inarch memory key FILE` made".into()],
            },
            _ => Self { kind: Kind::Failed, message, hints: Vec::new() },
        }
    }
}

impl From<RecipeError> for CommandError {
    fn from(error: RecipeError) -> Self {
        let message = error.to_string();
        match error {
            RecipeError::Core(error) => error.into(),
            RecipeError::Peft(error) => error.into(),
            RecipeError::Recipe { .. } => Self { kind: Kind::Usage, message, hints: Vec::new() },
            RecipeError::Precision { .. } => Self { kind: Kind::Refused, message, hints: Vec::new() },
            _ => Self { kind: Kind::Failed, message, hints: Vec::new() },
        }
    }
}

impl From<ServeError> for CommandError {
    fn from(error: ServeError) -> Self {
        Self::from(&error)
    }
}

impl From<&ServeError> for CommandError {
    fn from(error: &ServeError) -> Self {
        let message = error.to_string();
        match error {
            ServeError::Core(error) => error.into(),
            ServeError::Peft(error) => error.into(),
            ServeError::Shared(error) => Self::from(&**error),
            ServeError::Refused { reason, .. } => Self { kind: Kind::Refused, message, hints: unsigned(reason) },
            ServeError::UnknownModel { reference, candidates } => {
                Self { kind: Kind::Usage, message, hints: suggestions(reference, candidates) }
            }
            ServeError::Listen { .. } => {
                Self { kind: Kind::Failed, message, hints: vec!["`--port 0` takes a free port".into()] }
            }
            _ => Self { kind: Kind::Failed, message, hints: Vec::new() },
        }
    }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        let (kind, hints) = match &error {
            RegistryError::Reference { kind: "name" | "reference", .. } => {
                (Kind::Usage, vec!["write NAME, NAME@ALIAS, NAME@VERSION or a digest `sha256:..`".into()])
            }
            RegistryError::Reference { .. } => (Kind::Usage, Vec::new()),
            RegistryError::Unknown { kind: "file", .. } => {
                (Kind::Failed, vec!["give a folder that `inarch fit` wrote".into()])
            }
            RegistryError::Unknown { kind: "blob", .. } | RegistryError::Damaged { .. } => (
                Kind::Failed,
                vec!["`inarch registry verify` names all that is damaged; publish, pull or import it again".into()],
            ),
            RegistryError::Unknown { name, candidates, .. } => (Kind::Usage, suggestions(name, candidates)),
            RegistryError::Conflict { .. } => {
                (Kind::Refused, vec!["somebody else was first: look at `inarch registry log NAME`, then decide".into()])
            }
            RegistryError::Refused { what, .. } if what.starts_with("roll back") => (
                Kind::Refused,
                vec![
                    "`inarch registry log NAME` tells where it was; `inarch registry tag REFERENCE ALIAS` points it \
                     anywhere"
                        .into(),
                ],
            ),
            RegistryError::Refused { what, .. } if what.starts_with("agent folder") => (
                Kind::Refused,
                vec!["it follows this channel already: stop it first, or give this one another `INARCH_HOME`".into()],
            ),
            RegistryError::Untrusted { reason, .. } => (Kind::Refused, unsigned(reason)),
            RegistryError::Refused { .. } => (Kind::Refused, Vec::new()),
            RegistryError::Remote { transient: true, .. } => {
                (Kind::Failed, vec!["run it again: what was moved is kept, and it goes on from there".into()])
            }
            _ => (Kind::Failed, Vec::new()),
        };
        Self { kind, message, hints }
    }
}

/// What to do about a version that the policy wants signed.
fn unsigned(reason: &str) -> Vec<String> {
    match reason.contains("signatures of trusted keys") {
        true => vec![
            "`inarch registry sign REFERENCE --key FILE` signs it; `inarch registry keys list` names the keys that are \
             trusted"
                .into(),
        ],
        false => Vec::new(),
    }
}

/// The nearest candidate, and all of them when they are few or none is near.
fn suggestions(name: &str, candidates: &[String]) -> Vec<String> {
    let nearest = candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let mut hints: Vec<String> =
        nearest.map(|(_, candidate)| format!("did you mean `{candidate}`?")).into_iter().collect();
    if !candidates.is_empty() && (candidates.len() <= 24 || hints.is_empty()) {
        hints.push(wrapped("known:", candidates));
    }
    hints
}

/// Names behind a word, in lines of a terminal's width; of very many the first.
fn wrapped(word: &str, names: &[String]) -> String {
    let (mut text, mut width) = (word.to_string(), "hint: ".len() + word.len());
    for (at, name) in names.iter().take(LISTED).enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        let more = 1 + name.chars().count() + comma.len();
        if width + more > LINE {
            text.push_str("\n ");
            width = 1;
        }
        text.push_str(&format!(" {name}{comma}"));
        width += more;
    }
    if names.len() > LISTED {
        text.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{LINE, suggestions};

    #[test]
    fn many_names_are_listed_when_none_is_near() {
        let names: Vec<String> = (0..60).map(|at| format!("method-{at}")).collect();
        let hints = suggestions("zzzz", &names);
        assert_eq!(hints.len(), 1);
        let listed: Vec<&str> = hints[0].trim_start_matches("known:").split(',').map(str::trim).collect();
        assert_eq!(listed, names);
        assert!(hints[0].lines().count() > 1 && hints[0].lines().all(|line| line.len() <= LINE), "{}", hints[0]);
        assert_eq!(suggestions("methd-7", &names), ["did you mean `method-7`?"]);
        assert_eq!(suggestions("zzzz", &names[..2]), ["known: method-0, method-1"]);
    }
}
