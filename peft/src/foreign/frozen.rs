//! Frozen weights that a checkpoint carries along: they must be the backbone's.

use inarch_core::backbone::StateDict;
use inarch_core::checkpoint::from_openai;

use super::import::Import;
use crate::error::Result;

/// How far a frozen tensor may be from the backbone's, in Euclidean length over that of the backbone's: averages of
/// checkpoints in half precision have rounded often.
const TOLERANCE: f64 = 1e-2;

/// Refuses tensors, under OpenAI's names, that are not those of the backbone.
///
/// # Errors
/// `Malformed` for a name that no backbone has, `Refused` for other values or another shape.
pub(super) fn check_frozen(tensors: StateDict, import: &Import<'_>) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let own = import.backbone.state_dict();
    for (name, tensor) in from_openai(tensors) {
        let Some(expected) = own.get(&name) else {
            return Err(import.malformed(format!("`{}` is a weight that this backbone does not have", tensor.origin)));
        };
        let pairs = expected.data.iter().zip(&tensor.data);
        let distance: f64 = pairs.map(|(own, found)| f64::from(own - found).powi(2)).sum();
        let length: f64 = expected.data.iter().map(|value| f64::from(*value).powi(2)).sum();
        // Not a number is no distance.
        let near = distance.sqrt().partial_cmp(&(TOLERANCE * length.sqrt())).is_some_and(std::cmp::Ordering::is_le);
        if expected.data.len() != tensor.data.len() || !near {
            let what = format!("frozen weight `{}`", tensor.origin);
            return Err(import.refused(&what, format!("that of backbone `{}`", import.backbone.name()), "another one"));
        }
    }
    Ok(())
}
