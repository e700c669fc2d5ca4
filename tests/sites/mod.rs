//! The site interface carries methods that it was not written for: each file implements one outside `inarch-peft` and
//! compares it with the method's own definition, by composed weights or by the naive reference.

mod bottleneck;
mod cocoop;
mod dora;
mod fold;
mod frozen;
mod gradient;
mod ia3;
mod maple;
pub(crate) mod mixed;
mod prefix_cache;
mod prefix_tuning;
mod ssf;
mod stack;
mod sublayer;
mod tip_adapter;
mod vpt;
