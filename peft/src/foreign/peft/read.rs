//! A PEFT folder as an adapter of ours.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, HostTensor, LinearSite};
use inarch_core::checkpoint::{read_safetensors, read_torch};
use inarch_core::text::TemplateSet;
use inarch_core::{Error, Seed, file};

use super::config::PeftConfig;
use super::parts::{Kind, Layout, SHARED, parts};
use super::whole::{self, LN_LAYERS, Whole};
use super::{PEFT_CONFIG_FILE, PEFT_PICKLE_FILE, PEFT_TENSORS_FILE, PREFIX};
use crate::adapter::MethodConfig;
use crate::artifact::{Artifact, Provenance};
use crate::error::Result;
use crate::foreign::names::Naming;
use crate::foreign::tensors::{flat, transposed, upper_triangles};
use crate::linear::{
    BoftConfig, DoraConfig, Ia3Config, LoHaConfig, LoKrConfig, LoraConfig, LoraInit, OftConfig, SitePattern,
    VeraConfig, all_sites,
};
use crate::method::Start;
use crate::parameters::Parameters;

/// An adapted layer of a PEFT folder.
struct Layer {
    site: LinearSite,
    rank: usize,
    alpha: f64,
    /// IA3: the gain is on the input.
    input: bool,
    /// The shape of its first tensor.
    shape: Vec<usize>,
}

/// Reads a PEFT folder as an adapter of `backbone`. It knows no classes but those of a head, whose names are the checkpoint's
/// or `LABEL_0`, `LABEL_1`, ..: a folder tells none. Whole normalisations, an image projection and a head beside an update
/// become members of a stack.
///
/// # Errors
/// `Refused` for a kind or setting that is not read here, each with its reason; `Malformed` for tensors that are missing,
/// superfluous, of another shape or not finite.
pub fn read_peft(folder: &Path, backbone: &Backbone) -> Result<Artifact> {
    backbone.need_towers(&format!("PEFT adapter `{}`", folder.display()))?;
    named_adapters(folder)?;
    let config = PeftConfig::read(&folder.join(PEFT_CONFIG_FILE))?;
    let kind = config.kind()?;
    let path = folder.join(PEFT_TENSORS_FILE);
    let malformed = |reason: String| Error::malformed("PEFT adapter", &path, reason);
    let pickle = folder.join(PEFT_PICKLE_FILE);
    let mut tensors = match !path.exists() && pickle.exists() {
        true => read_torch(&pickle)?.into_tensors(),
        false => read_safetensors(&path)?.0,
    };
    let infix = if kind == Kind::LnTuning { LN_LAYERS } else { "" };
    let naming = Naming::found(backbone, tensors.keys().filter_map(|name| name.strip_prefix(PREFIX)));
    let Whole { methods: whole, modules } = whole::take(&mut tensors, backbone, naming, infix).map_err(malformed)?;
    for listed in config.modules_to_save()? {
        if !modules.iter().any(|module| whole::names(&listed, module)) {
            let what = format!("`modules_to_save` of PEFT adapter `{}`", folder.display());
            let expected = format!(
                "normalisations such as `{}`, or `{}`, with their weights in the folder",
                whole::example(backbone, naming),
                whole::head(backbone)
            );
            return Err(Error::Refused { what, expected, found: listed }.into());
        }
    }
    let mut found = Vec::new();
    if kind != Kind::LnTuning {
        found.push(update((&config, kind), &mut tensors, (backbone, naming), &malformed)?);
    }
    found.extend(whole);
    if let Some(name) = tensors.keys().next() {
        let (name_of, count) = (backbone.name(), tensors.len());
        let reason =
            format!("`{name}` fits no linear layer of backbone `{name_of}` or no `{kind:?}` ({count} such tensors)");
        return Err(malformed(reason).into());
    }
    let parts = found.into_iter().map(|(method, parameters)| artifact(method, parameters, backbone, &malformed));
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    match (parts.len(), parts.pop()) {
        (0, _) | (_, None) => Err(malformed("it holds no update of a layer".into()).into()),
        (1, Some(only)) => Ok(only),
        (_, Some(last)) => {
            parts.push(last);
            Artifact::stack(&parts, backbone)
        }
    }
}

