//! A sentence with one place for a class name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The place of the class name.
const PLACE: &str = "{}";

/// A prompt such as `a photo of a {}.`; `{}` stands in it exactly once. It may have sentences of their own for some classes,
/// which then take its place: descriptions, as BiomedCoOp (Koleilat et al., 2025, arXiv 2411.15232) lets a language model write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    before: String,
    after: String,
    /// Sentences by class names as [`key`] has them.
    sentences: BTreeMap<String, String>,
}

impl Template {
    /// Checks and keeps a template. One with sentences for classes is written as a JSON object from class names to
    /// sentences, with the template for all others under the empty name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `{}` is missing or stands there more than once.
    pub fn new(text: &str) -> Result<Self> {
        if let Ok(mut sentences) = serde_json::from_str::<BTreeMap<String, String>>(text)
            && !sentences.is_empty()
        {
            let others = Self::new(&sentences.remove("").unwrap_or_else(|| PLACE.into()))?;
            return Ok(Self { sentences: BTreeMap::new(), ..others }.with_sentences(sentences));
        }
        let found = text.matches(PLACE).count();
        match text.split_once(PLACE) {
            Some((before, after)) if found == 1 => {
                Ok(Self { before: before.to_owned(), after: after.to_owned(), sentences: BTreeMap::new() })
            }
            _ => Err(Error::invalid(
                format!("template `{text}`"),
                format!("write `{{}}` once, where the class name goes, as in `a photo of a {{}}.`; found {found}"),
            )),
        }
    }

    /// The same with sentences for some classes, by their names.
    #[must_use]
    pub fn with_sentences(mut self, sentences: impl IntoIterator<Item = (String, String)>) -> Self {
        self.sentences.extend(sentences.into_iter().map(|(class, sentence)| (key(&class), sentence)));
        self
    }

    /// The sentence for one class: its own, or else the template around its name, which is cleaned by
    /// [`clean_class_name`].
    pub fn fill(&self, class: &str) -> String {
        match self.sentences.get(&key(class)) {
            Some(sentence) => sentence.clone(),
            None => format!("{}{}{}", self.before, clean_class_name(class), self.after),
        }
    }

    /// Whether it has sentences for some classes and none for this one.
    pub fn lacks(&self, class: &str) -> bool {
        !self.sentences.is_empty() && !self.sentences.contains_key(&key(class))
    }
}

/// A class name by which sentences are found, whatever its case and underscores.
fn key(class: &str) -> String {
    clean_class_name(class).to_lowercase()
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = format!("{}{PLACE}{}", self.before, self.after);
        if self.sentences.is_empty() {
            return f.write_str(&others);
        }
        let mut all = self.sentences.clone();
        all.insert(String::new(), others);
        f.write_str(&serde_json::json!(all).to_string())
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

/// A class name as people write it: underscores, which folder names carry, become spaces, and runs of white space one
/// space. Letters keep their case; the tokenizer lowers it.
pub fn clean_class_name(class: &str) -> String {
    class.replace('_', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_name_is_cleaned_and_put_in_place() {
        let template = Template::new("a photo of a {}, a type of pet.").unwrap();
        assert_eq!(template.fill("american_pit__bull "), "a photo of a american pit bull, a type of pet.");
        // Braces of a class name are no place.
        assert_eq!(Template::new("{}").unwrap().fill("{} x"), "{} x");
    }

    #[test]
    fn classes_may_have_sentences_of_their_own() {
        let sentences = [("Lung_Opacity", "an X-ray {with} \"haze\""), ("normal", "clear lungs")];
        let template = Template::new("a photo of a {}.").unwrap();
        let template = template.with_sentences(sentences.map(|(class, text)| (class.into(), text.into())));
        assert_eq!(template.fill("lung opacity"), "an X-ray {with} \"haze\"");
        assert_eq!(template.fill("hat"), "a photo of a hat.");
        assert!(template.lacks("hat") && !template.lacks("Normal"));
        assert_eq!(Template::new(&template.to_string()).unwrap(), template);
        assert!(!Template::new("{}").unwrap().lacks("hat"));
        // As people write them.
        let template = Template::new(r#"{"Lung_Opacity": "haze", "": "an {}"}"#).unwrap();
        assert_eq!(["Lung_Opacity", "hat"].map(|class| template.fill(class)), ["haze", "an hat"]);
    }

    #[test]
    fn the_place_must_stand_there_once() {
        for text in ["", "a photo", "{} and {}", "{ }", "{0}"] {
            let message = Template::new(text).unwrap_err().to_string();
            assert!(message.contains("write `{}` once"), "{message}");
        }
    }

    #[test]
    fn json_is_the_sentence_itself() {
        let template = Template::new("art of the {}.").unwrap();
        let text = serde_json::to_string(&template).unwrap();
        assert_eq!(text, r#""art of the {}.""#);
        assert_eq!(serde_json::from_str::<Template>(&text).unwrap(), template);
        assert!(serde_json::from_str::<Template>(r#""no place""#).is_err());
    }
}
