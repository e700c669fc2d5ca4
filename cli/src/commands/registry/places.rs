//! Published files without where on this machine something lay.

use std::path::{Path, PathBuf};

use inarch_core::file;
use serde_json::Value;

use crate::error::CommandError;

/// What a recipe says of places.
const PLACES: [&str; 2] = ["data", "root"];

/// The recipe or the report of a run, without the places of its data and its backbone; `None` for a file that is
/// published as it is.
pub(super) fn without_places(title: &str, path: &Path) -> Result<Option<Vec<u8>>, CommandError> {
    Ok(match title {
        "recipe.toml" => placeless_recipe(&file::read_text(path)?),
        "report.json" => placeless_report(&file::read_text(path)?),
        _ => None,
    })
}

fn placeless_recipe(text: &str) -> Option<Vec<u8>> {
    let mut recipe: toml::Table = toml::from_str(text).ok()?;
    for key in PLACES {
        recipe.remove(key);
    }
    if recipe.get("backbone").and_then(toml::Value::as_str).is_some_and(is_place) {
        recipe.remove("backbone");
    }
    Some(toml::to_string(&recipe).ok()?.into_bytes())
}

fn placeless_report(text: &str) -> Option<Vec<u8>> {
    let mut report: Value = serde_json::from_str(text).ok()?;
    let recipe = report.get_mut("recipe")?.as_object_mut()?;
    let given = |key: &str| recipe.get(key).and_then(Value::as_str).map(PathBuf::from);
    // Images lie in the data's folder, or beside a list of them.
    let beside = given("data").and_then(|data| data.parent().map(Path::to_path_buf));
    let places: Vec<PathBuf> = [given("data"), given("root"), beside].into_iter().flatten().collect();
    for key in PLACES {
        recipe.remove(key);
    }
    if recipe.get("backbone").and_then(Value::as_str).is_some_and(is_place) {
        recipe.remove("backbone");
    }
    for part in ["data", "zero_shot", "test"] {
        let skipped = report.get_mut(part).and_then(|part| part.get_mut("skipped")).and_then(Value::as_array_mut);
        for image in skipped.into_iter().flatten() {
            let path = Path::new(image.as_str().unwrap_or_default());
            let inside = places.iter().find_map(|place| path.strip_prefix(place).ok());
            if let Some(inside) = inside.map(|inside| inside.display().to_string()) {
                *image = Value::from(inside);
            }
        }
    }
    let text = serde_json::to_string_pretty(&report).ok()?;
    Some(format!("{text}\n").into_bytes())
}

/// Whether what names a backbone is a place.
fn is_place(backbone: &str) -> bool {
    Path::new(backbone).is_absolute() || backbone.starts_with(['.', '~']) || backbone.starts_with("embeddings:")
}
