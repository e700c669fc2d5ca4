//! The layers that a recipe is made of: preset, then file, then `--set`, merged and read strictly.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::file;
use inarch_core::image::Augment;
use inarch_core::text::Template;
use inarch_peft::METHODS;
use include_dir::{Dir, include_dir};
use toml::{Table, Value};

use crate::error::Result;
use crate::recipe::Recipe;
use crate::recipe_paths::find_paths;
use crate::settings::{fault, merge, parse, read_over, set};

/// One recipe for each method.
static PRESETS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/presets");
/// The section of a preset that holds its authors' own settings, where the preset departs from them.
const OFFICIAL: &str = "official";

/// Builds a recipe from its layers.
#[derive(Debug, Clone, Default)]
pub struct RecipeLayers {
    table: Table,
    origin: String,
}

impl RecipeLayers {
    /// The preset of a method; with `official`, its authors' own schedule where the preset departs from it.
    ///
    /// # Errors
    /// An unknown method.
    pub fn preset(method: &str, official: bool) -> Result<Self> {
        let file = PRESETS.get_file(format!("{method}.toml")).filter(|_| METHODS.contains(&method));
        let Some(text) = file.and_then(|file| file.contents_utf8()) else {
            return Err(inarch_core::Error::Unknown {
                kind: "method",
                name: method.into(),
                candidates: METHODS.iter().map(ToString::to_string).collect(),
            }
            .into());
        };
        let mut layers = Self { table: parse(text, method)?, origin: format!("preset {method}") };
        let authors = layers.table.remove(OFFICIAL);
        if let (true, Some(Value::Table(authors))) = (official, authors) {
            merge(&mut layers.table, authors);
        }
        Ok(layers)
    }

