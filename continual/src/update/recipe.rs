//! An update as data.

use inarch_recipes::{read_over, set_in};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::gate::Gate;
use crate::bench::check_fit;
use crate::error::{Error, Result};
use crate::memory::MemoryConfig;

/// Plain rehearsal.
const DEFAULT_STRATEGY: &str = "er";

/// Settings of a recipe of `fit` that `[fit]` of an update would not take up, and what says the same here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("backbone", "give `-b`"),
    ("data", "give `-d`"),
    ("root", "give `--root`"),
    ("group_by", "give `--group-by`"),
    ("slices", "give `--slices`"),
    ("window", "give `--window`"),
    ("seed", "set `seed` beside `[fit]`"),
    ("shots", "an update learns all new samples of `-d`: give fewer images"),
    ("subset", "an update learns all classes of `-d`: give other images"),
    ("clips", "give `--frames` and its kin"),
    ("on_bad_image", "give `--on-bad-image`"),
    ("method", "`--init METHOD` with `[method]` begins a first version, and later ones keep its method"),
];

/// Settings of an update. Memories that exist keep their own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateRecipe {
    /// The rehearsal memory of a first version.
    pub memory: MemoryConfig,
    /// The samples that versions are judged by, of a first version.
    pub probe: MemoryConfig,
    /// The gate.
    pub gate: Gate,
    /// How methods that train by steps are trained further: `er` unless it is named, with as many rehearsed samples in a step as there
    /// are new ones unless `replay` is given.
    pub strategy: Table,
    /// The optimisation of those, over the preset of their method.
    pub fit: Table,
    /// Settings of a first version's method, beside its name.
    pub method: Table,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for UpdateRecipe {
    fn default() -> Self {
        let memory = MemoryConfig::default();
        Self {
            memory,
            probe: MemoryConfig { seed: 2, ..memory },
            gate: Gate::default(),
            strategy: Table::from_iter([("name".to_string(), Value::String(DEFAULT_STRATEGY.into()))]),
            fit: Table::new(),
            method: Table::new(),
            seed: 1,
        }
    }
}

impl UpdateRecipe {
    /// A recipe file with `key=value` settings over it.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a setting outside its domain, or one in `[fit]` that is said elsewhere.
    pub fn read(text: &str, origin: &str, set: &[String]) -> Result<Self> {
        let mut table: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
            let reason = error.to_string().trim_end().to_string();
            Error::Recipe(inarch_recipes::Error::Recipe { origin: origin.into(), reason })
        })?;
        for assignment in set {
            set_in(&mut table, assignment)?;
        }
        let mut recipe: Self = read_over(&Self::default(), table, origin)?;
        // Settings of a strategy that is not named are those of the default.
        recipe.strategy.entry("name").or_insert_with(|| Value::String(DEFAULT_STRATEGY.into()));
        recipe.memory.check()?;
        recipe.probe.check()?;
        if recipe.probe.views > 1 {
            return Err(Error::setting("probe.views", "held-out samples judge in the centre view alone; leave it out"));
        }
        recipe.gate.check()?;
        check_fit(&recipe.fit, ELSEWHERE)?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::UpdateRecipe;
    use crate::memory::MemoryConfig;

    #[test]
    fn a_part_of_a_section_keeps_the_defaults_of_an_update() {
        let whole = UpdateRecipe::default();
        // The probe does not choose as the memory does.
        assert_ne!(whole.probe.seed, MemoryConfig::default().seed);
        let read = |text: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            UpdateRecipe::read(text, "test", &set)
        };
        let smaller = MemoryConfig { budget_bytes: 4096, ..whole.probe };
        for (text, set) in [("", &["probe.budget_bytes=4096"][..]), ("[probe]\nbudget_bytes = 4096\n", &[][..])] {
            let expected = UpdateRecipe { probe: smaller, ..whole.clone() };
            assert_eq!(read(text, set).expect("valid"), expected);
        }
        let both = read("[probe]\nseed = 5\n", &["probe.budget_bytes=4096", "memory.views=3"]).expect("valid");
        assert_eq!(both.probe, MemoryConfig { seed: 5, ..smaller });
        assert_eq!(both.memory, MemoryConfig { views: 3, ..whole.memory });
        let fault = read("", &["probe.bugdet_bytes=4096"]).expect_err("an unknown key").to_string();
        assert!(fault.contains("bugdet_bytes"), "{fault}");
    }

    #[test]
    fn what_an_update_says_elsewhere_is_refused_beside_what_it_trains() {
        for (setting, instead) in [
            ("seed = 7", "`seed` beside `[fit]`"),
            ("shots = 4", "give fewer images"),
            ("method = { name = \"lora\" }", "`--init METHOD`"),
        ] {
            let key = setting.split(' ').next().expect("a key");
            let read = UpdateRecipe::read(&format!("[fit]\n{setting}"), "test", &[]);
            let set = UpdateRecipe::read("", "test", &[format!("fit.{setting}")]);
            for recipe in [read, set] {
                let reason = recipe.expect_err("it is said elsewhere").to_string();
                assert!(reason.contains(&format!("`fit.{key}`")) && reason.contains(instead), "{reason}");
            }
        }
        let own = ["seed=7".to_string(), "fit.train.batch=8".into(), "fit.views=3".into()];
        assert_eq!(UpdateRecipe::read("", "test", &own).expect("valid").seed, 7);
    }

    #[test]
    fn settings_without_a_name_are_those_of_the_default_strategy() {
        let read = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            UpdateRecipe::read("", "test", &set).expect("valid").strategy
        };
        let plain = read(&[]);
        assert_eq!(plain, UpdateRecipe::default().strategy);
        let with = read(&["strategy.replay=9"]);
        assert_eq!(with["name"], plain["name"]);
        assert_eq!(with["replay"].as_integer(), Some(9));
        assert_eq!(read(&["strategy.name=\"ewc\""])["name"].as_str(), Some("ewc"));
    }
}