/// Refuses a folder that holds adapters in folders of their names, and tells these.
fn named_adapters(folder: &Path) -> Result<()> {
    if folder.join(PEFT_CONFIG_FILE).exists() || !folder.is_dir() {
        return Ok(());
    }
    let named = file::list(folder)?.into_iter().filter(|path| path.join(PEFT_CONFIG_FILE).is_file());
    let named: Vec<String> = named.map(|path| path.display().to_string()).collect();
    if named.is_empty() {
        return Ok(());
    }
    let what = format!("PEFT folder `{}`", folder.display());
    let expected = format!("one adapter: {}", named.join(", "));
    Err(Error::Refused { what, expected, found: format!("{} named ones", named.len()) }.into())
}

/// The update of linear layers: its settings and learned tensors.
fn update(
    (config, kind): (&PeftConfig, Kind),
    tensors: &mut Parameters,
    (backbone, naming): (&Backbone, Naming),
    malformed: &dyn Fn(String) -> Error,
) -> Result<(MethodConfig, Parameters)> {
    let mut parameters = Parameters::new();
    let mut keep =
        |ours: String, tensor: HostTensor| parameters.insert(ours.clone(), HostTensor { origin: ours, ..tensor });
    if kind == Kind::Vera {
        for (theirs, ours) in SHARED {
            let missing = || malformed(format!("`{theirs}` is missing; save it with `save_projection=True`"));
            keep(ours.into(), transposed(tensors.remove(theirs).ok_or_else(missing)?).map_err(malformed)?);
        }
    }
    let mut layers = Vec::new();
    for site in all_sites(backbone) {
        let Some(module) = naming.module(site) else { continue };
        let key = |part: &str| format!("{PREFIX}{module}.{part}");
        let first = parts(kind)[0].theirs;
        let Some(shape) = tensors.get(&key(first)).map(|tensor| tensor.shape.clone()) else { continue };
        let layer = Layer {
            site,
            rank: config
                .pattern("rank_pattern", &module)?
                .map_or_else(|| rank(config, kind), |rank| Ok(rank as usize))?,
            alpha: config.pattern("alpha_pattern", &module)?.map_or_else(|| alpha(config, kind), Ok)?,
            input: shape.first() == Some(&1),
            shape,
        };
        if kind == Kind::Lora && layer.shape.first() != Some(&layer.rank) {
            let (expected, shape) = (layer.rank, layer.shape);
            let reason =
                format!("`{}`: expected rank {expected} by the configuration, found shape {shape:?}", key(first));
            return Err(malformed(reason).into());
        }
        for part in parts(kind) {
            let theirs = part.theirs;
            // Older versions keep some vectors as the weight of a module.
            let tensor = tensors.remove(&key(theirs)).or_else(|| tensors.remove(&key(&format!("{theirs}.weight"))));
            let tensor = match (tensor, part.layout) {
                (Some(tensor), Layout::Vector) => flat(tensor),
                (Some(tensor), Layout::Transposed) => transposed(tensor).map_err(malformed)?,
                (Some(tensor), Layout::Skew) => upper_triangles(tensor).map_err(malformed)?,
                (Some(tensor), Layout::Same) => tensor,
                (None, _) if part.always => return Err(malformed(format!("`{}` is missing", key(theirs))).into()),
                (None, _) => continue,
            };
            keep(format!("sites.{site}.{}", part.ours), tensor);
        }
        layers.push(layer);
    }
    if layers.is_empty() && tensors.is_empty() {
        return Err(malformed("it holds no update of a linear layer".into()).into());
    }
    if let Some(name) = tensors.keys().next().filter(|_| layers.is_empty()) {
        return Err(malformed(format!("`{name}` fits no linear layer of backbone `{}`", backbone.name())).into());
    }
    Ok((method(config, kind, &layers)?, parameters))
}

fn artifact(
    method: MethodConfig,
    parameters: Parameters,
    backbone: &Backbone,
    malformed: &dyn Fn(String) -> Error,
) -> Result<Artifact> {
    let device = backbone.device();
    let classes = match &method {
        MethodConfig::LinearHead(_) => classes(parameters["weight"].shape[0], backbone),
        _ => Vec::new(),
    };
    let features = Tensor::zeros([classes.len().max(1), backbone.spec().dim], device);
    let adapter = method.init(&Start::new(backbone, &features, Seed::new(0), device))?;
    let adapter = adapter.with_parameters(parameters, device).map_err(malformed)?;
    let templates = TemplateSet::named("single")?.templates().to_vec();
    let provenance = Provenance { classes, templates, data: None, clips: None, metrics: BTreeMap::new() };
    Artifact::new(adapter, method, backbone, provenance)
}

