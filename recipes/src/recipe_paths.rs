//! Paths of recipes. In a file they lead from the folder of that file, so that the recipe beside a result can be given from
//! anywhere; in the program, as all others, from where it runs.

use std::path::{Component, Path, PathBuf};

use inarch_peft::MethodConfig;
use toml::{Table, Value};

use crate::pocket;
use crate::recipe::{Recipe, Templates};

/// What stands before the features file of texts that takes the place of a backbone's weights.
const EMBEDDINGS: &str = "embeddings:";

/// Turns the paths of a recipe in a file of `folder` into those of the program. One that leads to nothing from there and to
/// something from where the program runs stays as it is: recipes of before led from there.
pub fn find_paths(table: &mut Table, folder: &Path) {
    if folder.as_os_str().is_empty() {
        return;
    }
    let find = |path: &mut String| *path = found_from(folder, path);
    let sources = table.get_mut("method").and_then(|method| method.get_mut("sources"));
    sources.into_iter().for_each(|sources| each(sources, &find));
    for key in ["data", "root"] {
        table.get_mut(key).into_iter().for_each(|value| each(value, &find));
    }
    if let Some(Value::String(templates)) = table.get_mut("templates")
        && is_descriptions(templates)
    {
        find(templates);
    }
    if let Some(Value::String(backbone)) = table.get_mut("backbone") {
        *backbone = turned(backbone, |path| folder.join(path).exists(), |path| found_from(folder, path).into());
    }
}

/// The way from a folder to what the program finds at `path`, for a recipe in a file of that folder. What is absolute, or not
/// there, stays as it is.
pub fn lead_from(folder: &Path, path: &Path) -> PathBuf {
    let way = || way(folder, path).unwrap_or_else(|| path.to_path_buf());
    if path.is_absolute() { path.to_path_buf() } else { way() }
}

/// As [`lead_from`], of what names a backbone, which may be no path.
pub fn lead_to_backbone(folder: &Path, backbone: &str) -> String {
    turned(backbone, |path| Path::new(path).exists(), |path| lead_from(folder, Path::new(path)))
}

impl Recipe {
    /// The recipe for a file in `folder`, from where its paths lead.
    #[must_use]
    pub fn led_from(&self, folder: &Path) -> Self {
        let mut recipe = self.clone();
        for path in recipe.data.iter_mut().chain(&mut recipe.root) {
            *path = lead_from(folder, path);
        }
        recipe.backbone = recipe.backbone.map(|backbone| lead_to_backbone(folder, &backbone));
        if let Templates::Named(name) = &mut recipe.templates
            && is_descriptions(name)
        {
            *name = lead_from(folder, Path::new(name.as_str())).display().to_string();
        }
        if let MethodConfig::Fusion(fusion) = &mut recipe.method {
            fusion.sources.iter_mut().for_each(|source| *source = lead_from(folder, source));
        }
        recipe
    }
}

/// Whether templates are the path of a file of descriptions.
pub(crate) fn is_descriptions(templates: &str) -> bool {
    templates.ends_with(".json") && !templates.contains('{')
}

/// Applies to a text, or to each of a list.
fn each(value: &mut Value, apply: &dyn Fn(&mut String)) {
    match value {
        Value::String(text) => apply(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each(value, apply)),
        _ => {}
    }
}

/// A backbone whose path, if it is one, is turned; it never looks like a name after that.
fn turned(backbone: &str, exists: impl Fn(&str) -> bool, turn: impl Fn(&str) -> PathBuf) -> String {
    if let Some(path) = backbone.strip_prefix(EMBEDDINGS) {
        return format!("{EMBEDDINGS}{}", turn(path).display());
    }
    if backbone == pocket::NAME || Path::new(backbone).is_absolute() || !exists(backbone) {
        return backbone.to_string();
    }
    let path = turn(backbone);
    let is_bare = matches!(path.components().next(), Some(Component::Normal(_)));
    let path = if is_bare { Path::new(".").join(path) } else { path };
    path.display().to_string()
}

fn found_from(folder: &Path, path: &str) -> String {
    let joined = folder.join(path);
    if Path::new(path).is_absolute() || (!joined.exists() && Path::new(path).exists()) {
        return path.to_string();
    }
    way(Path::new("."), &joined).unwrap_or(joined).display().to_string()
}

/// The relative path from a folder to a place; `None` where one of them is missing, or where there is no way, between drives.
fn way(folder: &Path, place: &Path) -> Option<PathBuf> {
    let folder = real(folder)?;
    let place = match (place.parent(), place.file_name()) {
        // The last part keeps its name, though it may be a link to elsewhere.
        (Some(parent), Some(name)) if place.exists() => real(parent)?.join(name),
        _ => real(place)?,
    };
    let shared = folder.components().zip(place.components()).take_while(|(one, other)| one == other).count();
    if shared == 0 {
        return None;
    }
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(place.components().skip(shared)).collect();
    Some(if way.as_os_str().is_empty() { PathBuf::from(".") } else { way })
}

fn real(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(if path.as_os_str().is_empty() { Path::new(".") } else { path }).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{find_paths, lead_from, lead_to_backbone};

    // Tests run in the folder of this package.

    #[test]
    fn ways_lead_to_the_same_place() {
        for (folder, path, expected) in [
            ("src/report", "presets", "../../presets"),
            ("src", "src/report", "report"),
            ("src/report", "src", ".."),
            ("src", "src", "."),
            ("src", "./presets/../src/recipe.rs", "recipe.rs"),
            ("src", "no/such", "no/such"),
            ("no/such", "presets", "presets"),
        ] {
            assert_eq!(lead_from(Path::new(folder), Path::new(path)), Path::new(expected), "{folder} to {path}");
        }
        let absolute = std::env::current_dir().unwrap().join("presets");
        assert_eq!(lead_from(Path::new("src"), &absolute), absolute);
    }

    #[test]
    fn paths_are_found_from_the_file_or_else_from_here() {
        let text = "data = [\"../presets\", \"src\", \"none\"]\nroot = \"report\"\ntemplates = \"a.json\"\nbackbone = \"report\"\n\
                    [method]\nsources = [\"../presets\"]\n";
        let found = |folder: &str| {
            let mut table = toml::from_str(text).unwrap();
            find_paths(&mut table, Path::new(folder));
            let text = |value: &toml::Value| value.as_str().unwrap().to_string();
            let list = |value: &toml::Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
            let [data, sources] = [&table["data"], &table["method"]["sources"]].map(list);
            (data, ["root", "templates", "backbone"].map(|key| text(&table[key])), sources)
        };
        let (data, single, sources) = found("src");
        assert_eq!(data, ["presets", "src", "src/none"]);
        assert_eq!(single, ["src/report", "src/a.json", "./src/report"]);
        assert_eq!(sources, ["presets"]);
        // A file of this folder has paths of this folder.
        assert_eq!(found("").1, ["report", "a.json", "report"]);
    }

    #[test]
    fn a_backbone_that_is_no_path_is_left_alone() {
        let lead = |backbone: &str| lead_to_backbone(Path::new("src/report"), backbone);
        for name in ["pocket", "openai/clip-vit-base-patch16", "none"] {
            assert_eq!(lead(name), name);
        }
        assert_eq!(lead("src/report"), ".");
        assert_eq!(lead("presets"), "../../presets");
        assert_eq!(lead_to_backbone(Path::new("."), "src/report"), "./src/report");
        assert_eq!(lead("embeddings:Cargo.toml"), "embeddings:../../Cargo.toml");
    }
}
