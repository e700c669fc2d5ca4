//! `inarch convert`: adapters of other programs, and for them.

use std::path::PathBuf;

use inarch_peft::{Artifact, read_peft, write_peft};
use serde::Serialize;

use crate::args::{AdapterFormat, ConvertArgs};
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
}

pub(crate) fn run(args: &ConvertArgs, output: &Output) -> Result<(), CommandError> {
    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(&args.backbone, &device)?;
    let artifact = match args.from {
        AdapterFormat::Inarch => Artifact::load(Place::find(&args.source)?.folder(), &backbone)?,
        AdapterFormat::Peft => read_peft(&args.source, &backbone)?,
    };
    match args.to {
        AdapterFormat::Inarch => artifact.save(&args.target)?,
        AdapterFormat::Peft => write_peft(&artifact, &backbone, &args.target)?,
    }
    let (method, parameters) = (artifact.manifest.method.name(), artifact.manifest.parameters);
    let result = ConvertResult { output: args.target.clone(), method, parameters };
    output.result(&result, || format!("`{method}` of {parameters} parameters in {}", args.target.display()));
    Ok(())
}
