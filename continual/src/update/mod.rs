//! Bringing a published adapter up to date: with new data, past a gate, or with less data than before.

mod assess;
mod comparison;
mod forget;
mod gate;
mod intake;
mod learn;
mod left_out;
mod recipe;
mod report_file;
mod run;
mod turn;
mod version;
mod watch;
mod work;

pub use forget::{ForgetReport, ForgetRequest, forget};
pub use gate::{ClassChange, Gate, Rule, Verdict};
pub use recipe::UpdateRecipe;
pub use run::{UpdateReport, UpdateRequest, update};
pub use turn::Turn;
pub use version::{FolderVersions, Release, Version, VersionRecord, Versions};

pub(crate) use assess::accuracy_on;
pub(crate) use version::{Content, check_in_force, write_version};
