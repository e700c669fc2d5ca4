//! Test-time adaptation: a model adapts itself to the images it is asked about, without labels.
//!
//! In flow a [`Model`] (backbone, classes, adapter) and images; out flow [`Outcome`]s. [`TestTime`] makes views, encodes
//! them, lets a method of [`TEST_TIME_METHODS`] adapt, and guards its answers. *Episodic* methods forget after each image;
//! *online* methods keep a state that can be written down ([`Snapshot`]), bounded and reset, and say what they took in.
//! A method sees [`Episode`]s only, so features from elsewhere will do where it runs no tower.

mod adamw;
mod boost_adapter;
mod confidence;
mod config;
mod diff_tpt;
mod dmn;
mod dpe;
mod episode;
mod guard;
mod judge;
mod method;
mod mta;
mod norm_tuning;
mod objective;
mod onzeta;
mod outcome;
mod prompt;
mod queue;
mod rlcf;
mod rows;
mod sar;
mod session;
mod snapshot;
mod stream;
mod swap_prompt;
mod tda;
mod tent;
mod tps;
mod tpt;
mod ttl;
mod tuner;
mod world;
mod zero;

pub use boost_adapter::BoostAdapterConfig;
pub use config::{StreamSettings, TestTimeConfig};
pub use diff_tpt::DiffTptConfig;
pub use dmn::{DmnConfig, DmnWeakConfig};
pub use dpe::DpeConfig;
pub use episode::{Admission, Answer, Episode, Stream};
pub use guard::{FallBack, Guard};
pub use method::{Adapt, MethodState, Needs, TEST_TIME_METHODS, TestTimeMethod};
pub use mta::MtaConfig;
pub use onzeta::OnZetaConfig;
pub use outcome::{AuditLine, Outcome, TestTimeTiming};
pub use rlcf::RlcfConfig;
pub use rows::Rows;
pub use sar::SarConfig;
pub use session::{EpisodeStore, TestTimeEvaluation, TestTimeReport, Unadapted};
pub use snapshot::{Snapshot, SnapshotHead};
pub use stream::TestTime;
pub use swap_prompt::SwapPromptConfig;
pub use tda::TdaConfig;
pub use tent::TentConfig;
pub use tps::TpsConfig;
pub use tpt::{CTptConfig, TptConfig};
pub use ttl::TtlConfig;
pub use world::{Cosine, Model, Score, World};
pub use zero::ZeroConfig;
