//! A device of a fleet: it follows a channel, takes what is meant for it, and is never without a version that works.

mod device;
mod memory;
mod rollout;

pub use device::{Agent, AgentOptions, Device, Outcome, StepReport};
pub use rollout::{RolloutDecision, RolloutLimits, decide, draw};
