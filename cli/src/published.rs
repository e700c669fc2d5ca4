//! The registry under the home of this program, and adapters named by it.

use std::path::{Path, PathBuf};

use inarch_core::backbone::Backbone;
use inarch_peft::{Artifact, MANIFEST_FILE};
use inarch_registry::{
    Candidate, Checkout, Credentials, Name, Reference, Registry, Release, Remote, Selector, open_remote,
};

use crate::error::CommandError;
use crate::home::home;

/// Opens the registry, which is made where there is none.
pub(crate) fn open() -> Result<Registry, CommandError> {
    Ok(Registry::open(home()?.join("registry"))?)
}

/// Opens a remote, with the credentials in `INARCH_REGISTRY_USER` and `INARCH_REGISTRY_PASSWORD` where they are set.
pub(crate) fn remote(address: &str) -> Result<Box<dyn Remote>, CommandError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let credentials = variable("INARCH_REGISTRY_USER")
        .zip(variable("INARCH_REGISTRY_PASSWORD"))
        .map(|(user, password)| Credentials { user, password });
    Ok(open_remote(address, credentials)?)
}

/// Opens the remote of `REMOTE#NAME` and returns it with the name of the channel.
pub(crate) fn channel(text: &str) -> Result<(Box<dyn Remote>, String), CommandError> {
    let usage = || {
        let hint = "expected REMOTE#NAME, such as `oci://registry.clinic/adapters#stable` or `./mirror#stable`";
        CommandError::usage(format!("`{text}` names no channel"), hint)
    };
    let (address, name) = text.rsplit_once('#').ok_or_else(usage)?;
    let name: Name = name.parse()?;
    Ok((remote(address)?, name.to_string()))
}

/// Where an adapter's files are.
pub(crate) enum Place {
    /// A folder of the user's.
    Folder(PathBuf),
    /// A version, checked out while this lives.
    Version(Checkout),
}

impl Place {
    /// Finds what was given to `-a`: a folder that exists, or else what it means in the registry.
    pub(crate) fn find(given: &Path) -> Result<Self, CommandError> {
        let text = given.to_string_lossy();
        if given.is_file() {
            return Err(CommandError::usage(format!("adapter `{text}` is a file"), folder_of(given)));
        }
        if given.exists() {
            return Ok(Self::Folder(given.to_path_buf()));
        }
        let Ok(reference) = text.parse::<Reference>() else {
            return Err(CommandError::usage(
                format!("adapter `{text}` does not exist"),
                "give a folder that `inarch fit` wrote, or NAME, NAME@ALIAS or NAME@VERSION of `inarch registry list`",
            ));
        };
        let registry = open()?;
        match registry.resolve_reference(&reference) {
            Ok(version) => Ok(Self::Version(registry.checkout(&version)?)),
            Err(error) => Err(CommandError::from(error).with_hint(format!("there is no folder `{text}` here, either"))),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Version(checkout) => checkout.folder(),
        }
    }
}

/// What to give in place of a file.
fn folder_of(file: &Path) -> String {
    let manifests = [MANIFEST_FILE, "adapter_config.json"];
    match file.parent().filter(|folder| manifests.iter().any(|name| folder.join(name).is_file())) {
        Some(folder) if folder.as_os_str().is_empty() => "give the folder that it lies in: `.`".into(),
        Some(folder) => format!("give the folder that it lies in: `{}`", folder.display()),
        None => {
            "`-a` takes a folder that `inarch fit` or Hugging Face PEFT wrote; `inarch convert` reads files of other \
                 programs"
                .into()
        }
    }
}

/// `NAME@ALIAS`.
pub(crate) fn name_and_alias(text: &str) -> Result<(Name, inarch_registry::Alias), CommandError> {
    match text.parse::<Reference>()? {
        Reference { name: Some(name), selector: Selector::Alias(alias) } => Ok((name, alias)),
        _ => Err(CommandError::usage(format!("`{text}` names no alias"), "expected NAME@ALIAS, such as `chest@prod`")),
    }
}

/// `NAME` or `NAME@RELEASE`.
pub(crate) fn name_and_release(text: &str) -> Result<(Name, Option<Release>), CommandError> {
    match text.parse::<Reference>()? {
        Reference { name: Some(name), selector: Selector::Latest } => Ok((name, None)),
        Reference { name: Some(name), selector: Selector::Release(release) } => Ok((name, Some(release))),
        _ => Err(CommandError::usage(
            format!("`{text}` is no name for a publication"),
            "expected NAME, or NAME@RELEASE with a semantic version, such as `chest@1.4.0`; numbers are given by the registry",
        )),
    }
}

/// Opens a candidate beside the backbone and runs its golden self-test.
pub(crate) fn self_test(folder: &Path, backbone: &Backbone) -> Result<(), inarch_peft::Error> {
    Artifact::load(folder, backbone)?.self_test(backbone)
}

/// The self-test as a check of the registry.
pub(crate) fn self_test_check(backbone: &Backbone) -> impl Fn(&Candidate<'_>) -> Result<(), String> {
    |candidate| self_test(candidate.folder, backbone).map_err(|error| error.to_string())
}
