//! A fit as data: preset, then file, then `--set`, merged and read strictly.

use std::path::{Path, PathBuf};

use inarch_core::backbone::Products;
use inarch_core::data::{ClipConfig, DataOptions};
use inarch_core::file;
use inarch_core::image::{Augment, Frame, OnBadImage, Window};
use inarch_core::text::{Template, TemplateSet};
use inarch_peft::{METHODS, MethodConfig};
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::balance::Imbalance;
use crate::contrastive::PairLoss;
use crate::error::{Error, Result};
use crate::optimizer::OptimizerConfig;
use crate::recipe_paths::{find_paths, is_descriptions};
use crate::schedule::{Budget, Schedule};
use crate::strict::read_table;

/// One recipe for each method.
static PRESETS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/presets");
/// The section of a preset that holds its authors' own settings, where the preset departs from them.
const OFFICIAL: &str = "official";

/// Everything that decides a trained adapter, beside the bytes of backbone and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The backbone: a folder, a file or a name.
    #[serde(default)]
    pub backbone: Option<String>,
    /// The data set.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// The folder that the paths of a split file are relative to.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// A pattern over file names; what its group matches is never in two splits ([`DataOptions::group_by`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// Which slices of volumes and frames of DICOM files are images; the middle one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<Frame>,
    /// The window that grey values are shown in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Seed of all draws.
    #[serde(default = "one")]
    pub seed: u64,
    /// Training images of each class; all when absent.
    #[serde(default)]
    pub shots: Option<usize>,
    /// Which classes take part.
    #[serde(default)]
    pub subset: Subset,
    /// How clips are read; absent for still images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<ClipConfig>,
    /// A named set of templates, or templates.
    pub templates: Templates,
    /// Augmented views of each training image that are fixed for the run; 0 draws a fresh one each time.
    pub views: usize,
    /// What to do about an image that cannot be read.
    #[serde(default)]
    pub on_bad_image: BadImagePolicy,
    /// How training images are varied.
    #[serde(default = "Augment::clip")]
    pub augment: Augment,
    /// The method and its settings.
    pub method: MethodConfig,
    /// The optimisation.
    pub train: TrainConfig,
}

fn one() -> u64 {
    1
}

/// Which classes take part in a run (the base-to-new protocol of CoCoOp: Zhou et al., 2022, arXiv 2203.05557).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subset {
    /// All classes.
    #[default]
    All,
    /// The first half, rounded up.
    Base,
    /// The second half.
    New,
}

/// What to do about an image that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadImagePolicy {
    /// Stop and name it.
    #[default]
    Fail,
    /// Leave it out and list it in the report.
    Skip,
}

impl From<BadImagePolicy> for OnBadImage {
    fn from(policy: BadImagePolicy) -> Self {
        match policy {
            BadImagePolicy::Fail => Self::Fail,
            BadImagePolicy::Skip => Self::Skip,
        }
    }
}

/// Templates by name or in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// A set's name, one template, or a `.json` file of descriptions ([`TemplateSet::descriptions`]).
    Named(String),
    /// Templates.
    List(Vec<Template>),
}

impl Templates {
    /// The templates themselves.
    ///
    /// # Errors
    /// An unknown name.
    pub fn resolve(&self) -> Result<Vec<Template>> {
        match self {
            Self::Named(name) if is_descriptions(name) => {
                Ok(TemplateSet::descriptions(name.as_ref())?.templates().to_vec())
            }
            Self::Named(name) => Ok(TemplateSet::resolve(name)?.templates().to_vec()),
            Self::List(templates) => Ok(templates.clone()),
        }
    }
}

/// The optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// How long.
    pub budget: Budget,
    /// Images in a step.
    pub batch: usize,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// In what the frozen layers of the towers multiply ([`Products`]); loss and steps are in single precision.
    #[serde(default, skip_serializing_if = "TrainPrecision::is_full")]
    pub precision: TrainPrecision,
    /// What is done about classes of unequal size.
    #[serde(default, skip_serializing_if = "Imbalance::is_none")]
    pub imbalance: Imbalance,
    /// How image-text pairs are judged, where they are trained on; when absent, by the loss that the backbone was trained with:
    /// `sigmoid` where its scores have an offset (SigLIP), else `softmax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_loss: Option<PairLoss>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// In what the frozen layers of the towers multiply in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainPrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats of 8 significant bits, for devices that are fast in them.
    Bf16,
}

