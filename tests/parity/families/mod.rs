//! Backbones of other families than CLIP equal their reference implementations, and every method that can works on them;
//! `generate.py` and `generate_siglip2.py` beside this file made the expected numbers. Tolerance as in `clip_tiny`.

mod align;
mod methods;
mod trunks;

use std::ops::Deref;

use burn::tensor::Tensor;
use inarch_core::Error;
use inarch_core::backbone::{Entry, Frozen, Pass, Tower, values};
use inarch_core::checkpoint::open_backbone;
use inarch_peft::Artifact;

use crate::parity::reference::Reference;
use crate::support::{close, copied, edit_json, edit_tensors, plain};

const TOLERANCE: f32 = 1e-4;

/// A backbone beside what the reference computes with it.
pub(super) struct Case(Reference);

impl Deref for Case {
    type Target = Reference;

    fn deref(&self) -> &Reference {
        &self.0
    }
}

impl Case {
    pub(super) fn open(name: &'static str) -> Self {
        Self(Reference::open("families", name))
    }

    /// The reference's token rows without what fills them.
    pub(super) fn rows(&self) -> Vec<Vec<u32>> {
        let (ids, end) = (&self.expected["input_ids"], self.backbone.tokenizer().eot());
        let cut = |row: &[f32]| {
            let ids: Vec<u32> = row.iter().map(|id| *id as u32).collect();
            let length = ids.iter().position(|id| *id == end).expect("an end token") + 1;
            ids[..length].to_vec()
        };
        ids.data.chunks(ids.shape[1]).map(cut).collect()
    }

    #[track_caller]
    fn check<const D: usize>(&self, name: &str, found: Tensor<D>) {
        let expected = &self.expected[name];
        assert_eq!(found.dims().as_slice(), expected.shape.as_slice(), "{} {name}", self.name);
        close(&format!("{} {name}", self.name), &values(found), &expected.data, TOLERANCE);
    }

    fn image_features(&self) -> Tensor<2> {
        self.backbone.encode_image(self.pixels(), &Frozen, &Pass::evaluate())
    }

    fn check_image(&self) {
        for block in 0..self.backbone.depth(Tower::Image) {
            let partial = self.backbone.start_image(self.pixels(), Entry::Block(block));
            self.check(&format!("vision.hidden.{block}"), partial.stream().expect("tokens"));
            let cut = self.backbone.finish(Tower::Image, partial, &Frozen, &Pass::evaluate());
            self.check("image_features", cut);
        }
        self.check("image_features", self.image_features());
    }

    fn check_text(&self) {
        let rows = self.rows();
        assert_eq!(self.backbone.tokenize(&self.texts).expect("plain texts"), rows, "{}", self.name);
        self.check("text_features", self.backbone.encode_text(&rows, &Frozen, &Pass::evaluate()));
        // Rows of one length need no mask; a row alone takes that way.
        let dim = self.backbone.spec().dim;
        for (index, row) in rows.iter().enumerate() {
            let found = self.backbone.encode_text(std::slice::from_ref(row), &Frozen, &Pass::evaluate());
            let expected = &self.expected["text_features"].data[index * dim..][..dim];
            close(&format!("{} text {index}", self.name), &values(found), expected, TOLERANCE);
        }
        for block in 0..self.backbone.depth(Tower::Text) {
            let partial = self.backbone.start_text(&rows, Entry::Block(block));
            let (found, expected) =
                (partial.stream().expect("tokens"), &self.expected[&format!("text.hidden.{block}")]);
            let ([_, tokens, width], length) = (found.dims(), expected.shape[1]);
            assert_eq!(tokens, length);
            // What stands behind a text is nobody's business.
            let whole = self.backbone.spec().text.style.fill.is_some();
            for (index, row) in rows.iter().enumerate() {
                let own = if whole { tokens } else { row.len() };
                let found = found.clone().narrow(0, index, 1).narrow(1, 0, own);
                let expected = &expected.data[index * length * width..][..own * width];
                close(&format!("{} text block {block}", self.name), &values(found), expected, TOLERANCE);
            }
            self.check("text_features", self.backbone.finish(Tower::Text, partial, &Frozen, &Pass::evaluate()));
        }
    }

    /// What the checkpoint itself says about its classes.
    fn check_head(&self, classes: &[&str]) {
        let own = Artifact::of_head(&self.backbone).expect("a whole head").expect("a head");
        assert_eq!(own.manifest.classes, classes);
        let classifier = own.classifier(&self.backbone, None).expect("its own classes");
        let (sites, pass) = (own.adapter.sites(), Pass::evaluate());
        let found = classifier.logits(&self.image_features(), &classifier.features(sites), sites, &pass);
        self.check("logits", found);
    }
}

