//! `inarch convert`: adapters of other programs, and for them.

use std::path::PathBuf;

use inarch_core::data::open_dataset;
use inarch_peft::{Artifact, Import, import, write_peft};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::adapter::{check_names, check_no_run, resolve};
use crate::args::{ConvertArgs, TargetFormat};
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;
use crate::published::Place;

/// What is printed with `--json`.
#[derive(Serialize)]
struct ConvertResult {
    output: PathBuf,
    method: &'static str,
    parameters: usize,
    classes: Vec<String>,
}

pub(crate) fn run(args: &ConvertArgs, output: &Output) -> Result<(), CommandError> {
    check_names(&args.classes)?;
    check_no_run(&args.target)?;
    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(&args.backbone, &device)?;
    let artifact = match args.from.import() {
        None => Artifact::load(Place::find(&args.source)?.folder(), &backbone)?,
        Some(format) => {
            let classes = match &args.data {
                Some(data) => open_dataset(data, args.root.as_deref())?.classes,
                None => args.classes.clone(),
            };
            let (templates, settings) = (resolve(&args.templates)?, settings(&args.set)?);
            let source = Import {
                path: &args.source,
                backbone: &backbone,
                classes: &classes,
                templates: &templates,
                settings: &settings,
            };
            import(format, &source)?
        }
    };
    match args.to {
        TargetFormat::Peft => write_peft(&artifact, &backbone, &args.target)?,
        TargetFormat::Inarch => artifact.save(&args.target)?,
    }
    let (method, parameters) = (artifact.manifest.method.name(), artifact.manifest.parameters);
    let classes = artifact.manifest.classes;
    let result = ConvertResult { output: args.target.clone(), method, parameters, classes };
    output.result(&result, || {
        let classes = match result.classes.len() {
            0 => String::new(),
            count => format!(", {count} classes"),
        };
        format!("`{method}` of {parameters} parameters{classes} in {}", args.target.display())
    });
    Ok(())
}

/// `key=value` pairs; a value is JSON, or else a text.
fn settings(pairs: &[String]) -> Result<Map<String, Value>, CommandError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            let plain = || Value::String(value.trim().into());
            Ok((key.trim().to_string(), serde_json::from_str(value).unwrap_or_else(|_| plain())))
        }
        _ => Err(CommandError::usage(format!("`{text}` is no setting"), "write `--set KEY=VALUE`")),
    };
    pairs.iter().map(pair).collect()
}
