//! A benchmark as data.

use std::path::{Path, PathBuf};

use inarch_core::data::DataOptions;
use inarch_core::file;
use inarch_core::image::{Frame, Window};
use inarch_peft::MethodConfig;
use inarch_recipes::{Recipe, RecipeLayers, find_paths, lead_from, lead_to_backbone};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::learner::LearnerConfig;
use crate::memory::MemoryConfig;
use crate::stream::StreamConfig;

/// The method that strategies train where a recipe names none.
const METHOD: &str = "linear-probe";
/// What of its preset does not suit a stream: a fresh view for every image would hide what rehearsal stores, and the length
/// must not depend on the size of an experience.
const FIT: &[&str] =
    &["views=1", "augment={ crop = \"centre\", flip = 0.0 }", "train.budget={ iterations = 200 }", "train.batch=64"];

/// Settings of a recipe of `fit` that `[fit]` of a stream would not take up, and what says the same here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("backbone", "set `backbone` beside `[fit]`, or give `-b`"),
    ("data", "set `data` beside `[fit]`, or give `-d`"),
    ("root", "set `root` beside `[fit]`, or give `--root`"),
    ("group_by", "set `group_by` beside `[fit]`, or give `--group-by`"),
    ("slices", "set `slices` beside `[fit]`, or give `--slices`"),
    ("window", "set `window` beside `[fit]`, or give `--window`"),
    ("seed", "set `seeds`, one run for each, or give `--seeds`"),
    ("shots", "set `stream.shots`"),
    ("subset", "a stream has all classes of its data: leave it out"),
    ("clips", "clips are read as their data set is: leave it out"),
    ("on_bad_image", "give `--on-bad-image`"),
];

/// Everything that decides a benchmark, beside the bytes of backbone and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRecipe {
    /// The backbone: a folder, a file or a name.
    #[serde(default)]
    pub backbone: Option<String>,
    /// The data set, or several.
    #[serde(default)]
    pub data: Option<OneOrMore>,
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
    /// One run for each.
    #[serde(default = "seeds")]
    pub seeds: Vec<u64>,
    /// How the data becomes a stream.
    #[serde(default)]
    pub stream: StreamConfig,
    /// What strategies that remember may keep.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// The strategies, each with its settings beside its `name`.
    #[serde(default = "strategies")]
    pub strategy: Vec<Table>,
    /// What strategies train: a recipe of `inarch fit`, over the preset of its method.
    #[serde(default)]
    pub fit: Table,
}

/// One path or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(PathBuf),
    /// Several.
    More(Vec<PathBuf>),
}

impl OneOrMore {
    /// As a list.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::More(paths) => paths,
        }
    }
}

fn seeds() -> Vec<u64> {
    vec![1993, 1994, 1995]
}

fn strategies() -> Vec<Table> {
    vec![named("rail")]
}

fn named(name: &str) -> Table {
    Table::from_iter([("name".to_string(), Value::String(name.into()))])
}

fn is_named(strategy: &Table, name: &str) -> bool {
    strategy.get("name").and_then(Value::as_str) == Some(name)
}

/// A recipe with its parts read.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The recipe.
    pub recipe: StreamRecipe,
    /// Its strategies.
    pub strategies: Vec<LearnerConfig>,
    /// What is trained.
    pub fit: Recipe,
}

impl StreamRecipe {
    /// A recipe file with `key=value` settings over it.
    ///
    /// # Errors
    /// Text that is not TOML, or an unknown key.
    pub fn read(text: &str, origin: &str, set: &[String]) -> Result<Self> {
        let table = toml::from_str(text).map_err(|error| fault(origin, &error))?;
        Self::of(table, origin, set)
    }

