//! The tests of this crate in one binary. It links no tensor library, so it is built in seconds.

mod bundle;
mod crash;
mod damage;
mod fleet;
mod index;
mod lifecycle;
mod rotation;
mod server;
mod sharing;
mod support;
mod transport;
mod trust;
