//! How a repository of a model hub is named.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The revision where none is named.
pub const DEFAULT_REVISION: &str = "main";
/// The longest `ORG/NAME`, in bytes: the hub's own bound.
const ID_BYTES: usize = 96;
/// The longest revision, in bytes.
const REVISION_BYTES: usize = 128;
/// What the folder of a model begins with in the cache.
const FOLDER: &str = "models--";

/// A repository of a model hub at a revision, written `ORG/NAME` or `ORG/NAME@REVISION`. A value of this type is always
/// well-formed, so it is safe in a path and in an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubId {
    organisation: String,
    name: String,
    revision: Option<String>,
}

impl HubId {
    /// Who the repository belongs to.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// The name below the organisation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ORG/NAME`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.organisation, self.name)
    }

    /// The branch, tag or commit: [`DEFAULT_REVISION`] where none was named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The folder of the repository in the cache.
    pub(super) fn folder(&self) -> String {
        format!("{FOLDER}{}--{}", self.organisation, self.name)
    }

    /// The repository of a folder in the cache, and none when it is no such folder.
    pub(super) fn of_folder(folder: &str) -> Option<Self> {
        let (organisation, name) = folder.strip_prefix(FOLDER)?.split_once("--")?;
        format!("{organisation}/{name}").parse().ok()
    }

    /// The same repository at another revision.
    pub(super) fn at(&self, revision: &str) -> Self {
        let revision = (revision != DEFAULT_REVISION).then(|| revision.to_string());
        Self { revision, ..self.clone() }
    }
}

impl FromStr for HubId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Err(Error::reference("hub id", text, reason));
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let Some((organisation, name)) = repository.split_once('/').filter(|(_, name)| !name.contains('/')) else {
            return wrong("expected `ORG/NAME` or `ORG/NAME@REVISION`");
        };
        if repository.len() > ID_BYTES || ![organisation, name].into_iter().all(is_part) {
            return wrong(
                "`ORG` and `NAME` have letters, digits, `.`, `_` and `-`, at most 96 together, neither begin nor end \
                 with `.` or `-`, and hold no `..` or `--`",
            );
        }
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return wrong("a revision is a branch, a tag or a commit: letters, digits, `.`, `_`, `-` and single `/`");
        }
        let (organisation, name) = (organisation.to_string(), name.to_string());
        Ok(Self { organisation, name, revision: revision.map(String::from) })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(is_plain)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
}

fn is_revision(revision: &str) -> bool {
    revision.len() <= REVISION_BYTES
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain))
}

/// Whether a text is a commit: 40 lower-case hex digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::HubId;

    #[test]
    fn an_id_is_read_and_written() {
        let id: HubId = "openai/clip-vit-base-patch32".parse().expect("an id");
        assert_eq!((id.organisation(), id.name(), id.revision()), ("openai", "clip-vit-base-patch32", "main"));
        assert_eq!(id.folder(), "models--openai--clip-vit-base-patch32");
        assert_eq!(HubId::of_folder(&id.folder()), Some(id.clone()));
        let at: HubId = "openai/clip-vit-base-patch32@refs/pr/1".parse().expect("an id");
        assert_eq!((at.revision(), at.to_string().as_str()), ("refs/pr/1", "openai/clip-vit-base-patch32@refs/pr/1"));
        assert_eq!(at.at("main"), id);
    }

    #[test]
    fn what_could_be_a_path_is_no_id() {
        for text in [
            "clip",
            "/clip",
            "a/",
            "./clip",
            "../clip",
            "a/..",
            "a/../b",
            "a/b/c",
            ".a/b",
            "a/b.",
            "a--b/c",
            "a/b@",
            "a/b@../c",
            "a/b@c//d",
            "a/b c",
            "a\\b/c",
            "datasets--a/é",
            "a/b@.git",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
        assert!(format!("a/{}", "b".repeat(95)).parse::<HubId>().is_err());
    }
}
