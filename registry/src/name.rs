//! How adapters, versions and aliases are named, and how people refer to them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The longest name, in bytes; the OCI distribution specification allows 255 for a repository.
const NAME_BYTES: usize = 128;
/// The longest alias or release, in bytes; the longest OCI tag.
const TAG_BYTES: usize = 128;
/// The alias that always means the newest version.
pub const LATEST: &str = "latest";

/// The name of an adapter: parts of lower-case letters, digits, `.`, `_`, `-`, separated by `/`. It is also a valid OCI
/// repository name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one path component: `/` is written `+`, which no name contains.
    pub(crate) fn folder(&self) -> String {
        self.0.replace('/', "+")
    }

    pub(crate) fn from_folder(folder: &str) -> Result<Self> {
        folder.replace('+', "/").parse()
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Err(Error::reference("name", text, reason));
        if text.is_empty() || text.len() > NAME_BYTES {
            return wrong("it must have 1 to 128 characters");
        }
        for part in text.split('/') {
            let edges = [part.bytes().next(), part.bytes().last()];
            if !edges.iter().all(|edge| edge.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())) {
                return wrong("each part between `/` must begin and end with a lower-case letter or a digit");
            }
            if !part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)) {
                return wrong("only lower-case letters, digits, `.`, `_`, `-` and `/` may stand in it");
            }
            if part.contains("..") || part.contains("._") || part.contains("_.") || part.contains("___") {
                return wrong("separators must not be piled up");
            }
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A movable pointer to a version, such as `prod` or `canary`: lower-case letters, digits, `.`, `_`, `-`, beginning with a
/// letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

impl Alias {
    /// The alias.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Err(Error::reference("alias", text, reason));
        if text.len() > TAG_BYTES || !text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase()) {
            return wrong("it must begin with a lower-case letter and have at most 128 characters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)) {
            return wrong("only lower-case letters, digits, `.`, `_` and `-` may stand in it");
        }
        if text == LATEST {
            return wrong("`latest` always is the newest version and cannot be moved");
        }
        if number(text).is_some() || release(text).is_some() {
            return wrong("it reads like a version");
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Alias {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A semantic version that a publisher gives beside the number, such as `1.4.0` or `2.0.0-rc.1`. Build metadata is not
/// allowed: `+` cannot stand in an OCI tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release(semver::Version);

impl FromStr for Release {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        release(text).map(Self).ok_or_else(|| {
            Error::reference("release", text, "expected a semantic version without build metadata, such as `1.4.0`")
        })
    }
}

impl TryFrom<String> for Release {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> Self {
        release.to_string()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which version of an adapter is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest one.
    Latest,
    /// By number: `3` or `v3`.
    Number(u64),
    /// By semantic version.
    Release(Release),
    /// By alias.
    Alias(Alias),
    /// By the digest of its manifest.
    Digest(Digest),
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == LATEST {
            return Ok(Self::Latest);
        }
        if text.starts_with("sha256:") {
            return Ok(Self::Digest(text.parse()?));
        }
        if let Some(number) = number(text) {
            return Ok(Self::Number(number));
        }
        match release(text) {
            Some(release) => Ok(Self::Release(Release(release))),
            None => Ok(Self::Alias(text.parse()?)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Number(number) => number.fmt(f),
            Self::Release(release) => release.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// `NAME`, `NAME@ALIAS`, `NAME@VERSION`, `NAME@sha256:..` or `sha256:..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The adapter; absent for a bare digest.
    pub name: Option<Name>,
    /// The version.
    pub selector: Selector,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("sha256:") {
            return Ok(Self { name: None, selector: Selector::Digest(text.parse()?) });
        }
        match text.split_once('@') {
            Some((name, selector)) => Ok(Self { name: Some(name.parse()?), selector: selector.parse()? }),
            None => Ok(Self { name: Some(text.parse()?), selector: Selector::Latest }),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}@{}", self.selector),
            None => self.selector.fmt(f),
        }
    }
}

/// `3` or `v3`, without leading zeros.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

fn release(text: &str) -> Option<semver::Version> {
    let short = text.len() <= TAG_BYTES;
    short.then(|| semver::Version::parse(text).ok()).flatten().filter(|version| version.build.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_what_they_say() {
        let parse = |text: &str| text.parse::<Reference>().expect(text).selector;
        assert_eq!(parse("radiology/chest"), Selector::Latest);
        assert_eq!(parse("chest@latest"), Selector::Latest);
        assert_eq!(parse("chest@3"), Selector::Number(3));
        assert_eq!(parse("chest@v3"), Selector::Number(3));
        assert_eq!(parse("chest@1.4.0-rc.1"), Selector::Release("1.4.0-rc.1".parse().expect("a release")));
        assert_eq!(parse("chest@prod"), Selector::Alias("prod".parse().expect("an alias")));
        assert_eq!(parse(&Digest::of(b"").to_string()), Selector::Digest(Digest::of(b"")));
    }

    #[test]
    fn what_could_leave_the_folder_or_be_misread_is_no_name() {
        let long = "a".repeat(129);
        for text in
            ["", "..", "../x", "/x", "x/", "x//y", "X", "x y", "x\0", "x+y", ".x", "x/..", "a..b", long.as_str()]
        {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        for text in ["", "latest", "3", "v3", "1.2.3", "..", "-x", "a/b", "a b"] {
            assert!(text.parse::<Alias>().is_err(), "{text:?}");
        }
        for text in ["1.2", "1.2.3+build", "x"] {
            assert!(text.parse::<Release>().is_err(), "{text:?}");
        }
        let name: Name = "radiology/chest-x.ray".parse().expect("a name");
        assert_eq!(Name::from_folder(&name.folder()).expect("a name"), name);
    }
}
