//! `inarch demo`.
use crate::args::DemoArgs;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::Bars;

pub(crate) fn run(_args: &DemoArgs, _bars: &Bars, _output: &Output) -> Result<(), CommandError> {
    Ok(())
}
