//! The policy of a registry: whose signatures a version needs before it is taken in or used.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::key::{KeyId, PublicKey};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, parse};
use crate::registry::Registry;
use crate::store::read_if_present;

/// Keys that are trusted, and how many of them must have signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How many of the keys must have signed.
    pub threshold: usize,
    /// Public keys, in hex.
    keys: Vec<String>,
}

impl Policy {
    /// The keys that are trusted.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.keys.iter().filter_map(|hex| PublicKey::from_hex(hex)).collect()
    }
}

impl Registry {
    fn policy_path(&self) -> PathBuf {
        self.root().join("policy.json")
    }

    /// The policy, if one is set. One that cannot be read is an error: what it asked for is not known.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn policy(&self) -> Result<Option<Policy>> {
        let path = self.policy_path();
        let Some(bytes) = read_if_present(&path, 1 << 20)? else { return Ok(None) };
        let policy: Policy = parse(&bytes, "policy", path.display())?;
        let is_valid = policy.keys().len() == policy.keys.len() && (1..=policy.keys.len()).contains(&policy.threshold);
        if is_valid {
            Ok(Some(policy))
        } else {
            Err(Error::malformed("policy", path.display(), "a key is none, or the threshold cannot be met"))
        }
    }

    /// Trusts a key, and sets how many trusted keys must have signed.
    ///
    /// # Errors
    /// [`Error::Refused`] for a threshold that cannot be met.
    pub fn trust(&self, key: &PublicKey, threshold: Option<usize>) -> Result<Policy> {
        let lock = self.write_lock()?;
        let mut policy = self.policy()?.unwrap_or_default();
        if !policy.keys.contains(&key.hex()) {
            policy.keys.push(key.hex());
        }
        policy.threshold = threshold.unwrap_or(policy.threshold.max(1));
        if !(1..=policy.keys.len()).contains(&policy.threshold) {
            let reason = format!("{} signatures cannot come from {} keys", policy.threshold, policy.keys.len());
            return Err(Error::refused("the policy", reason));
        }
        self.write_policy(&lock, &policy)?;
        Ok(policy)
    }

    /// Trusts a key no longer. Without keys there is no policy, and everything is used unsigned.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a key that is not trusted.
    pub fn distrust(&self, id: &KeyId) -> Result<Option<Policy>> {
        let lock = self.write_lock()?;
        let mut policy = self.policy()?.unwrap_or_default();
        let before = policy.keys.len();
        policy.keys.retain(|hex| PublicKey::from_hex(hex).is_some_and(|key| key.id() != *id));
        if policy.keys.len() == before {
            return Err(Error::unknown("trusted key", id, ""));
        }
        if policy.keys.is_empty() {
            self.disk().remove(&self.policy_path())?;
            self.disk().sync_folder(self.root())?;
            return Ok(None);
        }
        policy.threshold = policy.threshold.min(policy.keys.len());
        self.write_policy(&lock, &policy)?;
        Ok(Some(policy))
    }

    fn write_policy(&self, _lock: &crate::store::Lock, policy: &Policy) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(policy).expect("strings make JSON");
        self.disk().replace(&self.policy_path(), &bytes)
    }

    /// Refuses a manifest that does not have the signatures that the policy asks for.
    pub(crate) fn check_signatures(&self, what: &str, subject: &Digest, attachments: &[Descriptor]) -> Result<()> {
        let Some(policy) = self.policy()? else { return Ok(()) };
        let found = self.signers(subject, attachments, &policy.keys()).len();
        if found >= policy.threshold {
            return Ok(());
        }
        let reason = format!("the policy asks for {} signatures of trusted keys, it has {found}", policy.threshold);
        Err(Error::Untrusted { what: format!("`{what}`"), reason })
    }
}
