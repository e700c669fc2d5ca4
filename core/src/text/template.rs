//! A sentence with one place for a class name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The place of the class name.
const PLACE: &str = "{}";

/// A prompt such as `a photo of a {}.`; `{}` stands in it exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Checks and keeps a template.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `{}` is missing or stands there more than once.
    pub fn new(text: &str) -> Result<Self> {
        let found = text.matches(PLACE).count();
        match text.split_once(PLACE) {
            Some((before, after)) if found == 1 => Ok(Self { before: before.to_owned(), after: after.to_owned() }),
            _ => Err(Error::invalid(
                format!("template `{text}`"),
                format!("write `{{}}` once, where the class name goes, as in `a photo of a {{}}.`; found {found}"),
            )),
        }
    }

    /// The sentence for one class, whose name is cleaned by [`clean_class_name`].
    pub fn fill(&self, class: &str) -> String {
        format!("{}{}{}", self.before, clean_class_name(class), self.after)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PLACE}{}", self.before, self.after)
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