#[test]
fn image_towers_equal_their_references() {
    for name in ["vit", "deit", "dinov2", "vit_pytorch"] {
        let case = Case::open(name);
        case.check_image();
        case.check_round_trip();
        assert!(case.backbone.has(Tower::Image) && !case.backbone.has(Tower::Text) && !case.backbone.has_words());
    }
}

#[test]
fn heads_of_checkpoints_equal_their_references() {
    Case::open("vit").check_head(&["cat", "dog", "mat"]);
    Case::open("deit").check_head(&["cat", "dog", "mat"]);
    Case::open("vit_pytorch").check_head(&["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
    // Its head would read a feature of twice the width.
    assert!(Case::open("dinov2").backbone.head().is_none());
}

/// SigLIP 2 with the tokenizer that it is released with, which keeps case: `generate_siglip2.py` has the rules of its training.
#[test]
fn siglip_and_siglip_2_equal_transformers() {
    for name in ["siglip", "siglip2"] {
        let case = Case::open(name);
        case.check_image();
        case.check_text();
        let text = case.backbone.encode_text(&case.rows(), &Frozen, &Pass::evaluate());
        let found = case.backbone.similarity(&case.image_features(), &text, &Frozen, &Pass::evaluate());
        case.check("logits_per_image", found);
        case.check_round_trip();
    }
    // Filled with a token that does not end texts.
    let case = Case::open("siglip2");
    assert_eq!((case.backbone.tokenizer().eot(), case.backbone.tokenizer().padding().expect("a token")), (1, 0));
}

#[test]
fn a_vit_beside_a_bert_equals_open_clip() {
    let case = Case::open("biomed");
    case.check_image();
    case.check_text();
    let text = case.backbone.encode_text(&case.rows(), &Frozen, &Pass::evaluate());
    let found = case.backbone.similarity(&case.image_features(), &text, &Frozen, &Pass::evaluate());
    case.check("logits_per_image", found);
    case.check_round_trip();
    // Texts are cut where the model cuts them, not where its positions end.
    assert_eq!(case.backbone.spec().text.context, 12);
    for (section, key, value, word) in [
        ("text_cfg", "hf_pooler_type", "cls_pooler", "mean_pooler"),
        ("vision_cfg", "timm_pool", "avg", "class token"),
        ("vision_cfg", "timm_model_name", "vit_huge_patch14_224", "heads of 64"),
        ("vision_cfg", "timm_model_name", "convnext_tiny", "a ViT"),
    ] {
        let folder = copied("parity/families/biomed");
        edit_json(&folder.path().join("open_clip_config.json"), |config| {
            config["model_cfg"][section][key] = value.into();
        });
        let error = open_backbone(folder.path(), &plain()).expect_err("another model").to_string();
        assert!(error.contains(key) && error.contains(value) && error.contains(word), "{error}");
    }
    // Without the key OpenCLIP takes the mean over all tokens.
    let folder = copied("parity/families/biomed");
    edit_json(&folder.path().join("open_clip_config.json"), |config| {
        config["model_cfg"]["vision_cfg"].as_object_mut().expect("a table").remove("timm_pool");
    });
    let error = open_backbone(folder.path(), &plain()).expect_err("another pool").to_string();
    assert!(error.contains("timm_pool") && error.contains("class token"), "{error}");
}

#[test]
fn resnets_of_clip_equal_open_clip() {
    let case = Case::open("resnet");
    case.check("image_features", case.image_features());
    case.check("text_features", case.backbone.encode_text(&case.rows(), &Frozen, &Pass::evaluate()));
    case.check_round_trip();
    // An adapter that begins at the projection goes on from the pooled tokens.
    let partial = case.backbone.start_image(case.pixels(), Entry::Head);
    case.check("image_features", case.backbone.finish(Tower::Image, partial, &Frozen, &Pass::evaluate()));
}

#[test]
fn text_towers_equal_their_references() {
    for name in ["bert", "minilm"] {
        let case = Case::open(name);
        case.check_text();
        assert!(case.backbone.has(Tower::Text) && !case.backbone.has(Tower::Image));
        let refused = case.backbone.pixels(vec![0.0; 3 * 64], [1, 3, 8, 8]).expect_err("it has no image tower");
        assert!(refused.to_string().contains("image tower"), "{refused}");
    }
}

#[test]
fn a_bert_under_the_names_of_old_files_is_the_same() {
    let folder = copied("parity/families/bert");
    edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
        let old = |name: String| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (old(name), tensor)).collect();
        assert!(tensors.keys().any(|name| name.ends_with("attention.output.LayerNorm.gamma")));
    });
    let found = open_backbone(folder.path(), &plain()).expect("a BERT");
    assert_eq!(found.digest(), Case::open("bert").backbone.digest());
}