    /// As [`read`](Self::read), of a file, whose paths lead from its folder.
    ///
    /// # Errors
    /// As [`read`](Self::read), and a file that cannot be read.
    pub fn open(path: &Path, set: &[String]) -> Result<Self> {
        let origin = path.display().to_string();
        let mut table: Table = toml::from_str(&file::read_text(path)?).map_err(|error| fault(&origin, &error))?;
        find_paths(&mut table, path.parent().unwrap_or(Path::new("")));
        Self::of(table, &origin, set)
    }

    fn of(mut table: Table, origin: &str, set: &[String]) -> Result<Self> {
        for assignment in set {
            inarch_recipes::set_in(&mut table, assignment)?;
        }
        let text = toml::to_string(&table).map_err(|error| fault(origin, &error))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| fault(origin, &error))
    }

    /// How its data sets are read.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            root: self.root.clone(),
            group_by: self.group_by.clone(),
            slices: self.slices.unwrap_or_default(),
            window: self.window,
            ..DataOptions::default()
        }
    }

    /// The recipe for a file in `folder`, from where its paths lead.
    #[must_use]
    pub fn led_from(&self, folder: &Path) -> Self {
        let lead = |path: &PathBuf| lead_from(folder, path);
        Self {
            backbone: self.backbone.as_ref().map(|backbone| lead_to_backbone(folder, backbone)),
            data: self.data.as_ref().map(|data| match data {
                OneOrMore::One(path) => OneOrMore::One(lead(path)),
                OneOrMore::More(paths) => OneOrMore::More(paths.iter().map(lead).collect()),
            }),
            root: self.root.as_ref().map(lead),
            ..self.clone()
        }
    }

    /// Keeps strategies of these names, with the recipe's settings; one that the recipe lacks has its defaults.
    pub fn choose(&mut self, names: &[String]) {
        let own = std::mem::take(&mut self.strategy);
        let of = |name: &String| {
            let same: Vec<Table> = own.iter().filter(|one| is_named(one, name)).cloned().collect();
            if same.is_empty() { vec![named(name)] } else { same }
        };
        self.strategy = names.iter().flat_map(of).collect();
    }

    /// Keeps all strategies there are, with the recipe's settings, but those that cannot train its `fit.method`, or not in its
    /// chunks. Gives the names of these.
    ///
    /// # Errors
    /// An unknown method or setting.
    pub fn choose_all(&mut self) -> Result<Vec<String>> {
        self.choose(&LearnerConfig::names());
        let (fit, mut left_out) = (fit_recipe(&self.fit)?, Vec::new());
        for table in std::mem::take(&mut self.strategy) {
            let strategy = LearnerConfig::read(&table)?;
            match self.suits(&strategy, &fit.method) {
                Ok(()) => self.strategy.push(table),
                Err(_) => left_out.push(strategy.name().to_string()),
            }
        }
        Ok(left_out)
    }

    /// Whether a strategy can learn this stream by a method, as far as their settings tell.
    fn suits(&self, strategy: &LearnerConfig, method: &MethodConfig) -> Result<()> {
        strategy.check(method)?;
        if self.stream.chunk.is_some() { strategy.check_chunks() } else { Ok(()) }
    }

    /// Reads its parts strictly.
    ///
    /// # Errors
    /// An unknown strategy, method or setting; one in `[fit]` that is said elsewhere; no strategy or seed; one of them twice; one that
    /// cannot train `fit.method`, or not in chunks.
    pub fn protocol(self) -> Result<Protocol> {
        self.stream.check()?;
        self.memory.check()?;
        if self.seeds.is_empty() || self.strategy.is_empty() {
            return Err(Error::setting("seeds and strategy", "at least one of each is needed"));
        }
        if let Some((_, seed)) = self.seeds.iter().enumerate().find(|(at, seed)| self.seeds[..*at].contains(seed)) {
            return Err(Error::setting("seeds", format!("{seed} is given twice; each seed is a run of its own")));
        }
        let strategies: Vec<LearnerConfig> = self.strategy.iter().map(LearnerConfig::read).collect::<Result<_>>()?;
        for (at, strategy) in strategies.iter().enumerate() {
            if strategies[..at].contains(strategy) {
                return Err(Error::setting(
                    "strategy",
                    format!("`{}` is given twice with equal settings", strategy.name()),
                ));
            }
        }
        check_fit(&self.fit, ELSEWHERE)?;
        let fit = fit_recipe(&self.fit)?;
        strategies.iter().try_for_each(|strategy| self.suits(strategy, &fit.method))?;
        Ok(Protocol { recipe: self, strategies, fit })
    }
}

