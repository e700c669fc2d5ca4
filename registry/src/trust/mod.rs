//! Who may say what a version is: keys, signatures, and the policy that asks for them.

mod key;
mod policy;
mod signature;

pub use key::{KeyId, PublicKey, SecretKey};
pub use policy::Policy;
