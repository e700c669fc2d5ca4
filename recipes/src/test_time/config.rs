//! Which method adapts at test time, and how the stream around it is handled.

use std::path::PathBuf;

use inarch_core::backbone::Backbone;
use inarch_core::image::{TestViews, ViewRecipe};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::method::{Needs, TEST_TIME_METHODS, TestTimeMethod, within};
use crate::error::{Error, Result};
use crate::settings::{read_table, set};

/// The section that settings stand in.
const SECTION: &str = "test-time";

/// Settings that all methods share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSettings {
    /// Views of an image; the method's own number when absent.
    pub views: Option<usize>,
    /// How random views are made; the method's own way when absent.
    pub recipe: Option<ViewRecipe>,
    /// Greatest level of AugMix's operations, of 10.
    pub severity: f64,
    /// A folder with views from elsewhere: those of `a/b.jpg` are the images in `a/b`.
    pub views_from: Option<PathBuf>,
    /// Decides views and orders.
    pub seed: u64,
    /// Images that are adapted together.
    pub batch: usize,
    /// How often an evaluation shuffles the stream; three times for methods with a state, when absent.
    pub orders: Option<usize>,
    /// Probability below which an answer is withheld.
    pub abstain: f64,
    /// Answers over which a collapse is looked for; 0 does not look.
    pub window: usize,
    /// How much more the greatest class must get than without adaptation, to be a collapse.
    pub margin: f64,
    /// Most mebibytes that the method's memory may come to hold.
    pub memory_mib: usize,
    /// A second backbone, for methods with a judge.
    pub judge: Option<String>,
}

/// The names of the fields above; a test compares them.
const SHARED: [&str; 12] = [
    "views",
    "recipe",
    "severity",
    "views_from",
    "seed",
    "batch",
    "orders",
    "abstain",
    "window",
    "margin",
    "memory_mib",
    "judge",
];

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            views: None,
            recipe: None,
            severity: 1.0,
            views_from: None,
            seed: 1,
            batch: 16,
            orders: None,
            abstain: 0.0,
            window: 64,
            margin: 0.5,
            memory_mib: 512,
            judge: None,
        }
    }
}

/// A method of test-time adaptation with everything that decides its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestTimeConfig {
    /// The method.
    pub method: TestTimeMethod,
    /// Everything around it.
    pub stream: StreamSettings,
}

impl TestTimeConfig {
    /// The method `name` with settings `test-time.KEY=VALUE`.
    ///
    /// # Errors
    /// An unknown name or setting, or a value outside its domain.
    pub fn new(name: &str, settings: &[String]) -> Result<Self> {
        if TestTimeMethod::preset(name).is_none() {
            return Err(inarch_core::Error::Unknown {
                kind: "test-time method",
                name: name.into(),
                candidates: std::iter::once("none")
                    .chain(TEST_TIME_METHODS.iter().copied())
                    .map(String::from)
                    .collect(),
            }
            .into());
        }
        let mut table = Table::new();
        for setting in settings {
            set(&mut table, setting)?;
        }
        let mut own = Table::new();
        for (key, value) in table {
            match value {
                Value::Table(section) if key == SECTION => own = section,
                _ => {
                    let reason = format!("expected `{SECTION}.KEY=VALUE`, found `{key}`");
                    return Err(Error::Recipe { origin: "--set".into(), reason });
                }
            }
        }
        let mut shared = Table::new();
        let mut method = Table::from_iter([("name".to_string(), Value::from(name))]);
        for (key, value) in own {
            let key = key.replace('-', "_");
            let into = if SHARED.contains(&key.as_str()) { &mut shared } else { &mut method };
            into.insert(key, value);
        }
        let config = Self {
            method: read_table(&method, &format!("{SECTION} {name}")).map_err(with_shared)?,
            stream: read_table(&shared, SECTION)?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let stream = &self.stream;
        let shared = || {
            within("batch", stream.batch as f64, 1.0..=4096.0)?;
            within("orders", stream.orders.unwrap_or(1) as f64, 1.0..=1000.0)?;
            within("abstain", stream.abstain, 0.0..=1.0)?;
            within("window", stream.window as f64, 0.0..=1e6)?;
            within("margin", stream.margin, 0.0..=1.0)
        };
        let fault = |reason| Error::Recipe { origin: format!("{SECTION} {}", self.method.name()), reason };
        self.method.check().and_then(|()| shared()).map_err(fault)?;
        self.views(&self.method.needs(None)).validate()?;
        if self.method.needs(None).judge.is_some() && stream.judge.is_none() {
            return Err(fault("a second backbone judges; name it: `--set test-time.judge=BACKBONE`".into()));
        }
        Ok(())
    }

    /// What the method asks for, beside this backbone.
    pub fn needs(&self, backbone: &Backbone) -> Needs {
        self.method.needs(Some(backbone))
    }

    /// The views of each image.
    pub fn views(&self, needs: &Needs) -> TestViews {
        TestViews {
            count: self.stream.views.unwrap_or(needs.views),
            recipe: self.stream.recipe.unwrap_or(needs.recipe),
            severity: self.stream.severity,
        }
    }
}

/// A setting that the method does not have may be meant for the stream: its keys are named too.
fn with_shared(error: Error) -> Error {
    match error {
        Error::Recipe { origin, reason } if reason.contains("unknown field") => {
            let shared = SHARED.join("`, `");
            Error::Recipe { origin, reason: format!("{reason}; all methods have `{shared}`") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{SHARED, StreamSettings, TestTimeConfig};
    use crate::test_time::TEST_TIME_METHODS;

    #[test]
    fn every_method_reads_its_defaults_and_refuses_leftovers() {
        for name in TEST_TIME_METHODS {
            let judge = ["test-time.judge=pocket".to_string()];
            let config = TestTimeConfig::new(name, &judge).expect(name);
            assert_eq!(config.method.name(), *name);
            let text = serde_json::to_string(&config).expect("serialises");
            assert_eq!(serde_json::from_str::<TestTimeConfig>(&text).expect("reads"), config);
            let error = TestTimeConfig::new(name, &["test-time.alhpa=1".into()]).expect_err("unknown").to_string();
            assert!(error.contains("alhpa") && error.contains("memory_mib"), "{error}");
            let own = serde_json::to_value(&config.method).expect("serialises");
            let twice = own.as_object().expect("a struct").keys().find(|key| SHARED.contains(&key.as_str()));
            assert_eq!(twice, None, "`{name}` has a setting that all methods have");
        }
        let value = serde_json::to_value(StreamSettings::default()).expect("serialises");
        let fields: Vec<&str> = value.as_object().expect("a struct").keys().map(String::as_str).collect();
        assert_eq!(fields, SHARED);
    }

    #[test]
    fn settings_are_checked_and_go_where_they_belong() {
        let settings = ["test-time.alpha=3.5", "test-time.views=8", "test-time.memory-mib=2"].map(String::from);
        let config = TestTimeConfig::new("boost-adapter", &settings).expect("reads");
        assert_eq!((config.stream.views, config.stream.memory_mib), (Some(8), 2));
        for setting in ["test-time.keep=2", "test-time.abstain=-1", "test-time.views=0", "alpha=1", "test-time.lr=x"] {
            assert!(TestTimeConfig::new("tpt", &[setting.into()]).is_err(), "{setting}");
        }
        assert!(TestTimeConfig::new("rlcf", &[]).expect_err("no judge").to_string().contains("test-time.judge"));
        assert!(TestTimeConfig::new("tpd", &[]).is_err());
    }
}