fn fault(origin: &str, reason: &dyn std::fmt::Display) -> Error {
    let reason = reason.to_string().trim_end().to_string();
    Error::Recipe(inarch_recipes::Error::Recipe { origin: origin.into(), reason })
}

/// Refuses settings in `[fit]` that would be passed over: names, each with what says the same.
pub(crate) fn check_fit(given: &Table, elsewhere: &[(&str, &str)]) -> Result<()> {
    match elsewhere.iter().find(|(key, _)| given.contains_key(*key)) {
        None => Ok(()),
        Some((key, instead)) => Err(fault("[fit]", &format!("`fit.{key}` is not taken up here; {instead}"))),
    }
}

/// What strategies train: the method's preset, what a stream needs, then what the recipe says.
pub(crate) fn fit_recipe(given: &Table) -> Result<Recipe> {
    let method = given.get("method").and_then(|method| method.get("name")).and_then(Value::as_str).unwrap_or(METHOD);
    let mut layers = RecipeLayers::preset(method, false)?;
    for assignment in FIT {
        layers.set(assignment)?;
    }
    Ok(layers.over(given.clone(), "[fit]").finish()?)
}

#[cfg(test)]
mod tests {
    use super::{LearnerConfig, StreamRecipe};

    #[test]
    fn a_recipe_is_read_strictly() {
        let recipe =
            StreamRecipe::read("[[strategy]]\nname = \"er\"\nreplay = 8\n", "test", &["stream.experiences=3".into()]);
        let protocol = recipe.unwrap().protocol().unwrap();
        assert_eq!((protocol.recipe.stream.experiences, protocol.fit.train.batch), (3, 64));
        let text = toml::to_string(&protocol.recipe).unwrap();
        assert_eq!(StreamRecipe::read(&text, "again", &[]).unwrap(), protocol.recipe);
        let fault = |text: &str| {
            StreamRecipe::read(text, "test", &[]).and_then(StreamRecipe::protocol).map(drop).unwrap_err().to_string()
        };
        assert!(fault("[stream]\nexperience = 3").contains("experience"));
        assert!(fault("[[strategy]]\nname = \"er\"\nreplays = 8").contains("replays"));
        assert!(fault("[[strategy]]\nname = \"err\"").contains("unknown strategy"));
        assert!(fault("[fit]\nshot = 3").contains("shot"));
        assert!(fault("[fit.method]\nname = \"loro\"").contains("loro"));
        assert!(fault("[[strategy]]\nname = \"er\"\n[[strategy]]\nname = \"er\"").contains("twice"));
        assert!(fault("seeds = [3, 1, 3]").contains("3 is given twice"));
    }

    #[test]
    fn what_a_stream_says_elsewhere_is_refused_beside_what_it_trains() {
        for (setting, instead) in
            [("seed = 7", "`seeds`"), ("shots = 4", "`stream.shots`"), ("subset = \"base\"", "all classes")]
        {
            let key = setting.split(' ').next().unwrap();
            let read = StreamRecipe::read(&format!("[fit]\n{setting}"), "test", &[]).unwrap();
            let set = StreamRecipe::read("", "test", &[format!("fit.{setting}")]).unwrap();
            for recipe in [read, set] {
                let reason = recipe.protocol().unwrap_err().to_string();
                assert!(reason.contains(&format!("`fit.{key}`")) && reason.contains(instead), "{reason}");
            }
        }
        // No name of a recipe of `fit` is read without a word.
        let names = toml::Table::try_from(super::fit_recipe(&super::Table::new()).unwrap()).unwrap();
        let is_refused = |key: &str| super::ELSEWHERE.iter().any(|(name, _)| *name == key);
        let taken: Vec<&String> = names.keys().filter(|key| !is_refused(key)).collect();
        assert_eq!(taken, ["augment", "method", "templates", "train", "views"]);
    }

