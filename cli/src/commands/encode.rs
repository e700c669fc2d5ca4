//! `inarch encode`: write features of images or texts, all of them or one shard.

mod input;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;

use inarch_core::checkpoint::LOGIT_SCALE_KEY;
use inarch_core::data::{FeatureKind, FeatureShard, Shard, ShardLabel, join_shards};
use inarch_core::{Digest, Error, file};
use serde::Serialize;

use self::input::{Encoded, Input};
use self::work::Part;
use crate::adapter::Model;
use crate::args::{EncodeArgs, JoinArgs};
use crate::error::CommandError;
use crate::output::{Output, unread};
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct EncodeResult {
    output: PathBuf,
    kind: FeatureKind,
    rows: usize,
    dim: usize,
    skipped: Vec<String>,
    /// Identity of the list and place in it, where there are shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    /// Whether the shard was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    reused: Option<bool>,
}

pub(crate) fn run(args: &EncodeArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let shard: Option<Shard> = args.shard.as_deref().map(str::parse).transpose().map_err(|error: Error| {
        CommandError::usage(error.to_string(), "`--shard 0/8` to `--shard 7/8` are the eight parts of a list")
    })?;
    file::check_target(&args.output)?;
    let model = Model::open(&args.model)?;
    model.backbone.need_features("features in a file")?;
    let input = Input::open(args, &model, bars)?;
    // What a backbone of these texts needs to score as this one does.
    let further = match input.kind() {
        FeatureKind::Text => BTreeMap::from([(LOGIT_SCALE_KEY.into(), model.backbone.logit_scale().to_string())]),
        FeatureKind::Image => BTreeMap::new(),
    };
    let Some(shard) = shard else {
        let Encoded { features, skipped, .. } = input.encode(0..input.len(), &model, args.on_bad_image, bars)?;
        features.write_with(&args.output, &further)?;
        print(EncodeResult::new(args.output.clone(), features.kind, features.rows(), features.dim, skipped), output);
        return Ok(());
    };
    let Part { list, range, content } = input.part(shard, &model)?;
    let there = FeatureShard::read(&args.output).ok().filter(|found| {
        let label = &found.label;
        let same = (&label.work, label.shard, &label.content) == (&list.digest, shard, &content);
        same && found.features.adapter == input.adapter(&model)
    });
    let reused = there.is_some();
    let made = match there {
        Some(made) => made,
        None => {
            let Encoded { features, skipped, unread } = input.encode(range, &model, args.on_bad_image, bars)?;
            let label = ShardLabel { work: list.digest, items: list.items, shard, content, skipped, unread };
            let made = FeatureShard { features, label, further };
            made.write(&args.output)?;
            made
        }
    };
    let (features, label) = (&made.features, made.label);
    let result = EncodeResult::new(args.output.clone(), features.kind, features.rows(), features.dim, label.skipped);
    print(EncodeResult { work: Some(label.work), shard: Some(shard), reused: Some(reused), ..result }, output);
    Ok(())
}

/// `inarch data join`: the features of all shards in one file.
pub(crate) fn join(args: &JoinArgs, output: &Output) -> Result<(), CommandError> {
    let joined = join_shards(&args.shards).map_err(|error| match error {
        Error::Refused { .. } => {
            let hint = "name the files of one list that was encoded with `--shard`, each of its shards once";
            CommandError::refused(error.to_string(), hint)
        }
        _ => error.into(),
    })?;
    let FeatureShard { features, label, further } = joined;
    features.write_with(&args.output, &further)?;
    let result = EncodeResult::new(args.output.clone(), features.kind, features.rows(), features.dim, label.skipped);
    print(EncodeResult { work: Some(label.work), ..result }, output);
    Ok(())
}

impl EncodeResult {
    fn new(output: PathBuf, kind: FeatureKind, rows: usize, dim: usize, skipped: Vec<String>) -> Self {
        Self { output, kind, rows, dim, skipped, work: None, shard: None, reused: None }
    }
}

fn print(result: EncodeResult, output: &Output) {
    output.result(&result, || {
        let EncodeResult { rows, dim, .. } = result;
        let shard = result.shard.map_or_else(String::new, |shard| format!(", shard {shard}"));
        let there = if result.reused == Some(true) { " (was there)" } else { "" };
        let mut text = format!("{rows} rows of {dim} in {}{shard}{there}\n", result.output.display());
        text.push_str(&unread(&result.skipped));
        text
    });
}
