//! `inarch backbone`: what can be adapted.

use bytesize::ByteSize;
use inarch_core::backbone::{BackboneSpec, Tower, TrunkSpec};
use inarch_registry::{HubId, Pulled};
use serde::Serialize;

use crate::args::{BackboneArgs, BackboneCommand};
use crate::backbones;
use crate::error::CommandError;
use crate::hub;
use crate::output::{Output, table};

/// What `-b` takes beside names.
const TAKEN: &str = "Beside these, `-b` takes CLIP (vision transformer or ResNet), SigLIP, ALIGN, ViT, DeiT, DINOv2, \
                     BERT, BLIP and ViLT: a folder in the Hugging Face layout (config.json, model.safetensors, \
                     tokenizer.json, preprocessor_config.json), an OpenAI or OpenCLIP checkpoint, or an id of the hub \
                     (ORG/NAME or ORG/NAME@REVISION, downloaded once). `embeddings:TEXTS.safetensors` is a model \
                     without weights.";

/// What `list` prints with `--json`.
#[derive(Serialize)]
struct BackboneList {
    backbones: Vec<Named>,
    /// Those of the hub that are in its cache and can be opened.
    cached: Vec<Cached>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    about: &'static str,
}

#[derive(Serialize)]
struct Cached {
    id: String,
    commit: String,
    path: String,
    bytes: u64,
}

/// What `pull` prints with `--json`.
#[derive(Serialize)]
struct PullResult {
    id: String,
    commit: String,
    path: String,
    files: Vec<String>,
    bytes: u64,
    /// Bytes of files that were not in the cache before.
    downloaded: u64,
}

/// What `show` prints with `--json`.
#[derive(Serialize)]
struct BackboneInfo {
    name: String,
    path: String,
    digest: String,
    parameters: usize,
    logit_scale: f32,
    spec: BackboneSpec,
    preprocess: inarch_core::image::Preprocess,
}

pub(crate) fn run(args: &BackboneArgs, output: &Output) -> Result<(), CommandError> {
    match &args.command {
        BackboneCommand::List => {
            let backbones = backbones::KNOWN.iter().map(|known| Named { name: known.name, about: known.about });
            let cached = hub::list().into_iter().map(|snapshot| Cached {
                id: snapshot.id.to_string(),
                commit: snapshot.commit,
                path: snapshot.path.display().to_string(),
                bytes: snapshot.bytes,
            });
            let list = BackboneList { backbones: backbones.collect(), cached: cached.collect() };
            output.result(&list, || {
                let rows: Vec<String> =
                    list.backbones.iter().map(|named| format!("{}  {}", named.name, named.about)).collect();
                format!("{}{}\n\n{TAKEN}", rows.join("\n"), downloaded(&list.cached))
            });
        }
        BackboneCommand::Show { backbone } => {
            let path = backbones::locate(backbone)?;
            let backbone = backbones::open(backbone, &inarch_core::device("cpu")?)?;
            let info = BackboneInfo {
                name: backbone.name().into(),
                path: path.display().to_string(),
                digest: backbone.digest().to_string(),
                parameters: backbone.parameters(),
                logit_scale: backbone.logit_scale(),
                spec: backbone.spec().clone(),
                preprocess: backbone.preprocess().clone(),
            };
            output.result(&info, || text(&info));
        }
        BackboneCommand::Pull { id } => {
            let id: HubId = id.parse()?;
            let Pulled { commit, path, files, bytes, moved } = hub::pull(&id)?;
            let path = path.display().to_string();
            let result = PullResult { id: id.to_string(), commit, path, files, bytes, downloaded: moved };
            output.result(&result, || {
                let (whole, moved) = (ByteSize(result.bytes), ByteSize(result.downloaded));
                format!(
                    "{id}  {} files, {whole}, {moved} of them downloaded\ncommit  {}\nfolder  {}\n\
                     next: inarch backbone show {id}",
                    result.files.len(),
                    result.commit,
                    result.path
                )
            });
        }
    }
    Ok(())
}

/// The part of the list that is in the hub's cache; nothing when nothing is.
fn downloaded(cached: &[Cached]) -> String {
    if cached.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = cached
        .iter()
        .map(|one| vec![one.id.clone(), ByteSize(one.bytes).to_string(), one.commit[..12].to_string()])
        .collect();
    format!("\n\ndownloaded from the hub:\n{}", table(&rows).trim_end())
}

fn text(info: &BackboneInfo) -> String {
    let spec = &info.spec;
    let row = |name: &str, value: String| format!("{name:<12}{value}\n");
    let tower = |transformer: &inarch_core::backbone::TransformerSpec| {
        format!("{} blocks of width {}, {} heads", transformer.depth, transformer.width, transformer.heads)
    };
    let (image, text) = (&spec.image, &spec.text);
    let mut towers = String::new();
    if spec.has(Tower::Image) {
        let inside = match &image.style.trunk {
            Some(TrunkSpec::ResNet(trunk)) => format!("ResNet of {:?} blocks", trunk.stages),
            Some(TrunkSpec::EfficientNet(trunk)) => format!("EfficientNet of {} blocks", trunk.blocks.len()),
            None => format!("patches of {}, {}", image.patch, tower(&image.transformer)),
        };
        towers += &row("image", format!("{0} x {0} pixels, {inside}", image.size));
    }
    if spec.has(Tower::Text) {
        let tokens = format!("{} tokens of {}", text.context, text.vocabulary);
        towers += &row("text", format!("{tokens}, {}", tower(&text.transformer)));
    }
    if towers.is_empty() {
        towers = row("towers", "none: features come from elsewhere".into());
    }
    [
        row("name", info.name.clone()),
        row("path", info.path.clone()),
        row("digest", info.digest.clone()),
        row("parameters", info.parameters.to_string()),
        towers,
        row("features", format!("{} wide", spec.dim)),
        row("logit scale", format!("{:.2}", info.logit_scale)),
    ]
    .concat()
}
