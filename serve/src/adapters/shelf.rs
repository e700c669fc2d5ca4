//! Adapters within reach: names that were given here, names of the source, and what of it is in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use inarch_core::Digest;
use inarch_core::backbone::Backbone;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::head::{ClassSet, Classes, Head};
use super::loaded::Loaded;
use super::source::{Files, Source, Version, version_of};
use crate::error::{Error, Result};

/// How many versions are known to have passed their self-test.
const TESTED: u64 = 1 << 16;
/// Weights of cache entries are in units of this many bytes, as they are 32-bit numbers.
const UNIT: u64 = 256;

/// A name that was given to a folder when the server was started or while it runs.
#[derive(Debug, Clone)]
struct Binding {
    version: Version,
    folder: PathBuf,
    pinned: Option<Arc<Loaded>>,
}

/// What a name shall stand for.
pub(crate) struct Bind {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// Whether it stays in memory.
    pub(crate) pin: bool,
    /// Whether the name may stand for something else now.
    pub(crate) replace: bool,
    /// The digest that it must stand for now.
    pub(crate) expected: Option<String>,
}

/// All adapters of a server.
pub(crate) struct Shelf {
    backbone: Arc<Backbone>,
    source: Option<Arc<dyn Source>>,
    bindings: RwLock<BTreeMap<String, Binding>>,
    /// Versions of the source that stay in memory.
    pinned: RwLock<HashMap<String, Arc<Loaded>>>,
    loaded: Cache<String, Arc<Loaded>>,
    /// Digests that have passed their self-test here: the same content on the same weights passes again.
    tested: Cache<String, ()>,
    classes: Cache<Digest, Arc<Classes>>,
    adapter_bytes: u64,
}

fn cache<K, V>(bytes: u64, size: impl Fn(&V) -> u64 + Send + Sync + 'static) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(bytes / UNIT)
        .weigher(move |_, value| u32::try_from(size(value) / UNIT + 1).unwrap_or(u32::MAX))
        .eviction_policy(EvictionPolicy::lru())
        .build()
}