    #[test]
    fn a_strategy_that_cannot_train_the_method_is_refused_by_name_and_left_out_of_all() {
        let text = "[[strategy]]\nname = \"er\"\nreplay = 8\n[[strategy]]\nname = \"o-lora\"";
        let read = |set: &str| StreamRecipe::read(text, "test", &[set.to_string()]).unwrap();
        let reason = read("seeds=[1]").protocol().unwrap_err().to_string();
        assert!(["o-lora", "`lora`", "fit.method"].iter().all(|part| reason.contains(part)), "{reason}");
        assert!(read("fit.method={ name = \"stack\" }").protocol().is_ok());
        for (method, left_out) in [
            (
                "linear-probe",
                &["o-lora", "inflora", "sd-lora", "moe-adapters", "l2p", "dual-prompt", "coda-prompt", "s-prompts"][..],
            ),
            ("stack", &["moe-adapters", "l2p", "dual-prompt", "coda-prompt", "s-prompts"][..]),
            ("lora", &["slca", "moe-adapters", "l2p", "dual-prompt", "coda-prompt", "s-prompts"][..]),
        ] {
            let mut recipe = read(&format!("fit.method={{ name = {method:?} }}"));
            assert_eq!(recipe.choose_all().unwrap(), left_out, "{method}");
            let names: Vec<&str> = recipe.strategy.iter().filter_map(|one| one["name"].as_str()).collect();
            assert_eq!(names.len() + left_out.len(), LearnerConfig::names().len(), "{method}");
            assert!(names.iter().all(|name| !left_out.contains(name)), "{method}");
            let er = recipe.strategy.iter().find(|one| one["name"].as_str() == Some("er")).unwrap();
            assert_eq!(er["replay"].as_integer(), Some(8));
            assert!(recipe.protocol().is_ok(), "{method}");
        }
    }

    #[test]
    fn a_strategy_that_takes_each_training_for_an_experience_is_refused_in_chunks() {
        let read = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
            StreamRecipe::read("[fit.method]\nname = \"stack\"", "test", &settings).unwrap()
        };
        let reason = read(&["strategy=[{ name = \"o-lora\" }]", "stream.chunk=8"]).protocol().unwrap_err().to_string();
        assert!(reason.contains("o-lora") && reason.contains("stream.chunk"), "{reason}");
        let mut recipe = read(&["stream.chunk=8"]);
        let left_out = recipe.choose_all().unwrap();
        assert!(["o-lora", "inflora", "sd-lora"].iter().all(|name| left_out.iter().any(|other| other == name)));
        assert!(!left_out.iter().any(|name| ["er", "slca", "ewc", "rail"].contains(&name.as_str())));
        assert!(recipe.protocol().is_ok());
    }

    #[test]
    fn a_chosen_strategy_keeps_the_settings_of_the_recipe() {
        let text = "[[strategy]]\nname = \"er\"\nreplay = 8\n[[strategy]]\nname = \"er\"\nreplay = 9\n[[strategy]]\nname = \"mas\"";
        let chosen = |names: &[&str]| {
            let mut recipe = StreamRecipe::read(text, "test", &[]).unwrap();
            recipe.choose(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
            recipe.strategy
        };
        let own = StreamRecipe::read(text, "test", &[]).unwrap().strategy;
        assert_eq!(chosen(&["er"]), own[..2]);
        let grown = chosen(&["lwf", "er"]);
        assert_eq!((&grown[1..], grown[0].len()), (&own[..2], 1));
    }
}
