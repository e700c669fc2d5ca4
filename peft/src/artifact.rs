//! An adapter on disk: `adapter.safetensors` with the learned tensors only, `adapter.json` with all that is needed to
//! use them safely.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::backbone::{Backbone, BackboneHandle};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{ClipConfig, DataOptions};
use inarch_core::image::{Preprocess, Window};
use inarch_core::text::Template;
use inarch_core::{Digest, Seed, file};
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, MethodConfig};
use crate::classifier::Classifier;
use crate::compose::{CommonReading, stacked};
use crate::error::{Error, Result};
use crate::logits::{LinearHead, LinearHeadConfig};
use crate::method::Start;
use crate::self_test::{SelfTest, Subject};

/// The version of the format that this code writes.
pub const SCHEMA: u32 = 1;
/// The file with the learned tensors.
pub const TENSORS_FILE: &str = "adapter.safetensors";
/// Where the learned tensors are written to before the manifest that describes them; there only until they have their name.
pub const STAGED_FILE: &str = "adapter.safetensors.staged";
/// The file with everything else.
pub const MANIFEST_FILE: &str = "adapter.json";

/// Which backbone an adapter belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneRef {
    /// Its name at training time, for people.
    pub name: String,
    /// Its identity.
    pub digest: Digest,
}

/// `adapter.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// The method and its settings.
    pub method: MethodConfig,
    /// The backbone it was trained beside.
    pub backbone: BackboneRef,
    /// Class names, in the order of class-bound rows.
    pub classes: Vec<String>,
    /// For each class the score at which it is as likely as not, where images have several labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<f32>>,
    /// Templates it was trained with.
    pub templates: Vec<String>,
    /// How images were prepared.
    pub preprocess: Preprocess,
    /// How clips were read; absent for still images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<ClipConfig>,
    /// The pattern over names that told groups (patients) apart when the data was split
    /// ([`DataOptions::group_by`]); absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// The window that grey values were shown in; absent where each file was shown in its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Precision of the learned tensors.
    pub precision: String,
    /// Identity of the training data, where known.
    pub data: Option<Digest>,
    /// Artifacts this one was made from.
    pub parents: Vec<Digest>,
    /// Figures of the run that made it, by name.
    pub metrics: BTreeMap<String, f64>,
    /// Number of trained values.
    pub parameters: usize,
    /// Identity of `adapter.safetensors`.
    pub tensors: Digest,
    /// Golden inputs and outputs.
    pub self_test: SelfTest,
}

/// A trained adapter with its manifest.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What is known about it.
    pub manifest: Manifest,
    /// Its learned tensors.
    pub adapter: Adapter,
}

/// What an artifact records beside the adapter itself.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// Class names.
    pub classes: Vec<String>,
    /// Templates.
    pub templates: Vec<Template>,
    /// Identity of the training data.
    pub data: Option<Digest>,
    /// How clips were read; absent for still images.
    pub clips: Option<ClipConfig>,
    /// Figures of the run.
    pub metrics: BTreeMap<String, f64>,
}

impl Artifact {
    /// Describes an adapter that was trained beside `backbone`.
    ///
    /// # Errors
    /// A class name the tokenizer refuses.
    pub fn new(adapter: Adapter, method: MethodConfig, backbone: &Backbone, provenance: Provenance) -> Result<Self> {
        let Provenance { classes, templates, data, clips, metrics } = provenance;
        let bytes = encode(&adapter)?;
        let subject = Subject {
            adapter: &adapter,
            method: &method,
            classes: &classes,
            templates: &templates,
            clips: clips.as_ref(),
        };
        let self_test = SelfTest::new(backbone, &subject)?;
        let manifest = Manifest {
            schema: SCHEMA,
            method,
            backbone: BackboneRef { name: backbone.name().into(), digest: backbone.digest().clone() },
            classes,
            offsets: None,
            templates: templates.iter().map(ToString::to_string).collect(),
            preprocess: backbone.preprocess().clone(),
            clips,
            group_by: None,
            window: None,
            precision: "f32".into(),
            data,
            parents: Vec::new(),
            metrics,
            parameters: adapter.trainable(),
            tensors: Digest::of(&bytes),
            self_test,
        };
        Ok(Self { manifest, adapter })
    }

