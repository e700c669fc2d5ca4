//! Media types and annotation keys. They follow the CNCF ModelPack specification, so that its tools know what they see.

/// The artifact type of an adapter's manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";

/// Media types.
pub mod media_type {
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// The two bytes `{}`, where a config is asked for and there is none.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// ModelPack: the config of a model.
    pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
    /// ModelPack: learned tensors, not packed.
    pub const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
    /// ModelPack: what the tensors mean.
    pub const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
    /// ModelPack: documents.
    pub const DOCUMENT: &str = "application/vnd.cncf.model.doc.v1.raw";
    /// A detached ed25519 signature over the digest of a manifest.
    pub const SIGNATURE: &str = "application/vnd.inarch.signature.v1+json";
    /// The difference between two layers, for zstd with the older one as its prefix.
    pub const DELTA: &str = "application/vnd.inarch.delta.v1.zstd";
}

/// Annotation keys.
pub mod annotation {
    /// OCI: name of a file.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// OCI: the version.
    pub const VERSION: &str = "org.opencontainers.image.version";
    /// OCI: when it was made, RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// OCI: the tag under which an image layout lists a manifest.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// ModelPack: path of a file.
    pub const FILE_PATH: &str = "org.cncf.model.filepath";
    /// Name of the adapter.
    pub const NAME: &str = "dev.inarch.name";
    /// Number of the version.
    pub const NUMBER: &str = "dev.inarch.number";
    /// Semantic version, where the publisher gave one.
    pub const RELEASE: &str = "dev.inarch.release";
    /// Method.
    pub const METHOD: &str = "dev.inarch.method";
    /// Identity of the backbone.
    pub const BACKBONE_DIGEST: &str = "dev.inarch.backbone.digest";
    /// Name of the backbone at training time.
    pub const BACKBONE_NAME: &str = "dev.inarch.backbone.name";
    /// Number of trained values.
    pub const PARAMETERS: &str = "dev.inarch.parameters";
    /// Number of classes.
    pub const CLASSES: &str = "dev.inarch.classes";
    /// Identity of the training data.
    pub const DATA: &str = "dev.inarch.data";
    /// Manifests it was made from, separated by commas.
    pub const PARENTS: &str = "dev.inarch.parents";
    /// What the gate said: `pass`, `fail: REASON`.
    pub const VERDICT: &str = "dev.inarch.verdict";
    /// Prefix of metrics.
    pub const METRIC: &str = "dev.inarch.metric.";
    /// Prefix of the publisher's labels.
    pub const LABEL: &str = "dev.inarch.label.";
    /// The layer that a delta starts from.
    pub const DELTA_FROM: &str = "dev.inarch.delta.from";
    /// The layer that a delta ends in.
    pub const DELTA_TO: &str = "dev.inarch.delta.to";
    /// Size of the layer that a delta ends in, in bytes.
    pub const DELTA_BYTES: &str = "dev.inarch.delta.bytes";
}

/// The media type of a file of an artifact.
pub(crate) fn weigh(title: &str) -> &'static str {
    match title {
        super::CARD_FILE => media_type::WEIGHT_CONFIG,
        _ if title.ends_with(".safetensors") => media_type::WEIGHT,
        _ => media_type::DOCUMENT,
    }
}

/// Whether a title is a plain file name that is safe on every platform.
pub(crate) fn title_is_safe(title: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // Reserved names of Windows devices have no extension that would make them safe.
    let stem = title.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let device = ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str())
        || (stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")));
    (1..=128).contains(&title.len())
        && title.bytes().all(plain)
        && !title.starts_with(['.', '-'])
        && !title.ends_with('.')
        && !device
}
