//! Words to token ids: the CLIP tokenizer, prompt templates, and smaller vocabularies.

mod own_rules;
mod template;
mod template_set;
mod tokenizer;
mod tokenizer_json;
mod vocabulary;

pub use template::{Template, clean_class_name};
pub use template_set::{TemplateSet, check_described};
pub use tokenizer::{Tokenizer, Tokens};
pub use vocabulary::reduce_vocabulary;
