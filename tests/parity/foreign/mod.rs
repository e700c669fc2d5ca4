//! Adapter files of other programs score here as they do there; `generate.py` beside this file wrote the files, and the
//! scores by an implementation in PyTorch.

mod hostile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Pass, normalise, values};
use inarch_core::text::Template;
use inarch_peft::{Artifact, Import, ImportFormat, import, write_peft};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::{classes, close, copied, edit_tensors, fixture, plain, tiny};

fn file(name: &str) -> PathBuf {
    fixture(&format!("parity/foreign/{name}"))
}

/// What is given beside a file.
#[derive(Default)]
struct Given<'a> {
    classes: Vec<String>,
    templates: Vec<&'a str>,
    settings: Map<String, Value>,
}

fn with(settings: Value) -> Given<'static> {
    Given { settings: settings.as_object().expect("an object").clone(), ..Given::default() }
}

fn read_beside(format: ImportFormat, path: &Path, given: &Given<'_>, backbone: &Backbone) -> Result<Artifact, String> {
    let templates = given.templates.iter().map(|text| Template::new(text).expect("a template"));
    let templates: Vec<Template> = templates.collect();
    let templates =
        if templates.is_empty() { vec![Template::new("a photo of a {}.").expect("one")] } else { templates };
    let source = Import { path, backbone, classes: &given.classes, templates: &templates, settings: &given.settings };
    import(format, &source).map_err(|error| error.to_string())
}

fn read(format: ImportFormat, path: &Path, given: &Given<'_>) -> Result<Artifact, String> {
    read_beside(format, path, given, tiny())
}

/// Scores of the generator's images for the four classes.
fn scores(artifact: &Artifact) -> Vec<f32> {
    let size = tiny().spec().image.size;
    let pixels: Vec<f32> = (1..=9 * size * size).map(|i| (0.37 * i as f64).sin() as f32).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [3, 3, size, size]), &plain());
    let (own, named) = (&artifact.manifest.classes, classes());
    let classifier = artifact.classifier(tiny(), Some(if own.is_empty() { &named } else { own })).expect("plain names");
    let (sites, pass) = (artifact.adapter.sites(), Pass::evaluate());
    let image = tiny().encode_image(pixels, sites, &pass);
    let condition = normalise(image.clone());
    let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..pass };
    let text = classifier.text(classifier.start(sites), sites, &pass);
    values(classifier.logits(&image, &text, sites, &pass))
}

#[test]
fn adapters_of_other_programs_score_as_they_do_there() {
    use ImportFormat::{ClipLora, Coop, Kohya, Maple, PromptSrc, TipAdapter};
    let tip = || Given {
        classes: classes(),
        templates: vec!["a {}", "a photo of a {}."],
        ..with(json!({ "alpha": 20.0, "beta": 5.0 }))
    };
    let cases: Vec<(&str, ImportFormat, &str, &str, Given<'_>)> = vec![
        ("coop", Coop, "coop.pth.tar", "coop", Given::default()),
        ("coop", Coop, "coop-old.pth.tar", "coop", Given { classes: classes(), ..Given::default() }),
        ("coop-front", Coop, "coop.pth.tar", "coop", with(json!({ "class_position": "front" }))),
        ("coop-specific", Coop, "coop-specific.pth.tar", "coop", Given::default()),
        ("cocoop", Coop, "cocoop.pth.tar", "cocoop", Given::default()),
        ("kgcoop", Coop, "kgcoop.pth.tar", "kgcoop", Given::default()),
        ("maple", Maple, "maple.pth.tar", "maple", Given::default()),
        ("ivlp", PromptSrc, "ivlp.pth.tar", "ivlp", Given::default()),
        (
            "promptsrc",
            PromptSrc,
            "promptsrc.pth.tar",
            "promptsrc",
            // Longer templates would not fit into a context of twenty tokens.
            Given { classes: classes(), ..with(json!({ "templates": 4 })) },
        ),
        ("vpt", PromptSrc, "vpt.pth.tar", "vpt-deep", Given { classes: classes(), ..Given::default() }),
        ("clip-lora", ClipLora, "lora_weights.pt", "lora", Given { classes: classes(), ..Given::default() }),
        ("tip-adapter", TipAdapter, "keys_2shots.pt", "tip-adapter", tip()),
        ("tip-adapter-f", TipAdapter, "best_F_2shots.pt", "tip-adapter-f", tip()),
        ("kohya-lora", Kohya, "kohya-lora.safetensors", "lora", Given { classes: classes(), ..Given::default() }),
        ("kohya-lora", Kohya, "kohya-unet.safetensors", "lora", with(json!({ "text_only": true }))),
        ("lycoris-dora", Kohya, "lycoris-dora.safetensors", "dora", Given { classes: classes(), ..Given::default() }),
        ("lycoris-loha", Kohya, "lycoris-loha.safetensors", "loha", Given::default()),
        ("lycoris-lokr", Kohya, "lycoris-lokr.safetensors", "lokr", Given::default()),
        ("lycoris-lokr-whole", Kohya, "lycoris-lokr-whole.safetensors", "lokr", Given::default()),
    ];
    let expected: BTreeMap<String, Vec<f32>> =
        serde_json::from_slice(&std::fs::read(file("expected.json")).expect("a fixture")).expect("scores");
    let mut seen = Vec::new();
    for (case, format, name, method, given) in cases {
        let artifact = read(format, &file(name), &given).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(artifact.manifest.method.name(), method, "{case}");
        close(case, &scores(&artifact), &expected[case], 1e-5);
        // Files of the CoOp family tell their classes; others are told.
        let known = matches!(format, Coop | Maple) || ["ivlp", "promptsrc"].contains(&case);
        let read = ["cat", "dog", "red hat", "x ray"].map(String::from).to_vec();
        let expected = if known && given.classes.is_empty() { read } else { given.classes };
        assert_eq!(artifact.manifest.classes, expected, "{case}");
        let target = tempfile::tempdir().expect("a folder");
        artifact.save(target.path()).expect("a writable folder");
        let loaded = Artifact::load(target.path(), tiny()).expect("an artifact");
        loaded.self_test(tiny()).expect("what was just read");
        seen.push(case);
    }
    assert!(expected.keys().all(|case| seen.contains(&case.as_str())), "a case is not read");
}

