//! ALIGN: an EfficientNet beside a BERT, block by block, and what its tower without transformer blocks refuses.

use inarch_core::backbone::{DualEncoder, Embedding, Entry, Frozen, Pass, TrunkSpec, values};
use inarch_core::checkpoint::open_backbone;
use inarch_core::image::Preprocess;

use super::Case;
use crate::support::{close, copied, edit_json, edit_tensors, fixture, plain};

#[test]
fn align_equals_transformers() {
    let case = Case::open("align");
    case.check("image_features", case.image_features());
    case.check_text();
    let text = case.backbone.encode_text(&case.rows(), &Frozen, &Pass::evaluate());
    let found = case.backbone.similarity(&case.image_features(), &text, &Frozen, &Pass::evaluate());
    case.check("logits_per_image", found);
    case.check_round_trip();
    // The temperature of the checkpoint is what scores are divided by.
    close("logit scale", &[case.backbone.logit_scale()], &[1.0 / 0.07], 1e-5);
    // What is stored short of a feature goes on to the same feature.
    for entry in [Entry::Tokens, Entry::Head, Entry::Pool] {
        let partial = case.backbone.start_image(case.pixels(), entry);
        let found = case.backbone.finish(inarch_core::backbone::Tower::Image, partial, &Frozen, &Pass::evaluate());
        case.check("image_features", found);
    }
}

#[test]
fn every_block_of_the_efficient_net_equals_transformers() {
    let case = Case::open("align");
    let spec = case.backbone.spec();
    let path = fixture("parity/families/align");
    let model =
        DualEncoder::from_state_dict(spec, case.backbone.state_dict(), &path, &plain()).expect("its own tensors");
    let image = model.image.expect("an image tower");
    let (Embedding::EfficientNet(trunk), Some(TrunkSpec::EfficientNet(sizes))) =
        (&image.embedding, &spec.image.style.trunk)
    else {
        panic!("ALIGN has an EfficientNet");
    };
    let mut map = trunk.begin(case.pixels());
    case.check("vision.map.0", map.clone());
    assert_eq!(trunk.blocks.len(), 7);
    for (number, (block, sizes)) in trunk.blocks.iter().zip(&sizes.blocks).enumerate() {
        map = block.forward(sizes, map);
        case.check(&format!("vision.map.{}", number + 1), map.clone());
    }
}

#[test]
fn pixels_equal_those_of_its_image_processor() {
    let case = Case::open("align");
    let picture = &case.expected["picture"];
    let bytes = picture.data.iter().map(|value| *value as u8).collect();
    let picture =
        image::RgbImage::from_raw(picture.shape[1] as u32, picture.shape[0] as u32, bytes).expect("a picture");
    let folder = copied("parity/families/align");
    let path = folder.path().join("preprocessor_config.json");
    let check = |name: &str| {
        let preprocess = Preprocess::from_hf(&path).expect("a processor that is known");
        let found = preprocess.pixels(&picture).expect("an image");
        // One grey level is 1/127.5, and four times that where it is divided by the deviation twice.
        let levels = if name == "prepared" { 1.0 } else { 4.0 };
        let expected = &case.expected[name].data;
        let worst = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && worst < levels * 1.001 / 127.5, "{name}: {worst}");
        let mean = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).sum::<f32>();
        assert!(mean / (found.len() as f32) < levels * 0.02 / 127.5, "{name}: {mean}");
    };
    check("prepared");
    edit_json(&path, |config| {
        config["do_normalize"] = true.into();
        config["include_top"] = true.into();
    });
    check("prepared_twice");
}

#[test]
fn an_align_that_cannot_be_is_refused_by_name() {
    for (section, key, value, word) in [
        ("vision_config", "hidden_act", "\"relu\"", "swish"),
        ("vision_config", "pooling_type", "\"median\"", "median"),
        ("vision_config", "strides", "[1, 2]", "equally long"),
        ("vision_config", "strides", "[1, 3, 2]", "trunk of the image tower"),
        ("vision_config", "kernel_sizes", "[3, 4, 3]", "trunk of the image tower"),
        ("vision_config", "in_channels", "[32, 32, 24]", "in_channels"),
        ("vision_config", "num_block_repeats", "[1, 4000, 4000]", "blocks"),
        ("vision_config", "depth_coefficient", "1e300", "blocks"),
        ("vision_config", "out_channels", "[16, 24, 80]", "projection_dim"),
        ("text_config", "position_embedding_type", "\"relative_key\"", "position_embedding_type"),
        ("vision_config", "expand_ratios", "[2, 4, 6]", "expand"),
    ] {
        let folder = copied("parity/families/align");
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        edit_json(&folder.path().join("config.json"), |config| config[section][key] = value);
        let error = open_backbone(folder.path(), &plain()).expect_err("another model").to_string();
        assert!(error.contains(word), "{key}: {error}");
    }
    for (name, data, word) in
        [("temperature", vec![0.0], "above 0"), ("text_projection.bias", vec![1.0], "text_projection")]
    {
        let folder = copied("parity/families/align");
        edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
            let tensor = tensors.get_mut(name).expect("a tensor");
            tensor.shape = if name == "temperature" { vec![] } else { vec![data.len()] };
            tensor.data = data;
        });
        let error = open_backbone(folder.path(), &plain()).expect_err("damaged").to_string();
        assert!(error.contains(word), "{name}: {error}");
    }
    let folder = copied("parity/families/align");
    edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
        tensors.remove("vision_model.encoder.blocks.2.expansion.expand_bn.running_var");
    });
    let error = open_backbone(folder.path(), &plain()).expect_err("a missing tensor").to_string();
    assert!(error.contains("running_var") && error.contains("blocks.2.expand"), "{error}");
}

#[test]
fn the_greatest_value_of_a_map_is_pooled_where_the_config_says_so() {
    let mean = Case::open("align");
    let folder = copied("parity/families/align");
    edit_json(&folder.path().join("config.json"), |config| config["vision_config"]["pooling_type"] = "max".into());
    let greatest = open_backbone(folder.path(), &plain()).expect("a backbone");
    assert_ne!(greatest.digest(), mean.backbone.digest());
    let last = &mean.expected["vision.map.7"];
    let places: usize = last.shape[2..].iter().product();
    let expected: Vec<f32> =
        last.data.chunks(places).map(|map| map.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    let found = greatest.encode_image(mean.pixels(), &Frozen, &Pass::evaluate());
    close("the greatest values", &values(found), &expected, 1e-4);
}