/// Names of a head's classes, which a folder does not tell: those of the checkpoint when it has as many.
fn classes(count: usize, backbone: &Backbone) -> Vec<String> {
    let own = backbone.head().filter(|head| head.classes.len() == count);
    own.map_or_else(|| (0..count).map(|index| format!("LABEL_{index}")).collect(), |head| head.classes.clone())
}

fn rank(config: &PeftConfig, kind: Kind) -> Result<usize> {
    match kind {
        Kind::Ia3 | Kind::Oft | Kind::Boft | Kind::LnTuning => Ok(0),
        _ => Ok(config.number("r", None)? as usize),
    }
}

fn alpha(config: &PeftConfig, kind: Kind) -> Result<f64> {
    match kind {
        Kind::Lora | Kind::Dora => config.number("lora_alpha", None),
        Kind::LoHa | Kind::LoKr => config.number("alpha", None),
        Kind::Vera | Kind::Ia3 | Kind::Oft | Kind::Boft | Kind::LnTuning => Ok(0.0),
    }
}

/// The settings of the method.
fn method(config: &PeftConfig, kind: Kind, layers: &[Layer]) -> Result<MethodConfig> {
    let name = |layer: &Layer| layer.site.to_string();
    let targets: Vec<String> = layers.iter().map(name).collect();
    let (rank, alpha) = (rank(config, kind)?, alpha(config, kind)?);
    Ok(match kind {
        Kind::Lora => {
            let ranks = layers.iter().filter(|layer| layer.rank != rank);
            let alphas = layers.iter().filter(|layer| layer.alpha != alpha);
            MethodConfig::Lora(LoraConfig {
                rank,
                alpha,
                rank_stabilised: config.flag("use_rslora")?,
                dropout: config.number("lora_dropout", Some(0.0))?,
                targets,
                init: LoraInit::Kaiming,
                b_rate: 1.0,
                rank_pattern: ranks.map(|layer| SitePattern { sites: name(layer), value: layer.rank }).collect(),
                alpha_pattern: alphas.map(|layer| SitePattern { sites: name(layer), value: layer.alpha }).collect(),
            })
        }
        Kind::Dora => MethodConfig::Dora(DoraConfig {
            rank,
            alpha,
            rank_stabilised: config.flag("use_rslora")?,
            dropout: config.number("lora_dropout", Some(0.0))?,
            targets,
        }),
        Kind::Vera => {
            let dropout = config.number("vera_dropout", Some(0.0))?;
            MethodConfig::Vera(VeraConfig { rank, dropout, targets, ..VeraConfig::default() })
        }
        Kind::Ia3 => {
            let inputs = layers.iter().filter(|layer| layer.input).map(name).collect();
            MethodConfig::Ia3(Ia3Config { targets, inputs })
        }
        Kind::LoHa => MethodConfig::LoHa(LoHaConfig { rank, alpha, targets }),
        Kind::LoKr => MethodConfig::LoKr(LoKrConfig { rank, alpha, factor: 0, targets }),
        Kind::Oft => {
            // The triangle of a block of `b` has `b (b - 1) / 2` entries.
            let side = |layer: &Layer| (2 * layer.shape.last().copied().unwrap_or(0)).isqrt() + 1;
            let block = everywhere(config, layers, "block widths", side)?;
            let neumann_terms = match config.flag_or("use_cayley_neumann", true)? {
                true => config.number("num_cayley_neumann_terms", Some(5.0))? as usize,
                false => 0,
            };
            MethodConfig::Oft(OftConfig { block, neumann_terms, targets })
        }
        Kind::Boft => {
            // Told by the tensors: where PEFT has no CUDA it takes one factor, whatever its configuration says.
            let axis = |axis: usize| move |layer: &Layer| layer.shape.get(axis).copied().unwrap_or(0);
            let block = everywhere(config, layers, "block widths", axis(3))?;
            let factors = everywhere(config, layers, "numbers of butterfly factors", axis(0))?;
            MethodConfig::Boft(BoftConfig { block, factors, targets })
        }
        Kind::LnTuning => unreachable!("it has no linear layers"),
    })
}

/// A setting of the method that every layer must have alike.
fn everywhere(config: &PeftConfig, layers: &[Layer], what: &str, of: impl Fn(&Layer) -> usize) -> Result<usize> {
    let value = of(&layers[0]);
    match layers.iter().find(|layer| of(layer) != value) {
        None => Ok(value),
        Some(other) => {
            let found = format!("{} at `{}`", of(other), other.site);
            Err(config.other(what, &format!("{value} everywhere"), &found))
        }
    }
}