#[test]
fn what_is_read_can_be_handed_on_to_peft() {
    for name in ["kohya-lora.safetensors", "lycoris-dora.safetensors", "lycoris-loha.safetensors"] {
        let artifact = read(ImportFormat::Kohya, &file(name), &Given::default()).expect("a fixture");
        let target = tempfile::tempdir().expect("a folder");
        write_peft(&artifact, tiny(), target.path()).expect("a writable folder");
        let again = read(ImportFormat::Peft, target.path(), &Given::default()).expect("a folder of PEFT");
        assert_eq!(scores(&again), scores(&artifact), "{name}");
    }
}

#[track_caller]
fn refused(format: ImportFormat, path: &Path, given: &Given<'_>, words: &[&str]) {
    let message = read(format, path, given).map(|_| ()).expect_err("a file that must be refused");
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

#[test]
fn a_file_of_another_backbone_is_refused() {
    let folder = copied("parity/clip_tiny/quick");
    edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
        for name in ["text_model.embeddings.token_embedding.weight", "vision_model.encoder.layers.0.mlp.fc1.weight"] {
            tensors.get_mut(name).expect("a weight").data.iter_mut().for_each(|value| *value *= 1.05);
        }
    });
    let other = inarch_core::checkpoint::open_backbone(folder.path(), &plain()).expect("a backbone");
    for (format, name, words) in [
        (ImportFormat::Coop, "coop.pth.tar", "token table"),
        (ImportFormat::Maple, "maple.pth.tar", "token table"),
        (ImportFormat::PromptSrc, "vpt.pth.tar", "mlp.c_fc.weight"),
    ] {
        let message = read_beside(format, &file(name), &Given::default(), &other).map(|_| ()).expect_err("another one");
        assert!(message.contains("refused") && message.contains(words), "{message}");
    }
}

#[test]
fn what_is_given_must_be_what_the_file_means() {
    let named = |names: &[&str]| Given { classes: names.iter().map(ToString::to_string).collect(), ..Given::default() };
    let coop = file("coop.pth.tar");
    refused(ImportFormat::Coop, &coop, &named(&["cat", "dog"]), &["4 classes", "found 2"]);
    refused(ImportFormat::Coop, &coop, &named(&["dog", "cat", "red hat", "x ray"]), &["class 1", "dog", "cat"]);
    refused(ImportFormat::Coop, &coop, &with(json!({ "class_place": "front" })), &["coop", "class_place"]);
    refused(
        ImportFormat::Maple,
        &file("maple.pth.tar"),
        &with(json!({ "words": "a drawing of a" })),
        &["a drawing of a {}", "hoto of a cat"],
    );
    refused(ImportFormat::TipAdapter, &file("keys_2shots.pt"), &Given::default(), &["4 names", "labels"]);
    refused(ImportFormat::TipAdapter, &file("values_2shots.pt"), &Given::default(), &["keys_Kshots.pt"]);
    refused(ImportFormat::Kohya, &file("kohya-unet.safetensors"), &Given::default(), &["lora_unet_", "text_only=true"]);
    refused(ImportFormat::Peft, &file("."), &with(json!({ "rank": 1 })), &["rank"]);
}

