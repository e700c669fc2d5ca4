//! Methods that change normalisations, alone or beside offsets and scales of linear layers.

mod bitfit;
mod ln_tuning;
mod sites;
mod ssf;

pub use bitfit::{BitFit, BitFitConfig};
pub(crate) use ln_tuning::NormChange;
pub use ln_tuning::{LnTuning, LnTuningConfig};
pub use sites::NormSites;
pub(crate) use sites::selected_norms;
pub use ssf::{Ssf, SsfConfig};
