//! Layers that PEFT trains and stores as a whole: normalisations (LN tuning, `modules_to_save`), the projection of images, and
//! the head of a model that tells classes apart. But for that head an adapter here holds the change, so the frozen values are
//! taken off and added again.

use burn::nn::LayerNorm;
use inarch_core::backbone::{Backbone, HostTensor, LinearSite, NormSite, Tower, values};

use super::PREFIX;
use crate::adapter::{Adapter, MethodConfig};
use crate::feature::ProLipConfig;
use crate::foreign::names::Naming;
use crate::foreign::tensors::transposed;
use crate::logits::LinearHeadConfig;
use crate::norm::LnTuningConfig;
use crate::parameters::Parameters;

/// What stands between a normalisation's name and its parameters in a folder of kind `LN_TUNING`.
pub(super) const LN_LAYERS: &str = ".ln_tuning_layers";

/// Whole layers read as methods of ours, each with its learned tensors, and the modules they were.
#[derive(Default)]
pub(super) struct Whole {
    pub(super) methods: Vec<(MethodConfig, Parameters)>,
    pub(super) modules: Vec<String>,
}

/// The head of a model that tells classes apart.
const CLASSIFIER: &str = "classifier";

/// The layer behind the towers that is read as a whole.
pub(super) fn head(backbone: &Backbone) -> &'static str {
    if backbone.has(Tower::Text) { "visual_projection" } else { CLASSIFIER }
}

/// Takes the normalisations, the image projection and the head out of the tensors of a folder. `infix` stands behind the name
/// of a normalisation.
pub(super) fn take(
    tensors: &mut Parameters,
    backbone: &Backbone,
    naming: Naming,
    infix: &str,
) -> Result<Whole, String> {
    let mut whole = Whole::default();
    let (mut changes, mut targets) = (Parameters::new(), Vec::new());
    for (site, layer) in backbone.norms() {
        let Some(module) = naming.norm(site) else { continue };
        let [gain, offset] = ["weight", "bias"].map(|part| tensors.remove(&format!("{PREFIX}{module}{infix}.{part}")));
        let (Some(gain), Some(offset)) = (gain.clone(), offset.clone()) else {
            if gain.is_some() || offset.is_some() {
                return Err(format!("`{module}` must have a weight and a bias"));
            }
            continue;
        };
        for (name, found, own) in [("gain", gain, gains(layer)), ("offset", offset, offsets(layer))] {
            changes.insert(format!("norms.{site}.{name}"), changed(found, &own, -1.0)?);
        }
        targets.push(site.to_string());
        whole.modules.push(module);
    }
    if !targets.is_empty() {
        whole.methods.push((MethodConfig::LnTuning(LnTuningConfig { targets }), changes));
    }
    let head = LinearSite::Head(Tower::Image);
    if let (Some(module), Some(layer)) = (naming.module(head), backbone.linear(head))
        && let Some(found) = tensors.remove(&format!("{PREFIX}{module}.weight"))
    {
        let change = changed(transposed(found)?, &values(layer.weight.val()), -1.0)?;
        whole
            .methods
            .push((MethodConfig::ProLip(ProLipConfig::default()), Parameters::from([("change".into(), change)])));
        whole.modules.push(module);
    }
    // The class token of ViT goes into its head as it is; other families pool in front of theirs.
    if !backbone.has(Tower::Text)
        && !backbone.spec().image.transformer.layer_scale
        && let Some(weight) = tensors.remove(&format!("{PREFIX}{CLASSIFIER}.weight"))
    {
        let zeros = || HostTensor {
            shape: vec![weight.shape[0]],
            data: vec![0.0; weight.shape[0]],
            origin: format!("{CLASSIFIER}.bias"),
        };
        let bias = tensors.remove(&format!("{PREFIX}{CLASSIFIER}.bias")).unwrap_or_else(zeros);
        let parameters = Parameters::from([("weight".into(), weight), ("bias".into(), bias)]);
        whole.methods.push((MethodConfig::LinearHead(LinearHeadConfig::default()), parameters));
        whole.modules.push(CLASSIFIER.into());
    }
    Ok(whole)
}