#[test]
fn a_file_of_another_kind_is_named() {
    for (format, name, words) in [
        (ImportFormat::Coop, "maple.pth.tar", &["token_prefix", "missing"][..]),
        (ImportFormat::Maple, "ivlp.pth.tar", &["prompt_learner.proj.weight", "missing"]),
        (ImportFormat::PromptSrc, "maple.pth.tar", &["image_encoder.VPT", "missing"]),
        (ImportFormat::ClipLora, "coop.pth.tar", &["`weights` and `metadata`"]),
        (ImportFormat::Coop, "keys_2shots.pt", &["dictionary"]),
        (ImportFormat::Coop, "kohya-lora.safetensors", &["no PyTorch file"]),
        (ImportFormat::Kohya, "coop.pth.tar", &["safetensors"]),
    ] {
        refused(format, &file(name), &Given::default(), words);
    }
}

/// A copy of a file of PyTorch in which one text, a key of its dictionaries or a setting, is another one of that length.
fn respelled(name: &str, text: &str, other: &str) -> (TempDir, PathBuf) {
    assert_eq!(text.len(), other.len());
    let mut bytes = std::fs::read(file(name)).expect("a fixture");
    let pickled = [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&pickled)).collect();
    let [at] = places[..] else { panic!("`{text}` stands in `{name}` at {places:?}") };
    bytes[at + 5..at + pickled.len()].copy_from_slice(other.as_bytes());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a writable folder");
    (folder, path)
}

#[test]
fn no_tensor_of_a_pytorch_file_is_passed_over() {
    use ImportFormat::{ClipLora, Coop, Maple, PromptSrc};
    // Each change leaves a file of the format, with tensors that have no place in it.
    let deep =
        ["image_encoder.transformer.resblocks.2.VPT_shallow", "image_encoder.transformer.resblocks.2.VPT_shallop"];
    let cases = [
        (
            Coop,
            "cocoop.pth.tar",
            ["meta_net.linear1.weight", "meta_net.linear1.weighs"],
            "`meta_net.linear1.bias` belongs",
        ),
        (ClipLora, "lora_weights.pt", ["o", "z"], "`layer_0.proj.w_lora_A` belongs"),
        (
            Maple,
            "maple.pth.tar",
            ["prompt_learner.compound_prompts_text.0", "prompt_learner.compound_prompts_text.1"],
            "prompt_learner.compound_prompt",
        ),
        (PromptSrc, "promptsrc.pth.tar", deep, deep[1]),
        (PromptSrc, "ivlp.pth.tar", deep, deep[1]),
        (PromptSrc, "vpt.pth.tar", deep, deep[1]),
    ];
    for (format, name, [text, other], words) in cases {
        let (_folder, path) = respelled(name, text, other);
        refused(format, &path, &with(json!({})), &[name, words]);
    }
}

#[test]
fn no_tensor_of_a_kohya_file_is_passed_over() {
    let changed = |edit: &dyn Fn(&mut inarch_core::backbone::StateDict)| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lora.safetensors");
        std::fs::copy(file("kohya-lora.safetensors"), &path).expect("a writable folder");
        edit_tensors(&path, |tensors| edit(tensors));
        (folder, path)
    };
    let key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    let add = |name: &str, like: &str| {
        let (name, like) = (format!("{key}.{name}"), format!("{key}.{like}"));
        changed(&move |tensors| {
            let tensor = tensors[&like].clone();
            tensors.insert(name.clone(), tensor);
        })
    };
    let (_folder, path) = add("lora_mid.weight", "lora_down.weight");
    refused(ImportFormat::Kohya, &path, &Given::default(), &["lora_mid.weight"]);
    let (_folder, path) = add("dora_scale", "lora_down.weight");
    refused(ImportFormat::Kohya, &path, &Given::default(), &["dora_scale", "wd_on_out"]);
    let (_folder, path) = changed(&|tensors| drop(tensors.remove(&format!("{key}.lora_up.weight"))));
    refused(ImportFormat::Kohya, &path, &Given::default(), &["lora_up.weight", "missing"]);
    let (_folder, path) = changed(&|tensors| {
        tensors.get_mut(&format!("{key}.lora_up.weight")).expect("a factor").data[0] = f32::NAN;
    });
    refused(ImportFormat::Kohya, &path, &Given::default(), &["NaN"]);
    let (_folder, path) = changed(&|tensors| {
        let tensor = tensors.remove(&format!("{key}.lora_up.weight")).expect("a factor");
        tensors.insert(format!("{key}.lokr_w1"), tensor.clone());
        tensors.insert(format!("{key}.lokr_w2"), tensor);
        tensors.remove(&format!("{key}.lora_down.weight"));
    });
    refused(ImportFormat::Kohya, &path, &Given::default(), &["kind of", "LoKr"]);
}
