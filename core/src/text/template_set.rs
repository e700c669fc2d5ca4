//! Named lists of templates: the sentences that a class is described with.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::template::Template;
use crate::error::{Error, Result};
use crate::file;

/// What most methods use.
const SINGLE: &str = "a photo of a {}.";

/// The 80 sentences that OpenAI tuned on ImageNet; the origin and licence are in the file.
const OPENAI_80: &str = include_str!("templates/openai-80.txt");

/// The seven of [`OPENAI_80`] that a forward selection on ImageNet kept, in the order of the data they come from.
const OPENAI_7: [&str; 7] = [
    "a bad photo of the {}.",
    "a {} in a video game.",
    "a origami {}.",
    "a photo of the small {}.",
    "art of the {}.",
    "a photo of the large {}.",
    "itap of a {}.",
];

/// One sentence for each data set, as the CoOp family of papers evaluates zero-shot CLIP (Zhou et al. 2022,
/// arXiv 2109.01134).
const COOP: [(&str, &str); 11] = [
    ("coop-caltech101", SINGLE),
    ("coop-dtd", "{} texture."),
    ("coop-eurosat", "a centered satellite photo of {}."),
    ("coop-fgvc-aircraft", "a photo of a {}, a type of aircraft."),
    ("coop-food101", "a photo of {}, a type of food."),
    ("coop-imagenet", SINGLE),
    ("coop-oxford-flowers", "a photo of a {}, a type of flower."),
    ("coop-oxford-pets", "a photo of a {}, a type of pet."),
    ("coop-stanford-cars", SINGLE),
    ("coop-sun397", SINGLE),
    ("coop-ucf101", "a photo of a person doing {}."),
];

/// One or more templates under a name; a class is the mean over its sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct TemplateSet {
    name: String,
    templates: Vec<Template>,
}

/// The fields as they are read, before they are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: String,
    templates: Vec<Template>,
}

impl TryFrom<Fields> for TemplateSet {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        Self::new(fields.name, fields.templates)
    }
}

impl TemplateSet {
    /// A set of one's own.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no template.
    pub fn new(name: impl Into<String>, templates: Vec<Template>) -> Result<Self> {
        let name = name.into();
        if templates.is_empty() {
            return Err(Error::invalid(format!("template set `{name}`"), "it needs at least one template"));
        }
        Ok(Self { name, templates })
    }

    /// A built-in set: see [`TemplateSet::names`].
    ///
    /// # Errors
    /// [`Error::Unknown`] with all names.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "single" => Self::from_lines(name, SINGLE),
            "openai-7" => Self::from_lines(name, &OPENAI_7.join("\n")),
            "openai-80" => Self::from_lines(name, OPENAI_80),
            _ => match COOP.iter().find(|(known, _)| *known == name) {
                Some((_, text)) => Self::from_lines(name, text),
                None => Err(Error::Unknown {
                    kind: "template set",
                    name: name.to_owned(),
                    candidates: Self::names().into_iter().map(str::to_owned).collect(),
                }),
            },
        }
    }

    /// The names of the built-in sets.
    pub fn names() -> Vec<&'static str> {
        ["single", "openai-7", "openai-80"].into_iter().chain(COOP.iter().map(|(name, _)| *name)).collect()
    }

    /// What a person means by one word or sentence: a text with `{}` is a template of its own, any other a name. It never
    /// opens a file, so that a text from anywhere may be given.
    ///
    /// # Errors
    /// Those of [`Template::new`] and [`TemplateSet::named`].
    pub fn resolve(text: &str) -> Result<Self> {
        if text.contains('{') { Self::new("custom", vec![Template::new(text)?]) } else { Self::named(text) }
    }

    /// Reads descriptions of classes, JSON from class names to lists of sentences. There are as many templates as the class
    /// with the most has sentences; those of a class with fewer come around again, and nearly alike often.
    ///
    /// The published file of BiomedCoOp is read as it is: its descriptions are under `BIOMEDCOOP_TEMPLATES`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for another content, or a class without sentences.
    pub fn descriptions(path: &Path) -> Result<Self> {
        const FORMAT: &str = "file of descriptions";
        let mut file: BTreeMap<String, Value> = file::read_json(path, FORMAT)?;
        let content = match file.remove("BIOMEDCOOP_TEMPLATES") {
            Some(inner) => inner,
            None => json!(file),
        };
        let described: BTreeMap<String, Vec<String>> =
            serde_json::from_value(content).map_err(|error| Error::malformed(FORMAT, path, error))?;
        if let Some((class, _)) = described.iter().find(|(_, sentences)| sentences.is_empty()) {
            return Err(Error::malformed(FORMAT, path, format!("class `{class}` has no sentence")));
        }
        let count = described.values().map(Vec::len).max().unwrap_or(0);
        let template = |place: usize| -> Result<Template> {
            let own = |(class, all): (&String, &Vec<String>)| (class.clone(), all[place % all.len()].clone());
            Ok(Template::new(SINGLE)?.with_sentences(described.iter().map(own)))
        };
        let templates = (0..count).map(template).collect::<Result<Vec<_>>>()?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::new(name, templates).map_err(|_| Error::malformed(FORMAT, path, "it describes no class"))
    }

    /// One template a line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// Those of [`Template::new`] and [`TemplateSet::new`].
    pub fn from_lines(name: &str, lines: &str) -> Result<Self> {
        let kept = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self::new(name, kept.map(Template::new).collect::<Result<_>>()?)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The templates, at least one.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// All sentences for one class, in the order of the templates.
    pub fn expand(&self, class: &str) -> Vec<String> {
        self.templates.iter().map(|template| template.fill(class)).collect()
    }
}

