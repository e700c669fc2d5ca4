//! The small backbone that ships with the project. Its recipe, log and model card are in `recipes/pocket/`.

/// Its name.
pub const NAME: &str = "pocket";
/// What it is, in a line.
pub const ABOUT: &str = "ships with inarch: a CLIP of 1.2 M parameters for 32-pixel images, trained on CIFAR-10";

/// Its files in the Hugging Face layout: name and content.
pub const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../pocket/config.json")),
    ("model.safetensors", include_bytes!("../pocket/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../pocket/preprocessor_config.json")),
    ("tokenizer.json", include_bytes!("../pocket/tokenizer.json")),
];
