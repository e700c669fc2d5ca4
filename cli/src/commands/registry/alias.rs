//! `registry tag`, `untag`, `promote` and `rollback`.

use inarch_registry::{AliasMove, Check, Expect, Name, Registry, Selector};
use serde::Serialize;

use crate::args::{ChangeArgs, PromoteArgs, RollbackArgs, TagArgs};
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

/// What is printed with `--json`.
#[derive(Serialize)]
struct MoveResult {
    name: String,
    alias: String,
    #[serde(flatten)]
    step: AliasMove,
}

pub(super) fn tag(args: &TagArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let version = registry.resolve(&args.reference)?;
    let alias = args.alias.parse()?;
    let expect = expectation(&registry, &version.name, &args.change)?;
    let step = registry.tag(&version.name, &alias, Some(version.number), expect, &args.change.why)?;
    report(&version.name, alias.as_str(), step, output);
    Ok(())
}

pub(super) fn untag(alias: &str, change: &ChangeArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let (name, alias) = published::name_and_alias(alias)?;
    let expect = expectation(&registry, &name, change)?;
    let step = registry.tag(&name, &alias, None, expect, &change.why)?;
    report(&name, alias.as_str(), step, output);
    Ok(())
}

pub(super) fn promote(args: &PromoteArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let version = registry.resolve(&args.reference)?;
    let alias = args.alias.parse()?;
    let expect = expectation(&registry, &version.name, &args.change)?;
    let from = (&version.name, &Selector::Number(version.number));
    let backbone = args.backbone.as_ref().map(|backbone| -> Result<_, CommandError> {
        backbones::open(backbone, &inarch_core::device(&args.device.device)?)
    });
    let step = match backbone.transpose()? {
        Some(backbone) => {
            registry.check_backbone(&version, &backbone.digest().to_string())?;
            let check = published::self_test_check(&backbone);
            registry.promote(from, &alias, expect, &[&check as &dyn Check], &args.change.why)?.1
        }
        None => registry.promote(from, &alias, expect, &[], &args.change.why)?.1,
    };
    report(&version.name, alias.as_str(), step, output);
    Ok(())
}

pub(super) fn rollback(args: &RollbackArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let (name, alias) = published::name_and_alias(&args.alias)?;
    let to = args.to.as_ref().map(|to| number(&registry, &name, to)).transpose()?;
    let expect = expectation(&registry, &name, &args.change)?;
    let step = registry.rollback(&name, &alias, to, expect, &args.change.why)?;
    report(&name, alias.as_str(), step, output);
    Ok(())
}

fn expectation(registry: &Registry, name: &Name, change: &ChangeArgs) -> Result<Expect, CommandError> {
    match change.expect.as_deref() {
        None => Ok(Expect::Any),
        Some("none") => Ok(Expect::Absent),
        Some(version) => Ok(Expect::Is(number(registry, name, version)?)),
    }
}

fn number(registry: &Registry, name: &Name, version: &str) -> Result<u64, CommandError> {
    Ok(registry.version(name, &version.parse()?)?.number)
}

fn report(name: &Name, alias: &str, step: AliasMove, output: &Output) {
    let result = MoveResult { name: name.to_string(), alias: alias.into(), step };
    output.result(&result, || {
        let side = |number: Option<u64>| number.map_or("nothing".into(), |number| number.to_string());
        let MoveResult { step, .. } = &result;
        match step.from == step.to {
            true => format!("{name}@{alias} is at {} already", side(step.to)),
            false => format!("{name}@{alias}: {} -> {}", side(step.from), side(step.to)),
        }
    });
}