    /// The classes that a backbone's checkpoint itself tells apart, as an adapter.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_head(backbone: &Backbone) -> Result<Option<Self>> {
        let Some(head) = backbone.head() else { return Ok(None) };
        let adapter = Adapter::LinearHead(LinearHead::of(head, backbone));
        let provenance = Provenance {
            classes: head.classes.clone(),
            templates: vec![Template::new("{}")?],
            data: None,
            clips: None,
            metrics: BTreeMap::new(),
        };
        let method = MethodConfig::LinearHead(LinearHeadConfig::default());
        Self::new(adapter, method, backbone, provenance).map(Some)
    }

    /// Several artifacts of one backbone as one, the one closest to the frozen layers first
    /// ([`Stack`](crate::Stack)). Its parents are the parts.
    ///
    /// # Errors
    /// Parts of different backbones, class-bound parts with different classes, or parts that cannot be stacked; as
    /// [`CommonReading::of`].
    pub fn stack(parts: &[Self], backbone: &Backbone) -> Result<Self> {
        let mismatch = |what: &str, expected: &str, found: &str| {
            inarch_core::Error::mismatch(format!("{what} of the adapters to be stacked"), expected, found)
        };
        let mut bound: Option<&Self> = None;
        let mut members = Vec::new();
        for part in parts {
            if &part.manifest.backbone.digest != backbone.digest() {
                return Err(
                    mismatch("backbone", backbone.digest().short(), part.manifest.backbone.digest.short()).into()
                );
            }
            if part.manifest.method.bound_to_classes() || part.manifest.method.open_to_classes() {
                let known = bound.get_or_insert(part);
                if known.manifest.classes != part.manifest.classes {
                    let [expected, found] = [known, part].map(|part| part.manifest.classes.join(", "));
                    return Err(mismatch("classes", &expected, &found).into());
                }
            }
            members.push((part.manifest.method.clone(), part.adapter.clone()));
        }
        let (method, adapter) = stacked(members)?;
        // The last part speaks for the stack, unless another one is bound to its classes.
        let spokesman = bound.or(parts.last()).ok_or_else(|| inarch_core::Error::invalid("stack", "no part"))?;
        let reading = CommonReading::of(parts)?;
        let provenance = Provenance {
            classes: spokesman.manifest.classes.clone(),
            templates: spokesman.templates()?,
            data: None,
            clips: reading.clips,
            metrics: BTreeMap::new(),
        };
        let mut stack = Self::new(adapter, method, backbone, provenance)?;
        stack.manifest.parents = parts.iter().map(|part| part.manifest.tensors.clone()).collect();
        let mut stack = parts.iter().fold(stack, Self::with_reading_of);
        stack.manifest.group_by = reading.group_by;
        Ok(stack)
    }

    /// The same, read as another one was where nothing is known of that: window and groups, and of the same classes the scores
    /// at which an image has them.
    #[must_use]
    pub fn with_reading_of(mut self, other: &Self) -> Self {
        let Manifest { group_by, window, offsets, classes, .. } = &mut self.manifest;
        if offsets.is_none() && *classes == other.manifest.classes {
            offsets.clone_from(&other.manifest.offsets);
        }
        *window = window.or(other.manifest.window);
        *group_by = group_by.take().or_else(|| other.manifest.group_by.clone());
        self
    }

    /// How data is read beside this adapter: in the window and by the groups of its own data, where nothing else is said.
    #[must_use]
    pub fn reading(&self, options: DataOptions) -> DataOptions {
        let Manifest { group_by, window, .. } = &self.manifest;
        DataOptions { window: options.window.or(*window), remembered_groups: group_by.clone(), ..options }
    }

    /// Writes the two files: the tensors beside, then the manifest, then the tensors get their name. Until the manifest is
    /// there, the folder holds the adapter of before; from then on this one, which [`settle`](Self::settle) makes whole
    /// where the process was killed.
    ///
    /// # Errors
    /// An I/O error naming the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let manifest = folder.join(MANIFEST_FILE);
        for path in [&folder.join(TENSORS_FILE), &manifest] {
            file::check_target(path)?;
        }
        // The tensors of another manifest that wait for their name must not be written over.
        Self::settle(folder)?;
        file::write(&folder.join(STAGED_FILE), &encode(&self.adapter)?)?;
        file::write_json(&manifest, &self.manifest)?;
        name_staged(folder)
    }

    /// Ends a [`save`](Self::save) that was cut off after its manifest. [`load`](Self::load) begins with it; so does whoever
    /// reads the two files by other means. Staged tensors that are not those of the manifest stay for the next save to replace.
    ///
    /// # Errors
    /// An I/O error naming the file.
    pub fn settle(folder: &Path) -> Result<()> {
        /// What is needed of a manifest, whatever its version.
        #[derive(Deserialize)]
        struct Described {
            tensors: Digest,
        }

        let staged = folder.join(STAGED_FILE);
        if !staged.is_file() {
            return Ok(());
        }
        // A manifest that is missing or damaged is for whoever loads it to complain of.
        let described = file::read_json::<Described>(&folder.join(MANIFEST_FILE), "adapter manifest");
        match (described, Digest::of_file(&staged)) {
            (Ok(described), Ok(found)) if described.tensors == found => name_staged(folder),
            _ => Ok(()),
        }
    }

    /// Reads an artifact and checks that it belongs to `backbone`.
    ///
    /// # Errors
    /// `Error::Core` with [`inarch_core::Error::Refused`] when the backbone is another one, `Malformed` when a file is
    /// damaged or of a newer format.
    pub fn load(folder: &Path, backbone: &Backbone) -> Result<Self> {
        Self::settle(folder)?;
        let path = folder.join(MANIFEST_FILE);
        let manifest: Manifest = file::read_json(&path, "adapter manifest")?;
        if manifest.schema != SCHEMA {
            return Err(inarch_core::Error::mismatch(
                format!("format version of `{}`", path.display()),
                SCHEMA,
                manifest.schema,
            )
            .into());
        }
        if &manifest.backbone.digest != backbone.digest() {
            return Err(inarch_core::Error::Refused {
                what: format!("backbone of adapter `{}`", folder.display()),
                expected: format!("{} ({})", manifest.backbone.name, manifest.backbone.digest.short()),
                found: format!("{} ({})", backbone.name(), backbone.digest().short()),
            }
            .into());
        }
        if &manifest.preprocess != backbone.preprocess() {
            return Err(inarch_core::Error::Refused {
                what: format!("image preparation of adapter `{}`", folder.display()),
                expected: serde_json::to_string(&manifest.preprocess).unwrap_or_default(),
                found: serde_json::to_string(backbone.preprocess()).unwrap_or_default(),
            }
            .into());
        }
        let path = folder.join(TENSORS_FILE);
        let malformed = |reason: String| inarch_core::Error::malformed("adapter", &path, reason);
        let mut found = Digest::of_file(&path)?;
        if found != manifest.tensors {
            // Saved anew by another process since.
            Self::settle(folder)?;
            found = Digest::of_file(&path)?;
        }
        if found != manifest.tensors {
            return Err(malformed(format!(
                "its content is {} but the manifest says {}: the file was changed or damaged",
                found.short(),
                manifest.tensors.short()
            ))
            .into());
        }
        let (tensors, _) = read_safetensors(&path)?;
        let device = backbone.device();
        let features = burn::tensor::Tensor::zeros([manifest.classes.len(), backbone.spec().dim], device);
        let start = Start { saved: Some(&tensors), ..Start::new(backbone, &features, Seed::new(0), device) };
        let adapter = manifest.method.init(&start)?;
        let adapter = adapter.with_parameters(tensors, device).map_err(malformed)?;
        Ok(Self { manifest, adapter })
    }

    /// A classifier for this adapter: over its own classes, or over others where the method allows it.
    ///
    /// # Errors
    /// [`Error::UnknownClass`] for a class-bound method.
    pub fn classifier<'a>(
        &self,
        backbone: impl Into<BackboneHandle<'a>>,
        classes: Option<&[String]>,
    ) -> Result<Classifier<'a>> {
        let Manifest { method, classes: trained, .. } = &self.manifest;
        Classifier::adapted(backbone, method, trained, classes.unwrap_or(trained), &self.templates()?)
    }

    /// The templates it was trained with.
    ///
    /// # Errors
    /// A template in the manifest that is not valid.
    pub fn templates(&self) -> Result<Vec<Template>> {
        Ok(self.manifest.templates.iter().map(|text| Template::new(text)).collect::<Result<_, _>>()?)
    }

    /// The offsets of some classes, where images have several labels.
    ///
    /// # Errors
    /// [`Error::UnknownClass`] for a class that was not trained, and so has none.
    pub fn offsets(&self, classes: &[String]) -> Result<Option<Vec<f32>>> {
        let Manifest { method, classes: trained, offsets, .. } = &self.manifest;
        let Some(offsets) = offsets else { return Ok(None) };
        let of = |class: &String| {
            let place = trained.iter().position(|known| known == class);
            place.and_then(|place| offsets.get(place).copied()).ok_or_else(|| Error::UnknownClass {
                class: class.clone(),
                method: method.name(),
                known: trained.len(),
                candidates: trained.clone(),
            })
        };
        classes.iter().map(of).collect::<Result<_>>().map(Some)
    }

    /// Runs the golden inputs and compares.
    ///
    /// # Errors
    /// [`Error::SelfTest`] with the first score that differs; inputs that are not those of this artifact.
    pub fn self_test(&self, backbone: &Backbone) -> Result<()> {
        let Manifest { method, classes, clips, self_test, .. } = &self.manifest;
        let templates = self.templates()?;
        let subject = Subject { adapter: &self.adapter, method, classes, templates: &templates, clips: clips.as_ref() };
        self_test.check(backbone, &subject)
    }
}

/// Gives staged tensors their name. Another process that reads the folder may have done so already.
fn name_staged(folder: &Path) -> Result<()> {
    let staged = folder.join(STAGED_FILE);
    match file::rename(&staged, &folder.join(TENSORS_FILE)) {
        Err(_) if !staged.exists() => Ok(()),
        result => Ok(result?),
    }
}

fn encode(adapter: &Adapter) -> Result<Vec<u8>> {
    Ok(encode_safetensors(&adapter.parameters(), BTreeMap::new(), Precision::F32)?)
}