    /// A recipe file, whose paths lead from its folder, over the preset of the method that it names.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`file`](Self::file).
    pub fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let mut table = parse(&file::read_text(path)?, &origin)?;
        find_paths(&mut table, path.parent().unwrap_or(Path::new("")));
        Self::of(table, &origin)
    }

    /// The text of a recipe file over the preset of the method that it names.
    ///
    /// # Errors
    /// A text that is not TOML or names no method.
    pub fn file(text: &str, origin: &str) -> Result<Self> {
        Self::of(parse(text, origin)?, origin)
    }

    fn of(table: Table, origin: &str) -> Result<Self> {
        let method = table
            .get("method")
            .and_then(|method| method.get("name"))
            .and_then(Value::as_str)
            .ok_or_else(|| fault(origin, format!("`method.name` is missing; one of {METHODS:?}")))?;
        let mut layers = Self::preset(method, false)?;
        merge(&mut layers.table, table);
        layers.origin = origin.into();
        Ok(layers)
    }

    /// Applies `path.to.key=value`; the value is TOML, or else taken as text.
    ///
    /// # Errors
    /// No `=`, or a path through something that is not a table.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        set(&mut self.table, assignment)
    }

    /// Describes classes with these templates, which the recipe then holds in full, so that it needs no other file.
    pub fn describe(&mut self, templates: &[Template]) {
        let templates = templates.iter().map(|one| Value::String(one.to_string())).collect();
        self.table.insert("templates".into(), Value::Array(templates));
    }

    /// Puts a table over the layers; `origin` is what errors name from now on.
    #[must_use]
    pub fn over(mut self, table: Table, origin: &str) -> Self {
        merge(&mut self.table, table);
        self.origin = origin.into();
        self
    }

    /// Reads the merged layers strictly.
    ///
    /// # Errors
    /// An unknown or missing key, or a value of the wrong type, with its place.
    pub fn finish(self) -> Result<Recipe> {
        let defaults = BTreeMap::from([("augment", Augment::clip())]);
        let recipe: Recipe = read_over(&defaults, self.table, &self.origin)?;
        recipe.check()?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::image::{Augment, AugmentCrop, PadFill};

    use super::{METHODS, RecipeLayers};
    use crate::schedule::{Budget, Schedule};

    #[test]
    fn every_method_has_a_preset_that_reads() {
        for method in METHODS {
            let recipe = RecipeLayers::preset(method, false).and_then(RecipeLayers::finish).expect(method);
            assert_eq!(recipe.method.name(), *method);
            RecipeLayers::preset(method, true).and_then(RecipeLayers::finish).expect(method);
        }
        let names = super::PRESETS.files().filter_map(|file| file.path().file_stem()?.to_str());
        for name in names {
            assert!(METHODS.contains(&name), "the preset `{name}` belongs to no method");
        }
    }

    #[test]
    fn later_layers_win_and_leftovers_are_refused() {
        let text = "shots = 4\n[method]\nname = \"lora\"\nrank = 8\n";
        let mut layers = RecipeLayers::file(text, "test").expect("reads");
        layers.set("train.budget={ iterations = 7 }").expect("sets");
        let recipe = layers.clone().finish().expect("finishes");
        assert_eq!((recipe.shots, recipe.train.budget), (Some(4), Budget::Iterations(7)));
        layers.set("method.rang=4").expect("sets");
        let error = layers.finish().expect_err("an unknown key").to_string();
        assert!(error.contains("rang"), "{error}");
        let mut layers = RecipeLayers::file(text, "test").expect("reads");
        layers.set("method.rank=three").expect("sets");
        let error = layers.finish().expect_err("a value of the wrong type").to_string();
        assert!(error.contains("a whole number from 0 on, at `rank = \"three\"` of `[method]`"), "{error}");
    }

    #[test]
    fn settings_of_an_optimizer_outside_their_domain_are_named() {
        for (method, setting, value) in [
            ("coop", "lr", "0.0"),
            ("coop", "momentum", "2.0"),
            ("coop", "weight_decay", "-1.0"),
            ("coop", "weight_decay", "nan"),
            ("lora", "weight_decay", "inf"),
            ("lora", "epsilon", "0.0"),
        ] {
            let mut layers = RecipeLayers::preset(method, false).expect("a method");
            layers.set(&format!("train.optimizer.{setting}={value}")).expect("sets");
            let error = layers.finish().expect_err("outside").to_string();
            assert!(error.contains(&format!("`train.optimizer.{setting}`: must be")), "{error}");
        }
    }

    #[test]
    fn a_part_of_a_section_is_over_what_stands_there_by_default() {
        // Its preset has no `augment`.
        let read = |set: &[&str]| {
            let mut layers = RecipeLayers::preset("lora", false).expect("a method");
            set.iter().for_each(|assignment| layers.set(assignment).expect("sets"));
            layers.finish().expect("finishes").augment
        };
        let whole = Augment::clip();
        assert_eq!(read(&[]), whole);
        assert_eq!(read(&["augment.flip=0.0"]), Augment { flip: 0.0, ..whole.clone() });
        assert_eq!(read(&["augment.crop=\"centre\""]), Augment { crop: AugmentCrop::Centre, ..whole.clone() });
        let AugmentCrop::Resized { ratio, .. } = whole.crop else { panic!("another crop") };
        let nearer = AugmentCrop::Resized { scale: (0.5, 1.0), ratio };
        assert_eq!(read(&["augment.crop.resized.scale=[0.5, 1.0]"]), Augment { crop: nearer, ..whole.clone() });
        let shifted = AugmentCrop::Padded { pad: 4, fill: PadFill::Zero };
        let padded = "augment.crop={ padded = { pad = 4, fill = \"zero\" } }";
        assert_eq!(read(&[padded]), Augment { crop: shifted, ..whole });
    }

    #[test]
    fn a_resolved_recipe_reads_as_itself() {
        for method in METHODS {
            for budget in ["{ iterations = 7 }", "{ epochs = 2 }", "\"coop-epochs\""] {
                let mut layers = RecipeLayers::preset(method, false).expect(method);
                layers.set(&format!("train.budget={budget}")).expect("sets");
                let recipe = layers.finish().expect("finishes");
                let again = RecipeLayers::file(&recipe.to_toml(), "again").and_then(RecipeLayers::finish);
                assert_eq!(again.expect("reads"), recipe);
            }
        }
    }

    #[test]
    fn official_values_are_those_of_the_authors() {
        use Budget::{CoopEpochs, Epochs, Iterations, IterationsPerShot};
        use Schedule::{Coop, Cosine};
        for (method, views, budget, batch, schedule, lr) in [
            ("lora", 0, IterationsPerShot(500), 32, Cosine, 2e-4),
            ("coop", 0, CoopEpochs, 32, Coop, 2e-3),
            ("cocoop", 0, Epochs(10), 1, Coop, 2e-3),
            ("kgcoop", 0, Epochs(100), 128, Coop, 2e-3),
            ("prograd", 0, CoopEpochs, 32, Coop, 2e-3),
            ("tcp", 0, Epochs(50), 32, Coop, 2e-3),
            ("biomedcoop", 0, Epochs(100), 4, Coop, 2.5e-3),
            ("maple", 0, Epochs(5), 4, Coop, 3.5e-3),
            ("ivlp", 0, Epochs(20), 4, Coop, 2.5e-3),
            ("promptsrc", 0, Epochs(50), 4, Coop, 2.5e-3),
            ("clip-adapter", 0, CoopEpochs, 32, Coop, 1e-5),
            ("linear-probe", 20, Epochs(300), 256, Coop, 0.1),
            ("clap", 20, Epochs(300), 256, Coop, 0.1),
            ("tip-adapter-f", 10, Epochs(20), 256, Cosine, 1e-3),
            ("vita-clip", 0, Iterations(30000), 256, Cosine, 4e-4),
            ("aim", 0, Epochs(30), 64, Cosine, 3e-4),
        ] {
            let recipe = RecipeLayers::preset(method, true).and_then(RecipeLayers::finish).expect(method);
            let train = &recipe.train;
            assert_eq!((recipe.views, train.budget, train.batch), (views, budget, batch), "{method}");
            assert_eq!(train.schedule, schedule, "{method}");
            assert!((train.optimizer.lr() - lr).abs() < 1e-12, "{method}: {}", train.optimizer.lr());
        }
    }

    #[test]
    fn the_settings_that_presets_name_for_other_protocols_exist() {
        for (method, set) in [
            ("promptsrc", ["train.budget={ epochs = 20 }", "method.mean=15", "method.deviation=1"]),
            ("maple", ["train.budget={ epochs = 2 }", "method.depth=3", "train.optimizer.lr=0.0026"]),
        ] {
            let mut layers = RecipeLayers::preset(method, true).expect(method);
            for assignment in set {
                let text = super::PRESETS.get_file(format!("{method}.toml")).and_then(|file| file.contents_utf8());
                assert!(text.is_some_and(|text| text.contains(assignment)), "{method}: {assignment}");
                layers.set(assignment).expect(assignment);
            }
            layers.finish().expect(method);
        }
    }
}
