//! Which list it is, and what a part of it is made from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use inarch_core::data::{Example, Shard, Source, WorkList};
use inarch_core::image::ImageAddress;
use inarch_core::{Digest, Error, file};

use super::input::{Input, label_text};
use crate::adapter::Model;
use crate::error::CommandError;

/// One part of a list.
pub(super) struct Part {
    pub(super) list: WorkList,
    pub(super) range: Range<usize>,
    /// The digest of what the part is made from.
    pub(super) content: Digest,
}

impl Input {
    /// The list and a part of it. Images count in the list by what names them and by their size: reading them all is the
    /// shards' work.
    pub(super) fn part(&self, shard: Shard, model: &Model) -> Result<Part, CommandError> {
        let Self::Images { examples, splits, dataset } = self else {
            // Texts that run together share the beginning of their tokens, which decides how their last bits are rounded.
            return Err(CommandError::usage(
                "`--shard` is for images; features of texts depend in their last bits on the texts beside them",
                "leave `--shard` out: texts are encoded in one run",
            ));
        };
        let adapter = match &model.adapter {
            Some(adapter) => format!("{} {}", json(&adapter.manifest.method)?, adapter.manifest.tensors),
            None => String::new(),
        };
        let makers = [
            // Kernels may round otherwise in another version.
            env!("CARGO_PKG_VERSION"),
            &model.backbone.maker(),
            &json(model.backbone.preprocess())?,
            &format!("{:?}", model.backbone.device().settings().float_dtype),
            &adapter,
            &json(&dataset.clips)?,
        ];
        let entry = |(at, example): (usize, &Example)| -> Result<String, CommandError> {
            let split = splits.as_ref().map(|splits| splits[at]);
            let label = splits.as_ref().map(|_| label_text(dataset, example));
            let sizes: Vec<u64> = example.source.addresses().iter().map(|address| bytes(&address.file)).collect();
            json(&(&example.id, label, split, shown(&example.source), sizes))
        };
        let entries = examples.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        let list = WorkList::new(&makers, entries);
        let range = shard.range(list.items)?;
        // One that cannot be read is a matter of the policy, which comes later.
        let content = dataset.contents(&examples[range.clone()]);
        Ok(Part { list, range, content })
    }
}

/// The frame and window that are shown of an image, wherever its file lies.
fn shown(source: &Source) -> Option<PathBuf> {
    match source {
        Source::Image(path) => Some(ImageAddress { file: PathBuf::new(), ..ImageAddress::of(path) }.path()),
        Source::Bytes(..) | Source::Clip(_) | Source::Row(_) => None,
    }
}

/// The size of a file; 0 of one that cannot be read.
fn bytes(path: &Path) -> u64 {
    file::age_and_bytes(path).map_or(0, |(_, bytes)| bytes)
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, CommandError> {
    serde_json::to_string(value).map_err(|error| Error::invalid("work list", error.to_string()).into())
}
