//! The model that a command works with: a backbone, perhaps with an adapter, and the classes it answers for.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use inarch_core::backbone::{Backbone, Frozen, Sites};
use inarch_core::data::{ClipConfig, DataOptions};
use inarch_core::text::{Template, TemplateSet, check_described};
use inarch_peft::{Artifact, Classifier, open_adapter};

use crate::args::{ModelArgs, PromptArgs};
use crate::backbones;
use crate::error::CommandError;
use crate::published::Place;

/// A backbone and the adapter beside it.
pub(crate) struct Model {
    pub(crate) backbone: Backbone,
    pub(crate) adapter: Option<Artifact>,
}

impl Model {
    /// Opens what the arguments name.
    pub(crate) fn open(args: &ModelArgs) -> Result<Self, CommandError> {
        let device = inarch_core::device_in(&args.device.device, args.precision.into())?;
        let backbone = backbones::open(&args.backbone, &device)?;
        let mut parts = load(&args.adapter, &backbone)?;
        let adapter = match parts.len() {
            // Where words have no features, the checkpoint may know classes of its own.
            0 if !backbone.has_words() => Artifact::of_head(&backbone)?,
            0 | 1 => parts.pop(),
            _ => Some(Artifact::stack(&parts, &backbone)?),
        };
        Ok(Self { backbone, adapter })
    }

    /// The adapter as the towers see it.
    pub(crate) fn sites(&self) -> &dyn Sites {
        match &self.adapter {
            Some(artifact) => artifact.adapter.sites(),
            None => &Frozen,
        }
    }

    /// How the adapter's clips were read.
    pub(crate) fn clips(&self) -> Option<&ClipConfig> {
        self.adapter.as_ref()?.manifest.clips.as_ref()
    }

    /// How data is read beside the adapter, where nothing else is said.
    pub(crate) fn reading(&self, options: DataOptions) -> DataOptions {
        match &self.adapter {
            Some(artifact) => artifact.reading(options),
            None => options,
        }
    }

    /// A classifier over `classes`, or over the adapter's own when none are given.
    pub(crate) fn classifier(&self, classes: &[String], prompts: &PromptArgs) -> Result<Classifier<'_>, CommandError> {
        check_names(classes)?;
        match &self.adapter {
            Some(artifact) if classes.is_empty() && artifact.manifest.classes.is_empty() => Err(CommandError::usage(
                "this adapter was trained on free texts and knows no classes",
                "name those it shall choose from: `--classes cat,dog`",
            )),
            Some(artifact) => {
                let classes = (!classes.is_empty()).then_some(classes);
                Ok(artifact.classifier(&self.backbone, classes)?)
            }
            None if classes.is_empty() => Err(CommandError::usage(
                "zero-shot classification needs the names of the classes",
                "`--classes cat,dog`, or `-a ADAPTER` for an adapter that knows its own",
            )),
            None => {
                let templates = prompts.templates()?;
                check_described(&templates, classes)?;
                Ok(Classifier::zero_shot(&self.backbone, classes, &templates)?)
            }
        }
    }

    /// A name for reports.
    pub(crate) fn name(&self) -> String {
        match &self.adapter {
            Some(artifact) => format!("{}+{}", self.backbone.name(), artifact.manifest.method.name()),
            None => self.backbone.name().to_string(),
        }
    }
}

/// Reads adapters that were trained beside this backbone: our folders, those of Hugging Face PEFT, or versions of the
/// registry.
pub(crate) fn load(adapters: &[PathBuf], backbone: &Backbone) -> Result<Vec<Artifact>, CommandError> {
    let one = |given: &PathBuf| -> Result<Artifact, CommandError> {
        let place = Place::find(given)?;
        open_adapter(place.folder(), backbone)
            .map_err(|error| CommandError::from(error).calling(place.folder(), &given.to_string_lossy()))
    };
    adapters.iter().map(one).collect()
}

/// Refuses the folder of a run for an adapter that was made otherwise: recipe and report in it would tell of another.
pub(crate) fn check_no_run(folder: &Path) -> Result<(), CommandError> {
    if !folder.join("recipe.toml").is_file() {
        return Ok(());
    }
    let message = format!("`{}` holds a run of `inarch fit`, with a recipe and a report of its own", folder.display());
    Err(CommandError::usage(message, "name another folder"))
}

/// Class names from the command line, where a comma too many or a name given twice is easily overlooked.
pub(crate) fn check_names(classes: &[String]) -> Result<(), CommandError> {
    let mut seen = HashSet::new();
    for class in classes {
        if class.trim().is_empty() {
            return Err(CommandError::usage("a class name is empty", "separate names by single commas: `cat,dog`"));
        }
        if !seen.insert(class.as_str()) {
            return Err(CommandError::usage(format!("class `{class}` is named twice"), "name each class once"));
        }
    }
    Ok(())
}

/// Templates by name or in full.
pub(crate) fn resolve(templates: &str) -> Result<Vec<Template>, CommandError> {
    Ok(TemplateSet::resolve(templates)?.templates().to_vec())
}
