//! `--test-time`: adaptation to the images at hand, for the commands that classify.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use inarch_core::backbone::Backbone;
use inarch_core::file;
use inarch_recipes::test_time::{AuditLine, Snapshot, TestTimeConfig};

use crate::backbones;
use crate::error::CommandError;

/// The name that adapts nothing.
const NONE: &str = "none";

#[derive(Debug, Args)]
pub(crate) struct TestTimeArgs {
    /// Adapt to the images at hand, without labels: tpt, zero, tda, ..; a wrong name lists them all. `eval` takes several,
    /// separated by commas, over the same views
    #[arg(long = "test-time", default_value = NONE, value_delimiter = ',', value_name = "METHOD[,METHOD..]")]
    methods: Vec<String>,
    /// Override one setting of the adaptation, e.g. `test-time.views=32`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// State of the stream: read when the file is there, written at the end
    #[arg(long = "test-time-state", value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write what the method's memory took in, one JSON object a line
    #[arg(long = "test-time-audit", value_name = "FILE.jsonl")]
    audit: Option<PathBuf>,
}

/// A method as the arguments name it, with what it needs.
pub(crate) struct Adaptation<'a> {
    args: &'a TestTimeArgs,
    pub(crate) config: TestTimeConfig,
    pub(crate) judge: Option<Backbone>,
    pub(crate) state: Option<Snapshot>,
}

impl TestTimeArgs {
    /// What to do, method by method; nothing without adaptation.
    pub(crate) fn open(&self, device: &Device) -> Result<Vec<Adaptation<'_>>, CommandError> {
        let given = !self.set.is_empty() || self.state.is_some() || self.audit.is_some();
        if self.methods == [NONE] {
            if given {
                return Err(CommandError::usage(
                    "settings of test-time adaptation are given, but no method",
                    "name one, e.g. `--test-time tpt`",
                ));
            }
            return Ok(Vec::new());
        }
        if self.methods.len() > 1 && (self.state.is_some() || self.audit.is_some()) {
            return Err(CommandError::usage(
                "a state or an audit is that of one method",
                "name one with `--test-time`",
            ));
        }
        self.methods.iter().map(|method| self.open_one(method, device)).collect()
    }

    fn open_one(&self, method: &str, device: &Device) -> Result<Adaptation<'_>, CommandError> {
        let config = TestTimeConfig::new(method, &self.set)?;
        let judge = config.stream.judge.as_ref().filter(|_| config.method.needs(None).judge.is_some());
        let judge = judge.map(|judge| backbones::open(judge, device)).transpose()?;
        let state = match &self.state {
            Some(path) if path.exists() => Some(Snapshot::read(path)?),
            _ => None,
        };
        Ok(Adaptation { args: self, config, judge, state })
    }
}

impl Adaptation<'_> {
    /// Writes state and audit where the arguments ask for them.
    pub(crate) fn write(&self, snapshot: &Snapshot, audit: &[AuditLine]) -> Result<(), CommandError> {
        if let Some(path) = &self.args.state {
            snapshot.write(path)?;
        }
        if let Some(path) = &self.args.audit {
            write_lines(path, audit)?;
        }
        Ok(())
    }
}

fn write_lines(path: &Path, audit: &[AuditLine]) -> Result<(), CommandError> {
    let mut text = String::new();
    for line in audit {
        let line = serde_json::to_string(line).map_err(|error| inarch_core::Error::malformed("audit", path, error))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(file::write(path, text.as_bytes())?)
}
