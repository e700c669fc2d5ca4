//! `inarch backbone`: what can be adapted.

use inarch_core::backbone::{BackboneSpec, Tower, TrunkSpec};
use serde::Serialize;

use crate::args::{BackboneArgs, BackboneCommand};
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;

/// What `list` prints with `--json`.
#[derive(Serialize)]
struct BackboneList {
    backbones: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    about: &'static str,
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
            let list = BackboneList { backbones: backbones.collect() };
            output.result(&list, || {
                let rows: Vec<String> =
                    list.backbones.iter().map(|named| format!("{}  {}", named.name, named.about)).collect();
                format!(
                    "{}\n\nBeside these, `-b` takes CLIP (vision transformer or ResNet), SigLIP, ALIGN, ViT, DeiT, DINOv2, BERT, BLIP and \
                     ViLT: a \
                     folder in the Hugging Face layout (config.json, model.safetensors, tokenizer.json, \
                     preprocessor_config.json) or an OpenAI or OpenCLIP checkpoint. `embeddings:TEXTS.safetensors` is a model \
                     without weights.",
                    rows.join("\n")
                )
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
    }
    Ok(())
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
