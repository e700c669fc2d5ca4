//! Which learner, as a recipe says it.

use inarch_peft::{METHODS, MethodConfig};
use inarch_recipes::Recipe;
use toml::{Table, Value};

use super::{AnalyticLearner, GradientLearner, Learner, MemoryHeadLearner};
use crate::error::{Error, Result};
use crate::memory::{MemoryConfig, Sampler};
use crate::strategy::{GRADIENT_STRATEGIES, GradientConfig};

/// The name of class means over herded exemplars.
const NEAREST_MEAN: &str = "nme";

/// A strategy with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum LearnerConfig {
    /// A head in closed form.
    Analytic(MethodConfig),
    /// Nearest mean of herded exemplars.
    NearestMean,
    /// Steps on a method of the recipe.
    Gradient(GradientConfig),
}

impl LearnerConfig {
    /// All names.
    pub fn names() -> Vec<String> {
        let analytic = METHODS.iter().filter(|name| MethodConfig::preset(name).is_some_and(|m| m.analytic().is_some()));
        let names = analytic.chain(GRADIENT_STRATEGIES).map(ToString::to_string);
        names.chain([NEAREST_MEAN.to_string()]).collect()
    }

    /// Reads `name` and the settings beside it, strictly.
    ///
    /// # Errors
    /// An unknown name or setting, or one outside its domain.
    pub fn read(table: &Table) -> Result<Self> {
        let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
        let fault = |error: toml::de::Error| {
            Error::Recipe(inarch_recipes::Error::Recipe {
                origin: format!("strategy {name}"),
                reason: error.message().trim_end().into(),
            })
        };
        let table = || Value::Table(table.clone());
        if name == NEAREST_MEAN {
            return match table().as_table().is_some_and(|table| table.len() == 1) {
                true => Ok(Self::NearestMean),
                false => {
                    Err(Error::setting("strategy nme", "it has no settings; those of its memory are in `[memory]`"))
                }
            };
        }
        if GRADIENT_STRATEGIES.contains(&name) {
            let strategy: GradientConfig = table().try_into().map_err(fault)?;
            strategy.check_settings()?;
            return Ok(Self::Gradient(strategy));
        }
        if !Self::names().iter().any(|known| known == name) {
            let candidates = Self::names();
            return Err(inarch_core::Error::Unknown { kind: "strategy", name: name.into(), candidates }.into());
        }
        Ok(Self::Analytic(table().try_into().map_err(fault)?))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Analytic(method) => method.name(),
            Self::NearestMean => NEAREST_MEAN,
            Self::Gradient(strategy) => strategy.name(),
        }
    }

    /// Its settings as text, which identifies it.
    pub fn identity(&self) -> String {
        match self {
            Self::Analytic(method) => serde_json::to_string(method).unwrap_or_default(),
            Self::NearestMean => NEAREST_MEAN.into(),
            Self::Gradient(strategy) => serde_json::to_string(strategy).unwrap_or_default(),
        }
    }

    /// Whether it can train a method, as far as their settings tell. One that trains nothing does not mind.
    ///
    /// # Errors
    /// The method, or the setting of it, that it needs.
    pub fn check(&self, method: &MethodConfig) -> Result<()> {
        match self {
            Self::Gradient(strategy) => strategy.check(method),
            Self::Analytic(_) | Self::NearestMean => Ok(()),
        }
    }

    /// Whether it can learn an experience that comes in chunks.
    ///
    /// # Errors
    /// A strategy that takes each training for an experience.
    pub fn check_chunks(&self) -> Result<()> {
        match self {
            Self::Gradient(strategy) => strategy.check_chunks(),
            Self::Analytic(_) | Self::NearestMean => Ok(()),
        }
    }

    /// A learner that knows nothing. `recipe` is what is trained where anything is.
    pub fn build(&self, recipe: &Recipe, memory: MemoryConfig) -> Box<dyn Learner> {
        match self {
            Self::Analytic(method) => Box::new(AnalyticLearner::new(method.clone())),
            Self::NearestMean => {
                let method = MethodConfig::preset("simple-cil").expect("a method of this workspace");
                // Its means are of centre views.
                let memory = MemoryConfig { sampler: Sampler::Herding, views: 1, ..memory };
                Box::new(MemoryHeadLearner::new(method, memory))
            }
            Self::Gradient(strategy) => Box::new(GradientLearner::new(strategy.clone(), recipe.clone(), memory)),
        }
    }
}