/// Checks that templates with sentences for classes have some for each of these.
///
/// # Errors
/// [`Error::Invalid`] naming the first class without.
pub fn check_described(templates: &[Template], classes: &[String]) -> Result<()> {
    match classes.iter().find(|class| templates.iter().any(|template| template.lacks(class))) {
        None => Ok(()),
        Some(class) => {
            let reason = "it has none; add some under the name of the class, whatever its case";
            Err(Error::invalid(format!("descriptions of class `{class}`"), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn descriptions_stand_for_their_classes() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = folder.path().join("lungs.json");
            std::fs::write(&path, text).unwrap();
            TemplateSet::descriptions(&path).map_err(|error| error.to_string())
        };
        let set = read(r#"{"Pneumonia": ["a", "b", "c"], "normal": ["x", "y"]}"#).unwrap();
        assert_eq!(set.name(), "lungs");
        let of = |class: &str| set.templates().iter().map(|template| template.fill(class)).collect::<Vec<_>>();
        assert_eq!(
            (of("pneumonia"), of("normal")),
            (vec!["a".into(), "b".into(), "c".into()], vec!["x".into(), "y".into(), "x".into()])
        );
        check_described(set.templates(), &["normal".into()]).unwrap();
        let message = check_described(set.templates(), &["hat".into()]).unwrap_err().to_string();
        assert!(message.contains("class `hat`"), "{message}");
        assert!(read(r#"{"IMAGENET_TEMPLATES": ["{}"], "BIOMEDCOOP_TEMPLATES": {"a": ["b"]}}"#).is_ok());
        for (text, words) in
            [("{}", "no class"), (r#"{"a": []}"#, "`a` has no sentence"), (r#"{"a": "b"}"#, "invalid type")]
        {
            let message = read(text).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn every_named_set_can_be_made_and_holds_distinct_sentences() {
        for name in TemplateSet::names() {
            let set = TemplateSet::named(name).unwrap();
            let distinct: HashSet<_> = set.templates().iter().collect();
            let count = match name {
                "openai-7" => 7,
                "openai-80" => 80,
                _ => 1,
            };
            assert_eq!((set.name(), set.templates().len(), distinct.len()), (name, count, count));
        }
    }

    #[test]
    fn the_seven_are_among_the_eighty() {
        let all = TemplateSet::named("openai-80").unwrap();
        assert!(TemplateSet::named("openai-7").unwrap().templates().iter().all(|one| all.templates().contains(one)));
    }

    #[test]
    fn a_class_is_expanded_in_order() {
        let set = TemplateSet::from_lines("two", "# words\na {}.\n\nthe {}.\n").unwrap();
        assert_eq!(set.expand("t_shirt"), ["a t shirt.", "the t shirt."]);
        assert_eq!(
            TemplateSet::named("coop-eurosat").unwrap().expand("River"),
            ["a centered satellite photo of River."]
        );
    }

    #[test]
    fn a_word_is_a_name_and_a_sentence_is_a_template() {
        assert_eq!(TemplateSet::resolve("openai-7").unwrap().templates().len(), 7);
        assert_eq!(TemplateSet::resolve("an X-ray of {}").unwrap().expand("a_b"), ["an X-ray of a b"]);
        assert!(
            matches!(TemplateSet::resolve("openai-8"), Err(Error::Unknown { candidates, .. }) if candidates.len() == 14)
        );
        assert!(TemplateSet::resolve("{ }").is_err());
        assert!(TemplateSet::new("none", Vec::new()).is_err());
        assert!(serde_json::from_str::<TemplateSet>(r#"{"name": "none", "templates": []}"#).is_err());
    }
}
