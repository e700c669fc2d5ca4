//! Named lists of templates: the sentences that a class is described with.

use serde::{Deserialize, Serialize};

use super::template::Template;
use crate::error::{Error, Result};

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

    /// What a person means by one word or sentence: a text with `{}` is a template of its own, any other a name.
    ///
    /// # Errors
    /// Those of [`Template::new`] and [`TemplateSet::named`].
    pub fn resolve(text: &str) -> Result<Self> {
        if text.contains('{') { Self::new("custom", vec![Template::new(text)?]) } else { Self::named(text) }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
