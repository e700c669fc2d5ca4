//! Strict JSON: nothing said twice, nothing after the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// Parses a JSON document whose size was bounded by the caller.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], format: &'static str, what: impl ToString) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::malformed(format, what, error))
}

/// The most entries of one map.
const MAX_ENTRIES: usize = 1024;

/// Annotations: strings by string. A key that is given twice is an error, since two readers could take different ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct StringMap(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<StringMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry::<String, String>()? {
                    if map.len() == MAX_ENTRIES {
                        return Err(serde::de::Error::custom(format!("more than {MAX_ENTRIES} annotations")));
                    }
                    if map.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("duplicate annotation `{key}`")));
                    }
                    map.insert(key, value);
                }
                Ok(StringMap(map))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
