//! Laws that every method keeps, on the tiny backbone. A new method is met by all of them through
//! [`inarch_peft::METHODS`]; [`names`] asks for its written list of parameters.

mod artifact;
mod beginnings;
mod black_box;
pub(crate) mod case;
mod classes;
mod clips;
mod config;
mod documents;
mod fold;
mod gradient;
mod init;
mod mixed;
mod names;
mod pass;
mod pools;
mod stack;
mod tamper;
mod test_time;