/// Runs work that reads files or computes away from the threads that serve connections.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Shelf {
    pub(crate) fn new(
        backbone: Arc<Backbone>,
        source: Option<Arc<dyn Source>>,
        adapter_bytes: u64,
        class_bytes: u64,
    ) -> Self {
        let loaded = cache(adapter_bytes, |loaded: &Arc<Loaded>| loaded.bytes);
        let classes = cache(class_bytes, |classes: &Arc<Classes>| classes.bytes);
        let tested = Cache::new(TESTED);
        let (bindings, pinned) = (RwLock::default(), RwLock::default());
        Self { backbone, source, bindings, pinned, loaded, tested, classes, adapter_bytes }
    }

    fn bindings(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Binding>> {
        self.bindings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that a reference stands for now.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Version> {
        let mut candidates: Vec<String> = {
            let bindings = self.bindings();
            let by_digest = || bindings.values().find(|binding| binding.version.digest == reference);
            // `name@version` of a folder's adapter: the version is its short digest.
            let exact = || {
                let (name, version) = reference.split_once('@')?;
                bindings.get(name).filter(|binding| binding.version.version == version)
            };
            if let Some(binding) = bindings.get(reference).or_else(by_digest).or_else(exact) {
                return Ok(binding.version.clone());
            }
            bindings.keys().cloned().collect()
        };
        if let Some(source) = &self.source {
            if let Some(version) = source.resolve(reference)? {
                return Ok(version);
            }
            candidates.extend(source.list()?.into_iter().map(|version| version.name));
        }
        Err(Error::UnknownModel { reference: reference.into(), candidates })
    }

    /// The adapter that a reference stands for now, from memory or from disk, with its version. Requests that come while
    /// it is being read wait for the one reading.
    pub(crate) async fn adapter(&self, reference: &str) -> Result<(Version, Arc<Loaded>), Arc<Error>> {
        let version = self.resolve(reference).map_err(Arc::new)?;
        let loaded = self.load(&version).await?;
        Ok((version, loaded))
    }

    async fn load(&self, version: &Version) -> Result<Arc<Loaded>, Arc<Error>> {
        if let Some(kept) = self.kept(version) {
            return Ok(kept);
        }
        let folder = self
            .bindings()
            .get(&version.name)
            .filter(|known| known.version == *version)
            .map(|known| known.folder.clone());
        let (wanted, source) = (version.clone(), self.source.clone());
        let files = move || match (folder, source) {
            (Some(folder), _) if version_of(&wanted.name, &folder)?.digest != wanted.digest => {
                Err(Error::Changed { name: wanted.name, folder })
            }
            (Some(folder), _) => Ok(Files { folder, lease: None }),
            (None, Some(source)) => source.files(&wanted),
            (None, None) => Err(Error::UnknownModel { reference: wanted.name, candidates: Vec::new() }),
        };
        self.read(version, files).await
    }

    /// Reads an adapter into memory, once for all who wait for it.
    async fn read(
        &self,
        version: &Version,
        files: impl FnOnce() -> Result<Files> + Send + 'static,
    ) -> Result<Arc<Loaded>, Arc<Error>> {
        let (backbone, limit) = (self.backbone.clone(), self.adapter_bytes);
        let Version { name, digest, .. } = version.clone();
        let tested = self.tested.contains_key(&digest);
        let open = move || {
            let files = files()?;
            let loaded = Loaded::open(&digest, &files.folder, &backbone, tested)?;
            if loaded.bytes > limit {
                return Err(Error::TooLarge { name, bytes: loaded.bytes, limit });
            }
            Ok(Arc::new(loaded))
        };
        let loaded = self.loaded.try_get_with(version.digest.clone(), apart(open)).await?;
        if !tested {
            self.tested.insert(version.digest.clone(), ()).await;
        }
        Ok(loaded)
    }

    /// An adapter that stays in memory.
    fn kept(&self, version: &Version) -> Option<Arc<Loaded>> {
        let pinned = self.pinned.read().unwrap_or_else(PoisonError::into_inner).get(&version.digest).cloned();
        pinned.or_else(|| self.bindings().get(&version.name).filter(|bound| bound.version == *version)?.pinned.clone())
    }

    /// What scores are taken over: an adapter (or none, for zero-shot) and classes.
    pub(crate) async fn head(&self, adapter: Option<Arc<Loaded>>, set: ClassSet) -> Result<Arc<Head>, Arc<Error>> {
        let key = set.key(adapter.as_ref().map(|loaded| loaded.digest.as_str()));
        let (backbone, asked) = (self.backbone.clone(), adapter.clone());
        let make = apart(move || Classes::new(&backbone, asked.as_deref(), &set).map(Arc::new));
        let classes = self.classes.try_get_with(key, make).await?;
        Ok(Arc::new(Head { adapter, classes }))
    }

    /// Gives a name to the adapter in a folder, in one step: requests see the old version or the new one.
    pub(crate) async fn bind(&self, bind: Bind) -> Result<Version, Arc<Error>> {
        let Bind { name, folder, pin, replace, expected } = bind;
        let version = version_of(&name, &folder).map_err(Arc::new)?;
        let place = folder.clone();
        let loaded = self.read(&version, move || Ok(Files { folder: place, lease: None })).await?;
        let mut bindings = self.bindings.write().unwrap_or_else(PoisonError::into_inner);
        let now = bindings.get(&name).map(|binding| binding.version.digest.clone());
        let conflict = |expected: String| {
            let found = now.clone().unwrap_or_else(|| "nothing".into());
            Arc::new(Error::Conflict { name: name.clone(), expected, found })
        };
        match expected {
            Some(expected) if now.as_ref() != Some(&expected) => return Err(conflict(expected)),
            None if now.is_some() && !replace => return Err(conflict("a free name".into())),
            _ => {}
        }
        bindings.insert(name, Binding { version: version.clone(), folder, pinned: pin.then_some(loaded) });
        Ok(version)
    }

    /// Takes a name away. Requests in flight end with the version that they began with.
    pub(crate) async fn unbind(&self, name: &str) -> Result<Version> {
        let binding = self.bindings.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let Some(binding) = binding else {
            let candidates = self.bindings().keys().cloned().collect();
            return Err(Error::UnknownModel { reference: name.into(), candidates });
        };
        self.loaded.invalidate(&binding.version.digest).await;
        Ok(binding.version)
    }

    /// Keeps the version that a reference stands for in memory, whatever else is asked for.
    pub(crate) async fn pin(&self, reference: &str) -> Result<Version, Arc<Error>> {
        let (version, loaded) = self.adapter(reference).await?;
        let mut pinned = self.pinned.write().unwrap_or_else(PoisonError::into_inner);
        pinned.insert(loaded.digest.clone(), loaded);
        Ok(version)
    }

    /// Moves an alias of the source.
    pub(crate) fn promote(&self, name: &str, alias: &str, version: &str, expected: Option<&str>) -> Result<Version> {
        match &self.source {
            Some(source) => source.promote(name, alias, version, expected),
            None => Err(Error::UnknownModel { reference: name.into(), candidates: Vec::new() }),
        }
    }

    /// Every adapter by name, with what is in memory of it.
    pub(crate) async fn list(&self) -> Result<Vec<(Version, Option<Arc<Loaded>>)>> {
        let mut versions: Vec<Version> = self.bindings().values().map(|binding| binding.version.clone()).collect();
        if let Some(source) = &self.source {
            let names: Vec<String> = versions.iter().map(|version| version.name.clone()).collect();
            versions.extend(source.list()?.into_iter().filter(|version| !names.contains(&version.name)));
        }
        let mut found = Vec::with_capacity(versions.len());
        for version in versions {
            let loaded = match self.kept(&version) {
                Some(loaded) => Some(loaded),
                None => self.loaded.get(&version.digest).await,
            };
            found.push((version, loaded));
        }
        Ok(found)
    }

    /// Adapters in memory and their bytes.
    pub(crate) async fn resident(&self) -> (u64, u64) {
        self.loaded.run_pending_tasks().await;
        (self.loaded.entry_count(), self.loaded.weighted_size() * UNIT)
    }
}