impl TrainPrecision {
    fn is_full(&self) -> bool {
        *self == Self::F32
    }
}

impl From<TrainPrecision> for Products {
    fn from(precision: TrainPrecision) -> Self {
        match precision {
            TrainPrecision::F32 => Self::Full,
            TrainPrecision::Bf16 => Self::Bf16,
        }
    }
}

/// Builds a recipe from its layers.
#[derive(Debug, Clone, Default)]
pub struct RecipeLayers {
    table: Table,
    origin: String,
}

impl RecipeLayers {
    /// The preset of a method; with `official`, its authors' own schedule where the preset departs from it.
    ///
    /// # Errors
    /// An unknown method.
    pub fn preset(method: &str, official: bool) -> Result<Self> {
        let file = PRESETS.get_file(format!("{method}.toml")).filter(|_| METHODS.contains(&method));
        let Some(text) = file.and_then(|file| file.contents_utf8()) else {
            return Err(inarch_core::Error::Unknown {
                kind: "method",
                name: method.into(),
                candidates: METHODS.iter().map(ToString::to_string).collect(),
            }
            .into());
        };
        let mut layers = Self { table: parse(text, method)?, origin: format!("preset {method}") };
        let authors = layers.table.remove(OFFICIAL);
        if let (true, Some(Value::Table(authors))) = (official, authors) {
            merge(&mut layers.table, authors);
        }
        Ok(layers)
    }

    /// A recipe file, whose paths lead from its folder, over the preset of the method that it names.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`file`](Self::file).
    pub fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let mut table = parse(&file::read_text(path)?, &origin)?;
        find_paths(&mut table, path.parent().unwrap_or(Path::new("")));
        Self::of(table, &origin)
    }

    /// The text of a recipe file over the preset of the method that it names.
    ///
    /// # Errors
    /// A text that is not TOML or names no method.
    pub fn file(text: &str, origin: &str) -> Result<Self> {
        Self::of(parse(text, origin)?, origin)
    }

    fn of(table: Table, origin: &str) -> Result<Self> {
        let method = table
            .get("method")
            .and_then(|method| method.get("name"))
            .and_then(Value::as_str)
            .ok_or_else(|| fault(origin, format!("`method.name` is missing; one of {METHODS:?}")))?;
        let mut layers = Self::preset(method, false)?;
        merge(&mut layers.table, table);
        layers.origin = origin.into();
        Ok(layers)
    }

    /// Applies `path.to.key=value`; the value is TOML, or else taken as text.
    ///
    /// # Errors
    /// No `=`, or a path through something that is not a table.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        set(&mut self.table, assignment)
    }

    /// Describes classes with these templates, which the recipe then holds in full, so that it needs no other file.
    pub fn describe(&mut self, templates: &[Template]) {
        let templates = templates.iter().map(|one| Value::String(one.to_string())).collect();
        self.table.insert("templates".into(), Value::Array(templates));
    }

    /// Puts a table over the layers; `origin` is what errors name from now on.
    #[must_use]
    pub fn over(mut self, table: Table, origin: &str) -> Self {
        merge(&mut self.table, table);
        self.origin = origin.into();
        self
    }

    /// Reads the merged layers strictly.
    ///
    /// # Errors
    /// An unknown or missing key, or a value of the wrong type, with its place.
    pub fn finish(self) -> Result<Recipe> {
        let recipe: Recipe = read_table(&self.table, &self.origin)?;
        recipe.check()?;
        Ok(recipe)
    }
}

/// Applies `path.to.key=value` to a table, as `--set` does.
///
/// # Errors
/// No `=`, or a path through something that is not a table.
pub fn set_in(table: &mut Table, assignment: &str) -> Result<()> {
    set(table, assignment)
}

