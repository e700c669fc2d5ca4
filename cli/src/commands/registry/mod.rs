//! `inarch registry`: adapters as named, immutable versions.

mod alias;
mod bundle;
mod care;
mod channel;
mod history;
mod keys;
mod list;
mod places;
mod publish;
mod transport;

use crate::args::{RegistryArgs, RegistryCommand};
use crate::error::CommandError;
use crate::output::Output;

pub(crate) use publish::publish_folder;

pub(crate) fn run(args: &RegistryArgs, output: &Output) -> Result<(), CommandError> {
    match &args.command {
        RegistryCommand::List(args) => list::list(args, output),
        RegistryCommand::Show { reference } => list::show(reference, output),
        RegistryCommand::Publish(args) => publish::run(args, output),
        RegistryCommand::Tag(args) => alias::tag(args, output),
        RegistryCommand::Untag { alias, change } => alias::untag(alias, change, output),
        RegistryCommand::Promote(args) => alias::promote(args, output),
        RegistryCommand::Rollback(args) => alias::rollback(args, output),
        RegistryCommand::Log { name, limit } => history::log(name, *limit, output),
        RegistryCommand::Diff { before, after } => history::diff(before, after, output),
        RegistryCommand::Verify { reference } => care::verify(reference.as_deref(), output),
        RegistryCommand::Checkout { reference } => care::checkout(reference, output),
        RegistryCommand::Pin { reference, remove } => care::pin(reference, *remove, output),
        RegistryCommand::Gc { keep, dry_run } => care::gc(*keep, *dry_run, output),
        RegistryCommand::Export { references, output: path } => bundle::export(references, path, output),
        RegistryCommand::Import { bundle, aliases } => bundle::import(bundle, *aliases, output),
        RegistryCommand::Push(args) => transport::push(args, output),
        RegistryCommand::Pull(args) => transport::pull(args, output),
        RegistryCommand::Sign { reference, key } => keys::sign(reference, key, output),
        RegistryCommand::Keys { command } => keys::run(command, output),
        RegistryCommand::Channel { command } => channel::run(command, output),
        RegistryCommand::Reindex => care::reindex(output),
    }
}