#[test]
fn a_pooling_of_several_kinds_is_refused() {
    let folder = copied("parity/families/bert");
    let path = folder.path().join("1_Pooling");
    std::fs::create_dir(&path).expect("a writable folder");
    let write = |text: &str| std::fs::write(path.join("config.json"), text).expect("a writable folder");
    write(r#"{"word_embedding_dimension": 24, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": false}"#);
    open_backbone(folder.path(), &plain()).expect("the first token");
    write(r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#);
    let error = open_backbone(folder.path(), &plain()).expect_err("a feature of twice the width").to_string();
    assert!(error.contains("1_Pooling") && error.contains("pooling_mode_max_tokens"), "{error}");
}

#[test]
fn a_layer_behind_the_pooling_is_refused() {
    let folder = copied("parity/families/bert");
    let module = |kind: &str| serde_json::json!({ "type": format!("sentence_transformers.models.{kind}") });
    for (kinds, opens) in
        [(["Transformer", "Pooling", "Normalize"], true), (["Transformer", "Pooling", "Dense"], false)]
    {
        let modules = serde_json::json!(kinds.map(module));
        std::fs::write(folder.path().join("modules.json"), modules.to_string()).expect("a writable folder");
        match open_backbone(folder.path(), &plain()) {
            Ok(_) => assert!(opens, "{kinds:?}"),
            Err(error) => assert!(!opens && error.to_string().contains("Dense"), "{error}"),
        }
    }
}

#[test]
fn a_config_that_cannot_be_met_is_refused_by_name() {
    for (family, key, value, word) in [
        ("vit", "hidden_act", "\"swish\"", "swish"),
        ("vit", "model_type", "\"swinv2\"", "swinv2"),
        ("siglip", "model_type", "\"siglip2\"", "NaFlex"),
        ("vit", "image_size", "\"large\"", "image_size"),
        ("vit", "hidden_size", "25", "25"),
        ("vit", "hidden_act", "5", "hidden_act"),
        ("vit", "layer_norm_eps", "\"1e-6\"", "layer_norm_eps"),
        ("vit", "layer_norm_eps", "-1", "layer_norm_eps"),
        ("dinov2", "use_swiglu_ffn", "true", "use_swiglu_ffn"),
        ("bert", "position_embedding_type", "\"relative_key\"", "position_embedding_type"),
    ] {
        let folder = copied(&format!("parity/families/{family}"));
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        edit_json(&folder.path().join("config.json"), |config| config[key] = value);
        let error = open_backbone(folder.path(), &plain()).expect_err("an impossible config").to_string();
        assert!(error.contains(word), "{family}.{key}: {error}");
    }
}

#[test]
fn merges_that_are_drawn_are_refused() {
    let folder = copied("parity/families/siglip");
    edit_json(&folder.path().join("tokenizer.json"), |file| file["model"]["dropout"] = 0.1.into());
    let error = open_backbone(folder.path(), &plain()).expect_err("ids that differ from call to call").to_string();
    assert!(error.contains("tokenizer.json") && error.contains("dropout"), "{error}");
}

#[test]
fn padding_beyond_the_vocabulary_is_refused() {
    let folder = copied("parity/families/siglip");
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).expect("a file");
    edit_json(&folder.path().join("tokenizer.json"), |file| {
        file["padding"] = serde_json::json!({
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 99_999,
            "pad_type_id": 0, "pad_token": "<other>",
        });
    });
    let error = open_backbone(folder.path(), &plain()).expect_err("no such row").to_string();
    assert!(error.contains("padding token") && error.contains("99999"), "{error}");
}

#[test]
fn a_giant_that_a_config_claims_takes_no_memory() {
    let folder = copied("parity/clip_tiny/quick");
    edit_json(&folder.path().join("config.json"), |config| {
        for (key, value) in [
            ("image_size", 1 << 14),
            ("patch_size", 1),
            ("hidden_size", 1 << 16),
            ("num_hidden_layers", 1 << 10),
            ("intermediate_size", 1 << 20),
        ] {
            config["vision_config"][key] = value.into();
        }
    });
    edit_json(&folder.path().join("preprocessor_config.json"), |config| {
        config["size"] = serde_json::json!({ "shortest_edge": 1 << 14 });
        config["crop_size"] = serde_json::json!({ "height": 1 << 14, "width": 1 << 14 });
    });
    // 64 TiB of positions alone.
    let error = open_backbone(folder.path(), &plain()).expect_err("the tensors are those of a dwarf");
    assert!(matches!(error, Error::Tensor { .. }), "{error}");
}
