//! The cache of Tip-Adapter: `keys_Kshots.pt` `[dim, n]` and `values_Kshots.pt` `[n, classes]`, one-hot; trained keys
//! (Tip-Adapter-F) are `best_F_Kshots.pt` `[n, dim]`, a parameter.
//!
//! Each is a bare tensor. Weight and sharpness of the cache are searched and printed by the authors' code and stored
//! nowhere: without `alpha` and `beta` among the settings they are 1 and 5.5.

use inarch_core::backbone::HostTensor;
use inarch_core::checkpoint::{TorchValue, read_torch};

use super::import::Import;
use super::tensors::transposed;
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::{Error, Result};
use crate::logits::{TipAdapterConfig, TipAdapterFConfig};
use crate::parameters::Parameters;

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let name = import.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (trained, shots) = match (name.strip_prefix("best_F_"), name.strip_prefix("keys_")) {
        (Some(shots), _) => (true, shots),
        (_, Some(shots)) => (false, shots),
        _ => {
            let reason = "expected a file `keys_Kshots.pt`, or `best_F_Kshots.pt` for trained keys, with `values_Kshots.pt` beside it";
            return Err(import.malformed(reason));
        }
    };
    let beside = import.path.with_file_name(format!("values_{shots}"));
    let votes = matrix(read_torch(&beside)?, "values", import)?;
    let [images, classes] = [votes.shape[0], votes.shape[1]];
    let labels = votes.data.chunks(classes.max(1)).map(|row| {
        let mut set = row.iter().enumerate().filter(|(_, vote)| **vote != 0.0);
        match (set.next(), set.next()) {
            (Some((class, vote)), None) if *vote == 1.0 => Ok(class as f32),
            _ => Err(import.malformed("the values must be one-hot: each key votes for one class")),
        }
    });
    let labels: Vec<f32> = labels.collect::<Result<_>>()?;
    if import.classes.is_empty() {
        let reason = format!(
            "the file has no class names; give the {classes} names, in the order of the labels: `--classes A,B`, or `-d DATA`"
        );
        return Err(Error::Setting { setting: "classes", reason });
    }
    if import.classes.len() != classes {
        let found = import.classes.len();
        return Err(import.refused("classes", format!("{classes} names, in the order of the labels"), found));
    }
    let keys = matrix(read_torch(import.path)?, "keys", import)?;
    let keys = if trained { keys } else { transposed(keys).map_err(|reason| import.malformed(reason))? };
    if keys.shape[0] != images {
        return Err(import.malformed(format!("{} keys for {images} values", keys.shape[0])));
    }
    let labels = HostTensor { shape: vec![images], data: labels, origin: "values".into() };
    let keys_name = if trained { "keys" } else { "keys.fixed" };
    let parameters = Parameters::from([(keys_name.to_string(), keys), ("cache.labels.fixed".to_string(), labels)]);
    let method = match trained {
        true => MethodConfig::TipAdapterF(TipAdapterFConfig::default()),
        false => MethodConfig::TipAdapter(TipAdapterConfig::default()),
    };
    import.artifact(import.configured(method)?, parameters, import.classes)
}

fn matrix(value: TorchValue, what: &str, import: &Import<'_>) -> Result<HostTensor> {
    match value {
        TorchValue::Tensor(tensor) if tensor.shape.len() == 2 => Ok(HostTensor { origin: what.into(), ..tensor }),
        _ => Err(import.malformed(format!("the {what} must be one matrix, as `torch.save(tensor)` writes it"))),
    }
}