/// Applies `path.to.key=value`.
pub(crate) fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let origin = format!("--set {assignment}");
    let (path, value) = assignment.split_once('=').ok_or_else(|| fault(&origin, "expected `key=value`".into()))?;
    let value = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut table = table;
    for key in keys {
        let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| fault(&origin, format!("`{key}` is a value, not a section")))?;
    }
    table.insert(last.to_string(), value);
    Ok(())
}

impl Recipe {
    /// Steps of a run over `images` training images, and of one epoch.
    pub(crate) fn steps(&self, images: usize) -> (usize, usize) {
        let steps_per_epoch = (images / self.train.batch).max(1);
        (self.train.budget.steps(self.shots.unwrap_or(16), steps_per_epoch), steps_per_epoch)
    }

    /// How its data set is read.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            root: self.root.clone(),
            group_by: self.group_by.clone(),
            slices: self.slices.unwrap_or_default(),
            clips: self.clips.clone(),
            window: self.window,
            one_class: false,
        }
    }

    fn check(&self) -> Result<()> {
        let train = &self.train;
        if train.batch == 0 {
            return Err(fault("train.batch", "must be at least 1".into()));
        }
        if !(train.optimizer.lr().is_finite() && train.optimizer.lr() > 0.0) {
            return Err(fault("train.optimizer.lr", format!("must be above 0, found {}", train.optimizer.lr())));
        }
        if self.shots == Some(0) {
            return Err(fault("shots", "must be at least 1; leave it out to train on all images".into()));
        }
        if self.views > 1000 {
            return Err(fault("views", format!("must be at most 1000, found {}", self.views)));
        }
        train.imbalance.check().map_err(|reason| fault("train.imbalance", reason))?;
        self.augment.validate()?;
        self.clips.as_ref().map_or(Ok(()), ClipConfig::check)?;
        Ok(())
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

pub(crate) fn parse(text: &str, origin: &str) -> Result<Table> {
    toml::from_str(text).map_err(|error| fault(origin, error.to_string()))
}

pub(crate) fn fault(origin: &str, reason: String) -> Error {
    Error::Recipe { origin: origin.into(), reason: reason.trim_end().into() }
}

/// Tables merge key by key; everything else is replaced. A section whose `name` changes is replaced as a whole, since
/// the settings of another method or optimizer mean nothing to it, and so is a section of one key, such as a budget,
/// by another one.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                let renamed = new.get("name").is_some_and(|name| old.get("name") != Some(name));
                let other_choice = old.len() == 1 && new.len() == 1 && old.keys().ne(new.keys());
                if renamed || other_choice {
                    *old = new;
                } else {
                    merge(old, new);
                }
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Augment, METHODS, RecipeLayers};
    use crate::schedule::{Budget, Schedule};

    #[test]
    fn every_method_has_a_preset_that_reads() {
        for method in METHODS {
            let recipe = RecipeLayers::preset(method, false).and_then(RecipeLayers::finish).expect(method);
            assert_eq!(recipe.method.name(), *method);
            RecipeLayers::preset(method, true).and_then(RecipeLayers::finish).expect(method);
        }
        let names = super::PRESETS.files().filter_map(|file| file.path().file_stem()?.to_str());
        for name in names {
            assert!(METHODS.contains(&name), "the preset `{name}` belongs to no method");
        }
    }

    #[test]
    fn later_layers_win_and_leftovers_are_refused() {
        let text = "shots = 4\n[method]\nname = \"lora\"\nrank = 8\n";
        let mut layers = RecipeLayers::file(text, "test").expect("reads");
        layers.set("train.budget={ iterations = 7 }").expect("sets");
        let recipe = layers.clone().finish().expect("finishes");
        assert_eq!((recipe.shots, recipe.train.budget), (Some(4), Budget::Iterations(7)));
        layers.set("method.rang=4").expect("sets");
        let error = layers.clone().finish().expect_err("an unknown key").to_string();
        assert!(error.contains("rang"), "{error}");
        for (assignment, words) in [
            (
                "method.rank=three",
                "invalid type: string \"three\", expected a whole number from 0 on, at `rank = \"three\"` of `[method]`",
            ),
            ("train.batch=-1", "at `batch = -1`"),
        ] {
            let mut layers = RecipeLayers::file(text, "test").expect("reads");
            layers.set(assignment).expect("sets");
            let error = layers.finish().expect_err("a value of the wrong type").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn one_setting_of_the_views_leaves_the_others_as_they_are() {
        for method in METHODS {
            let preset = RecipeLayers::preset(method, false).expect(method);
            let before = preset.clone().finish().expect(method).augment;
            let mut layers = preset;
            layers.set("augment.flip=0.25").expect("sets");
            let after = layers.finish().expect(method).augment;
            assert_eq!(after, Augment { flip: 0.25, ..before }, "{method}");
        }
    }

    #[test]
    fn a_resolved_recipe_reads_as_itself() {
        for method in METHODS {
            for budget in ["{ iterations = 7 }", "{ epochs = 2 }", "\"coop-epochs\""] {
                let mut layers = RecipeLayers::preset(method, false).expect(method);
                layers.set(&format!("train.budget={budget}")).expect("sets");
                let recipe = layers.finish().expect("finishes");
                let again = RecipeLayers::file(&recipe.to_toml(), "again").and_then(RecipeLayers::finish);
                assert_eq!(again.expect("reads"), recipe);
            }
        }
    }

    #[test]
    fn official_values_are_those_of_the_authors() {
        use Budget::{CoopEpochs, Epochs, Iterations, IterationsPerShot};
        use Schedule::{Coop, Cosine};
        for (method, views, budget, batch, schedule, lr) in [
            ("lora", 0, IterationsPerShot(500), 32, Cosine, 2e-4),
            ("coop", 0, CoopEpochs, 32, Coop, 2e-3),
            ("cocoop", 0, Epochs(10), 1, Coop, 2e-3),
            ("kgcoop", 0, Epochs(100), 128, Coop, 2e-3),
            ("prograd", 0, CoopEpochs, 32, Coop, 2e-3),
            ("tcp", 0, Epochs(50), 32, Coop, 2e-3),
            ("biomedcoop", 0, Epochs(100), 4, Coop, 2.5e-3),
            ("maple", 0, Epochs(5), 4, Coop, 3.5e-3),
            ("ivlp", 0, Epochs(20), 4, Coop, 2.5e-3),
            ("promptsrc", 0, Epochs(50), 4, Coop, 2.5e-3),
            ("clip-adapter", 0, CoopEpochs, 32, Coop, 1e-5),
            ("linear-probe", 20, Epochs(300), 256, Coop, 0.1),
            ("clap", 20, Epochs(300), 256, Coop, 0.1),
            ("tip-adapter-f", 10, Epochs(20), 256, Cosine, 1e-3),
            ("vita-clip", 0, Iterations(30000), 256, Cosine, 4e-4),
            ("aim", 0, Epochs(30), 64, Cosine, 3e-4),
        ] {
            let recipe = RecipeLayers::preset(method, true).and_then(RecipeLayers::finish).expect(method);
            let train = &recipe.train;
            assert_eq!((recipe.views, train.budget, train.batch), (views, budget, batch), "{method}");
            assert_eq!(train.schedule, schedule, "{method}");
            assert!((train.optimizer.lr() - lr).abs() < 1e-12, "{method}: {}", train.optimizer.lr());
        }
    }

    #[test]
    fn the_settings_that_presets_name_for_other_protocols_exist() {
        for (method, set) in [
            ("promptsrc", ["train.budget={ epochs = 20 }", "method.mean=15", "method.deviation=1"]),
            ("maple", ["train.budget={ epochs = 2 }", "method.depth=3", "train.optimizer.lr=0.0026"]),
        ] {
            let mut layers = RecipeLayers::preset(method, true).expect(method);
            for assignment in set {
                let text = super::PRESETS.get_file(format!("{method}.toml")).and_then(|file| file.contents_utf8());
                assert!(text.is_some_and(|text| text.contains(assignment)), "{method}: {assignment}");
                layers.set(assignment).expect(assignment);
            }
            layers.finish().expect(method);
        }
    }
}
