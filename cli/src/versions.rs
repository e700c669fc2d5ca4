//! Versions of an adapter, in a folder or in the registry: what `update`, `merge` and `memory` work on.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use inarch_continual::{Error, FolderVersions, Release, Result, Turn, Version, Versions};
use inarch_core::file;
use inarch_registry::{
    Checkout, Digest, Expect, GateVerdict, Name, PublishRequest, Reference, Registry, Selector, Source,
};

use crate::home::home;
use crate::published;

/// Folders of versions, and names of the registry where no such folder exists.
#[derive(Default)]
pub(crate) struct AnyVersions {
    /// Keep what was opened from being collected.
    leases: RefCell<Vec<Checkout>>,
}

impl AnyVersions {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The registry and what `target` means there; `None` for a folder.
    fn registered(target: &str) -> Result<Option<(Registry, Name, Selector)>> {
        if Path::new(target).exists() {
            return Ok(None);
        }
        let Ok(Reference { name: Some(name), selector }) = target.parse::<Reference>() else { return Ok(None) };
        let registry = published::open().map_err(|error| invalid("registry", error.message()))?;
        // A bare name that nobody has published may be the name of a new folder.
        let known = selector != Selector::Latest || registry.version(&name, &selector).is_ok();
        Ok(known.then_some((registry, name, selector)))
    }

    fn checked_out(&self, registry: &Registry, version: &inarch_registry::Version) -> Result<Version> {
        let checkout = registry.checkout(version).map_err(|error| fault(&error))?;
        let opened = Version { name: version.to_string(), folder: checkout.folder().to_path_buf() };
        self.leases.borrow_mut().push(checkout);
        Ok(opened)
    }
}

/// A place beside the updates that is the same for all aliases of a name; no name begins with a dot, as `kind` does.
fn place(kind: &str, name: &Name) -> Result<PathBuf> {
    let home = home().map_err(|error| invalid("home", error.message()))?;
    Ok(home.join("updates").join(kind).join(Digest::of(name.as_str().as_bytes()).short()))
}

fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Error {
    inarch_core::Error::invalid(what, reason).into()
}

fn fault(error: &inarch_registry::Error) -> Error {
    if let inarch_registry::Error::Unknown { kind, name, candidates, .. } = error {
        return inarch_core::Error::Unknown { kind, name: name.clone(), candidates: candidates.clone() }.into();
    }
    use inarch_registry::Error as Fault;
    if matches!(error, Fault::Untrusted { .. } | Fault::Refused { .. } | Fault::Conflict { .. }) {
        return Error::Refused(error.to_string());
    }
    invalid("registry", error.to_string())
}

impl Versions for AnyVersions {
    fn open(&self, target: &str) -> Result<Version> {
        match Self::registered(target)? {
            None => FolderVersions.open(target),
            Some((registry, name, selector)) => {
                let version = registry.version(&name, &selector).map_err(|error| fault(&error))?;
                self.checked_out(&registry, &version)
            }
        }
    }

    fn exists(&self, target: &str) -> bool {
        let Ok(Some((registry, name, selector))) = Self::registered(target) else {
            return FolderVersions.exists(target);
        };
        // One that is damaged, or that nobody who is trusted has signed, is there, and nothing is begun over it.
        registry.version(&name, &selector).map_or_else(|error| !error.is_missing(), |_| true)
    }

    fn all(&self, target: &str) -> Result<Vec<Version>> {
        match Self::registered(target)? {
            None => FolderVersions.all(target),
            Some((registry, name, _)) => {
                let versions = registry.versions(&name).map_err(|error| fault(&error))?;
                versions.iter().map(|version| self.checked_out(&registry, version)).collect()
            }
        }
    }

    fn takes_versions(&self, target: &str) -> Result<()> {
        let Some((_, name, selector)) = Self::registered(target)? else {
            return FolderVersions.takes_versions(target);
        };
        if matches!(selector, Selector::Alias(_) | Selector::Latest) {
            return Ok(());
        }
        let reason = format!(
            "a version never changes; name an alias, as in `{name}@prod` (`inarch registry tag {target} prod` makes it), \
             or the adapter alone, `{name}`"
        );
        Err(Error::Target { target: target.into(), reason })
    }

    fn work(&self, target: &str) -> Result<PathBuf> {
        let Some((_, name, _)) = Self::registered(target)? else { return FolderVersions.work(target) };
        let home = home().map_err(|error| invalid("home", error.message()))?;
        let place = Digest::of(target.as_bytes()).short();
        Ok(home.join("updates").join(format!("{name}-{place}")).join(".update"))
    }

    /// One for all aliases of a name, for all get their versions from one list.
    fn turn(&self, target: &str) -> Result<Turn> {
        self.takes_versions(target)?;
        let Some((_, name, _)) = Self::registered(target)? else { return FolderVersions.turn(target) };
        Turn::wait(&place(".turns", &name)?, target)
    }

    fn staging(&self, target: &str) -> Result<PathBuf> {
        self.takes_versions(target)?;
        let Some((_, name, _)) = Self::registered(target)? else { return FolderVersions.staging(target) };
        let staging = place(".staging", &name)?;
        // What is there was left by a process that died, or that the registry refused.
        if staging.is_dir() {
            file::remove_folder(&staging)?;
        }
        file::create_folder(&staging)?;
        Ok(staging)
    }

    /// Publishes, then moves the alias, if it still stands where the update began.
    fn publish(&self, target: &str, release: &Release<'_>) -> Result<String> {
        let Some((registry, name, selector)) = Self::registered(target)? else {
            return FolderVersions.publish(target, release);
        };
        // There is none before the first one.
        let before = registry.version(&name, &selector).ok();
        let mut files = Vec::new();
        for path in file::list(release.folder)? {
            let title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((title, Source::Path(path)));
        }
        let verdict = release.record.verdict.as_ref().map(|verdict| match verdict.passed {
            true => GateVerdict::Pass,
            false => GateVerdict::Fail(verdict.broken()),
        });
        let parents: Vec<Digest> = before.iter().map(|version| version.digest).collect();
        let request = PublishRequest { files, parents, verdict, ..PublishRequest::new(name.clone()) };
        let version = registry.publish(request).map_err(|error| fault(&error))?.version;
        if let Selector::Alias(alias) = &selector {
            let why = format!("published by `inarch {}`", release.record.made_by);
            let expect = before.map_or(Expect::Absent, |version| Expect::Is(version.number));
            let moved = registry.tag(&name, alias, Some(version.number), expect, &why);
            moved.map_err(|error| fault(&error))?;
        }
        file::remove_folder(release.folder)?;
        Ok(version.to_string())
    }

    fn changeable(&self, target: &str) -> Result<()> {
        if Self::registered(target)?.is_none() {
            return FolderVersions.changeable(target);
        }
        let reason = "versions of a registry never change; retention removes them: `inarch registry gc --keep N`";
        Err(invalid(format!("target `{target}`"), reason))
    }

    fn withdraw(&self, target: &str, version: &Version) -> Result<()> {
        self.changeable(target)?;
        FolderVersions.withdraw(target, version)
    }
}
