//! TUF metadata, specification 1.0: canonical JSON, roles, keys, signatures.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use olpc_cjson::CanonicalFormatter;
use serde::{Deserialize, Serialize};
use serde_json::{Serializer, Value};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::parse;
use crate::trust::{KeyId, PublicKey, SecretKey};

/// The version of the specification that the metadata names.
pub(super) const SPECIFICATION: &str = "1.0.31";

/// The bytes that are signed.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, CanonicalFormatter::new());
    value.serialize(&mut serializer).expect("a JSON value is written to memory");
    bytes
}

/// The signature of a document in canonical JSON, in hex, for keys that are kept by other programs.
pub fn sign_document(document: &Value, key: &SecretKey) -> String {
    key.sign(&canonical(document))
}

/// A signed document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) signatures: Vec<EnvelopeSignature>,
    pub(super) signed: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EnvelopeSignature {
    pub(super) keyid: KeyId,
    pub(super) sig: String,
}

impl Envelope {
    /// Signs a document with these keys.
    pub(super) fn sign(signed: Value, keys: &[SecretKey]) -> Self {
        let message = canonical(&signed);
        let sign = |key: &SecretKey| EnvelopeSignature { keyid: key.public().id(), sig: key.sign(&message) };
        Self { signatures: keys.iter().map(sign).collect(), signed }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("JSON values")
    }
}

/// What every document says about itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Common {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) spec_version: String,
    pub(super) version: u64,
    pub(super) expires: Timestamp,
}

/// The keys of a role and how many must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Their ids.
    pub keyids: Vec<KeyId>,
    /// How many must sign.
    pub threshold: u64,
}

/// `root.json`: who may sign what.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Root {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) keys: HashMap<KeyId, KeyEntry>,
    pub(super) roles: BTreeMap<String, RoleKeys>,
    #[serde(default)]
    pub(super) consistent_snapshot: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct KeyEntry {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Debug, Clone, Deserialize)]
struct KeyValue {
    public: String,
}

impl KeyEntry {
    fn public(&self) -> Option<PublicKey> {
        (self.keytype == "ed25519" && self.scheme == "ed25519")
            .then(|| PublicKey::from_hex(&self.keyval.public))
            .flatten()
    }
}

/// What one document says of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MetaFile {
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hashes: Option<HashMap<String, String>>,
}

impl MetaFile {
    pub(super) fn of(version: u64, bytes: &[u8]) -> Self {
        let hashes = HashMap::from([("sha256".to_string(), Digest::of(bytes).hex())]);
        Self { version, length: Some(bytes.len() as u64), hashes: Some(hashes) }
    }

    /// Whether these are the bytes that are meant.
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        let hash =
            self.hashes.as_ref().map(|hashes| hashes.get("sha256").is_some_and(|hex| *hex == Digest::of(bytes).hex()));
        self.length.is_none_or(|length| length == bytes.len() as u64) && hash.unwrap_or(true)
    }
}

/// `timestamp.json` and `snapshot.json`: which versions belong together.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listing {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// `targets.json`: what is offered.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Targets {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) targets: BTreeMap<String, TargetEntry>,
    #[serde(default)]
    pub(super) delegations: Option<Delegations>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delegations {
    #[serde(default)]
    pub(super) roles: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TargetEntry {
    pub(super) length: u64,
    pub(super) hashes: HashMap<String, String>,
    #[serde(default)]
    pub(super) custom: Value,
}

/// A version that a channel offers to a share of its devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The adapter.
    pub name: crate::name::Name,
    /// Number of the version.
    pub number: u64,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of its manifest, in bytes.
    pub manifest_bytes: u64,
    /// The share of devices that shall run it, in hundredths of a per cent: 10,000 is all.
    pub share: u32,
}

impl Offer {
    /// The path of the target.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.name, self.number)
    }

    pub(super) fn entry(&self) -> TargetEntry {
        let custom = serde_json::json!({ "name": self.name, "number": self.number, "share": self.share });
        let hashes = HashMap::from([("sha256".to_string(), self.digest.hex())]);
        TargetEntry { length: self.manifest_bytes, hashes, custom }
    }

    pub(super) fn of(path: &str, entry: &TargetEntry) -> Option<Self> {
        let text = |key: &str| entry.custom.get(key);
        let offer = Self {
            name: text("name")?.as_str()?.parse().ok()?,
            number: text("number")?.as_u64()?,
            digest: Digest::from_hex(entry.hashes.get("sha256")?)?,
            manifest_bytes: entry.length,
            share: u32::try_from(text("share")?.as_u64()?).ok()?.min(10_000),
        };
        (offer.path() == path).then_some(offer)
    }
}

impl Root {
    /// Reads a document that a role of this root must have signed, and checks type, specification and signatures.
    pub(super) fn open<T: for<'de> Deserialize<'de>>(&self, role: &str, bytes: &[u8]) -> Result<(T, Common)> {
        let envelope: Envelope = parse(bytes, "TUF metadata", format!("`{role}.json`"))?;
        self.verify(role, &envelope)?;
        read_signed(role, envelope)
    }

    /// Counts the keys of a role that signed; each key counts once, under whatever ids it is listed.
    pub(super) fn verify(&self, role: &str, envelope: &Envelope) -> Result<()> {
        let untrusted = |reason: String| Err(Error::Untrusted { what: format!("`{role}.json`"), reason });
        let Some(keys) = self.roles.get(role) else { return untrusted("the root names no keys for it".into()) };
        if keys.threshold == 0 {
            return untrusted("its threshold is zero".into());
        }
        let message = canonical(&envelope.signed);
        let mut signers: Vec<PublicKey> = Vec::new();
        for signature in envelope.signatures.iter().take(1024) {
            if !keys.keyids.contains(&signature.keyid) {
                continue;
            }
            let Some(key) = self.keys.get(&signature.keyid).and_then(KeyEntry::public) else { continue };
            if !signers.contains(&key) && key.verifies(&message, &signature.sig) {
                signers.push(key);
            }
        }
        if signers.len() as u64 >= keys.threshold {
            return Ok(());
        }
        untrusted(format!("{} of {} signatures that are needed are valid", signers.len(), keys.threshold))
    }

    /// Reads a root and checks that it is consistent in itself.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let envelope: Envelope = parse(bytes, "TUF metadata", "`root.json`")?;
        let (root, _): (Self, Common) = read_signed("root", envelope.clone())?;
        root.verify("root", &envelope)?;
        if !root.consistent_snapshot {
            return Err(Error::malformed("TUF metadata", "`root.json`", "only consistent snapshots are supported"));
        }
        Ok(root)
    }
}

/// Reads the signed part of a document whose signatures were checked.
fn read_signed<T: for<'de> Deserialize<'de>>(role: &str, envelope: Envelope) -> Result<(T, Common)> {
    let malformed = |reason: String| Error::malformed("TUF metadata", format!("`{role}.json`"), reason);
    let common: Common =
        serde_json::from_value(envelope.signed.clone()).map_err(|error| malformed(error.to_string()))?;
    if common.kind != role || !common.spec_version.starts_with("1.0") || common.version == 0 {
        return Err(malformed(format!(
            "it is `{}` of version {}, specification {}",
            common.kind, common.version, common.spec_version
        )));
    }
    let content = serde_json::from_value(envelope.signed).map_err(|error| malformed(error.to_string()))?;
    Ok((content, common))
}
