//! The command line: arguments to settings to one command.
#![forbid(unsafe_code)]

mod adapter;
mod args;
mod backbones;
mod commands;
mod data;
mod error;
mod home;
mod hub;
mod output;
mod progress;
mod published;
mod test_time;
mod versions;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};
use error::CommandError;
use output::Output;
use progress::Bars;

/// Runs the command line of this process and returns its exit code: 0 done, 1 failed, 2 wrong usage, 3 refused.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout and are no fault; everything else is wrong usage.
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            return if error.use_stderr() { ExitCode::from(2) } else { ended(output::printed(printed)) };
        }
    };
    let store = match arguments.store.open() {
        Ok(store) => store,
        Err(error) => return ended(Err(error)),
    };
    keep_patients_unnamed();
    let bars = Bars::new(store);
    let output = Output::new(arguments.json);
    // What panics has been printed; a connection to a borrowed device that breaks ends so as well.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(arguments.command, &bars, &output))).unwrap_or_else(|_| {
        let hint = "with `--device remote:..` the connection may have broken: give the command again, a run that saves \
                    goes on; else please report what stands above";
        Err(CommandError::failed("the command ended in a fault of the program", hint))
    });
    let outcome = outcome.and_then(|()| output.finish());
    if outcome.is_err() {
        bars.clear();
    }
    ended(outcome)
}

/// What a decoder of medical files says in a panic could quote the file, so it is not printed; the decoder's error follows.
fn keep_patients_unnamed() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !inarch_core::image::panics_are_private() {
            print(panic);
        }
    }));
}

/// Tells of the fault, if any, and with which code the process ends.
fn ended(outcome: Result<(), CommandError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    match command {
        Command::Demo(args) => commands::demo::run(&args, bars, output),
        Command::Fit(args) => commands::fit::run(&args, bars, output),
        Command::Eval(args) => commands::eval::run(&args, bars, output),
        Command::Compare(args) => commands::compare::run(&args, bars, output),
        Command::Predict(args) => commands::predict::run(&args, bars, output),
        Command::Encode(args) => commands::encode::run(&args, bars, output),
        Command::Corrupt(args) => commands::corrupt::run(&args, bars, output),
        Command::Combine(args) => commands::combine::run(&args, bars, output),
        Command::Update(args) => commands::update::run(&args, bars, output),
        Command::Stream(args) => commands::stream::run(&args, bars, output),
        Command::Memory(args) => commands::memory::run(&args, bars, output),
        Command::Merge(args) => commands::merge::run(&args, bars, output),
        Command::Convert(args) => commands::convert::run(&args, output),
        Command::Data(args) => commands::data_sets::run(&args, output),
        Command::Pretrain(args) => commands::pretrain::run(&args, bars, output),
        Command::Serve(args) => commands::serve::run(&args, output),
        Command::Backbone(args) => commands::backbone::run(&args, output),
        Command::Registry(args) => commands::registry::run(&args, output),
        Command::Agent(args) => commands::agent::run(&args, output),
        #[cfg(feature = "remote")]
        Command::Lend(args) => commands::lend::run(&args, output),
        #[cfg(not(feature = "remote"))]
        Command::Lend(_) => Err(CommandError::failed(
            "`lend` is not compiled in",
            "build with `--features remote` (`inarch doctor` lists what this binary has)",
        )),
        Command::Doctor => commands::doctor::run(output),
    }
}