/// The whole layers of one member of a stack, with their modules; `None` for a method that trains no whole layers.
pub(super) fn give(
    (method, adapter): (&MethodConfig, &Adapter),
    backbone: &Backbone,
    naming: Naming,
    infix: &str,
) -> Option<Result<(Parameters, Vec<String>), String>> {
    let mut parameters = adapter.parameters();
    Some(match method {
        MethodConfig::LnTuning(_) => norms(&mut parameters, backbone, naming, infix),
        MethodConfig::ProLip(_) => projection(&mut parameters, backbone),
        MethodConfig::LinearHead(_) => {
            let named = |(part, tensor)| (format!("{PREFIX}{CLASSIFIER}.{part}"), tensor);
            Ok((parameters.into_iter().map(named).collect(), vec![CLASSIFIER.into()]))
        }
        _ => return None,
    })
}

fn norms(
    parameters: &mut Parameters,
    backbone: &Backbone,
    naming: Naming,
    infix: &str,
) -> Result<(Parameters, Vec<String>), String> {
    let (mut tensors, mut modules) = (Parameters::new(), Vec::new());
    for (site, layer) in backbone.norms() {
        let mut take = |part: &str| parameters.remove(&format!("norms.{site}.{part}"));
        let (Some(gain), Some(offset)) = (take("gain"), take("offset")) else { continue };
        let Some(module) = naming.norm(site) else {
            return Err(format!(
                "`{site}` holds more in this family than the module of `transformers`; leave it out of `targets`"
            ));
        };
        tensors.insert(format!("{PREFIX}{module}{infix}.weight"), changed(gain, &gains(layer), 1.0)?);
        tensors.insert(format!("{PREFIX}{module}{infix}.bias"), changed(offset, &offsets(layer), 1.0)?);
        modules.push(module);
    }
    Ok((tensors, modules))
}

fn projection(parameters: &mut Parameters, backbone: &Backbone) -> Result<(Parameters, Vec<String>), String> {
    let head = LinearSite::Head(Tower::Image);
    let (Some(change), Some(layer)) = (parameters.remove("change"), backbone.linear(head)) else {
        return Err("`change` is missing".into());
    };
    let module = Naming::CLIP.module(head).unwrap_or_default();
    let weight = transposed(changed(change, &values(layer.weight.val()), 1.0)?)?;
    Ok((Parameters::from([(format!("{PREFIX}{module}.weight"), weight)]), vec![module]))
}

/// `tensor + sign * own`.
fn changed(tensor: HostTensor, own: &[f32], sign: f32) -> Result<HostTensor, String> {
    if tensor.data.len() != own.len() {
        return Err(format!("`{}`: expected {} values, found {}", tensor.origin, own.len(), tensor.data.len()));
    }
    let data = tensor.data.iter().zip(own).map(|(value, own)| value + sign * own).collect();
    Ok(HostTensor { data, ..tensor })
}

fn gains(layer: &LayerNorm) -> Vec<f32> {
    values(layer.gamma.val())
}

fn offsets(layer: &LayerNorm) -> Vec<f32> {
    layer.beta.as_ref().map_or_else(|| vec![0.0; gains(layer).len()], |beta| values(beta.val()))
}

/// Whether a module of `modules_to_save` is the end of one that was read.
pub(super) fn names(listed: &str, module: &str) -> bool {
    module == listed || module.strip_suffix(listed).is_some_and(|before| before.ends_with('.'))
}

/// The modules of all normalisations, for messages.
pub(super) fn example(backbone: &Backbone, naming: Naming) -> String {
    backbone.norms().iter().find_map(|(site, _): &(NormSite, _)| naming.norm(*site)).unwrap_or_default()
}
