//! Where frozen features are kept, on every command line.

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use inarch_core::checkpoint::Precision;
use inarch_recipes::FeatureStore;

use crate::error::CommandError;
use crate::home::features;

#[derive(Debug, Args)]
#[command(next_help_heading = "Kept features")]
pub(crate) struct StoreArgs {
    /// Keep frozen image features for later runs, up to this size (such as 2GiB), in `features` under `INARCH_HOME`
    #[arg(long, global = true, value_name = "SIZE", env = "INARCH_STORE")]
    store: Option<ByteSize>,
    /// How they are kept
    #[arg(long, global = true, value_enum, value_name = "TYPE", default_value = "f32", env = "INARCH_STORE_PRECISION")]
    store_precision: StorePrecision,
}

/// Values of a feature store.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StorePrecision {
    /// Exactly as they were computed
    F32,
    /// In half the bytes; runs with and without the store then differ in the third digit
    F16,
}

impl StoreArgs {
    /// The store, if one is asked for.
    ///
    /// # Errors
    /// No home directory.
    pub(crate) fn open(&self) -> Result<Option<FeatureStore>, CommandError> {
        let Some(limit) = self.store.filter(|limit| limit.as_u64() > 0) else { return Ok(None) };
        let precision = match self.store_precision {
            StorePrecision::F32 => Precision::F32,
            StorePrecision::F16 => Precision::F16,
        };
        Ok(Some(FeatureStore::new(features()?, limit.as_u64(), precision)))
    }
}
