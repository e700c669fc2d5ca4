//! Models in which images and texts meet before there is a score equal their reference implementations; `generate.py` beside this
//! file made the expected numbers. Tolerance as in `clip_tiny`.

mod methods;

use std::ops::Deref;
use std::sync::Mutex;

use burn::tensor::Tensor;
use inarch_core::backbone::{BlockSite, BranchSite, Cross, Entry, Frozen, Pairing, Pass, Sites, Tower, values};
use inarch_core::checkpoint::{open_backbone, read_safetensors};
use inarch_peft::{read_peft, write_peft};
use inarch_recipes::CaptionSearch;

use crate::parity::reference::Reference;
use crate::support::{close, copied, edit_json, edit_tensors, fixture, plain};

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
        Self(Reference::open("crossing", name))
    }

    /// The rows of a tensor of ids, cut behind their end.
    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let (ids, mask) = (&self.expected[name], &self.expected["mask"]);
        let width = ids.shape[1];
        let cut = |(row, mask): (&[f32], &[f32])| {
            row.iter().zip(mask).filter(|(_, seen)| **seen > 0.0).map(|(id, _)| *id as u32).collect()
        };
        ids.data.chunks(width).zip(mask.data.chunks(width)).map(cut).collect()
    }

    /// Token rows as our tokenizer gives them.
    pub(super) fn rows(&self) -> Vec<Vec<u32>> {
        self.backbone.tokenize(&self.texts).expect("plain texts")
    }

    #[track_caller]
    fn check<const D: usize>(&self, name: &str, found: Tensor<D>) {
        close(&format!("{} {name}", self.name), &values(found), &self.expected[name].data, TOLERANCE);
    }

    pub(super) fn image(&self) -> Tensor<2> {
        self.backbone.encode_image(self.pixels(), &Frozen, &Pass::evaluate())
    }

    pub(super) fn scores(&self, sites: &dyn Sites) -> Tensor<2> {
        let image = self.backbone.encode_image(self.pixels(), sites, &Pass::evaluate());
        self.backbone.cross(&image, &self.rows(), sites, &Pass::evaluate())
    }

    /// What enters each block of the text tower, on the texts' own tokens and those of the image.
    fn check_blocks(&self) {
        let watch = Watch::default();
        let _ = self.scores(&watch);
        let streams = watch.0.into_inner().expect("no panic");
        assert_eq!(streams.len(), self.backbone.depth(Tower::Text));
        let (lengths, texts) = (self.rows(), self.texts.len());
        for (block, found) in streams {
            let expected = &self.expected[&format!("text.hidden.{block}")];
            let [pairs, tokens, width] = found.dims();
            assert_eq!(expected.shape, [pairs, tokens, width], "{} block {block}", self.name);
            let longest = lengths.iter().map(Vec::len).max().expect("texts");
            let found = values(found);
            for pair in 0..pairs {
                // What stands behind a text is nobody's business.
                let own = lengths[pair % texts].len();
                for token in (0..own).chain(longest..tokens) {
                    let at = (pair * tokens + token) * width;
                    let what = format!("{} block {block} pair {pair} token {token}", self.name);
                    close(&what, &found[at..at + width], &expected.data[at..at + width], TOLERANCE);
                }
            }
        }
    }
}

/// Keeps what enters the blocks of the text tower.
#[derive(Default)]
struct Watch(Mutex<Vec<(usize, Tensor<3>)>>);

impl Sites for Watch {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Tokens
    }

    fn needs_all_tokens(&self, _tower: Tower) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at.tower == Tower::Text && at.block > 0 {
            self.0.lock().expect("no panic").push((at.block, tokens.clone()));
        }
        tokens
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        // Block 0's token site stands before the positions; its stream is met here.
        if let BranchSite::Attention(BlockSite { tower: Tower::Text, block: 0 }) = at {
            self.0.lock().expect("no panic").push((0, input.clone()));
        }
        output
    }
}

#[test]
fn a_captioner_equals_transformers() {
    let case = Case::open("blip");
    let begun: Vec<Vec<u32>> = case.ids("input_ids");
    let start = case.backbone.spec().crossing.as_ref().and_then(|crossing| crossing.start);
    assert_eq!(start, Some(begun[0][0]));
    let ours = case.rows();
    assert!(ours.iter().zip(&begun).all(|(ours, theirs)| ours[1..] == theirs[1..]));
    for block in 0..case.backbone.depth(Tower::Image) {
        let partial = case.backbone.start_image(case.pixels(), Entry::Block(block));
        case.check(&format!("vision.hidden.{block}"), partial.stream().expect("tokens"));
        case.check("image_tokens", case.backbone.finish(Tower::Image, partial, &Frozen, &Pass::evaluate()));
    }
    case.check_blocks();
    case.check("scores", case.scores(&Frozen));
    // The loss of captions: the mean over all words of the batch.
    let captions = Cross::captions(&case.backbone, &ours[..3]);
    let words: usize = captions.words().iter().sum();
    let told = case.backbone.likelihood(&case.image(), &captions, Pairing::Own, &Frozen, &Pass::evaluate());
    case.check("loss", told.sum().neg() / words as f64);
    case.check_round_trip();
}

#[test]
fn captions_are_those_of_transformers() {
    let case = Case::open("blip");
    let (image, greedy) = (case.image(), &case.expected["greedy"]);
    let search = CaptionSearch { beams: 1, words: 8 };
    for (row, expected) in greedy.data.chunks(greedy.shape[1]).enumerate() {
        // Behind the start, up to what fills the row.
        let ids: Vec<u32> = expected[1..].iter().map(|id| *id as u32).take_while(|id| *id != 0).collect();
        let one = image.clone().narrow(0, row, 1);
        let found = search.caption(&case.backbone, &one, &Frozen).expect("a captioner");
        assert_eq!(found.text, case.backbone.tokenizer().decode(&ids), "image {row}");
        let wide = CaptionSearch { beams: 4, words: 8 }.caption(&case.backbone, &one, &Frozen).expect("a captioner");
        assert!(wide.log_likelihood.is_finite() && wide.log_likelihood < 0.0);
    }
    let refused = search.caption(&Case::open("vilt").backbone, &image, &Frozen).expect_err("it writes nothing");
    assert!(refused.to_string().contains("such as BLIP"), "{refused}");
}

#[test]
fn one_stream_equals_transformers() {
    let case = Case::open("vilt");
    assert_eq!(case.rows(), case.ids("input_ids"));
    assert_eq!(case.backbone.depth(Tower::Image), 0);
    case.check_blocks();
    case.check("scores", case.scores(&Frozen));
    case.check_round_trip();
}

#[test]
fn masked_words_equal_transformers() {
    let case = Case::open("vilt_words");
    case.check("scores", case.scores(&Frozen));
    let (ids, labels) = (&case.expected["masked_ids"], &case.expected["labels"]);
    let width = ids.shape[1];
    let lengths: Vec<usize> = case.rows().iter().map(Vec::len).collect();
    let mut rows: Vec<Vec<u32>> = ids.data.chunks(width).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    rows.iter_mut().zip(&lengths).for_each(|(row, length)| row.truncate(*length));
    let asked = |row: &[f32]| {
        row.iter().enumerate().filter(|(_, id)| **id >= 0.0).map(|(place, id)| (place, *id as u32)).collect::<Vec<_>>()
    };
    let asked: Vec<_> = labels.data.chunks(width).map(asked).collect();
    let words: usize = asked.iter().map(Vec::len).sum();
    let texts = Cross::new(rows, asked);
    let told = case.backbone.likelihood(&case.image(), &texts, Pairing::Own, &Frozen, &Pass::evaluate());
    case.check("loss", told.sum().neg() / words as f64);
    case.check_round_trip();
}

#[test]
fn a_lora_of_peft_on_the_attention_to_images_is_read_and_written() {
    let case = Case::open("blip");
    let folder = fixture("parity/crossing/lora");
    let (expected, _) = read_safetensors(&folder.join("expected.safetensors")).expect("a fixture");
    let artifact = read_peft(&folder, &case.backbone).expect("a folder of PEFT");
    let names: Vec<String> = artifact.adapter.parameters().into_keys().collect();
    for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
        let name = format!("sites.text.blocks.1.cross.{projection}.a");
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let found = case.scores(artifact.adapter.sites());
    close("scores under a LoRA", &values(found.clone()), &expected["scores"].data, TOLERANCE);
    let frozen = values(case.scores(&Frozen));
    assert!(frozen.iter().zip(values(found)).any(|(frozen, adapted)| (frozen - adapted).abs() > 0.1));

    let target = tempfile::tempdir().expect("a folder");
    write_peft(&artifact, &case.backbone, target.path()).expect("a writable folder");
    let again = read_peft(target.path(), &case.backbone).expect("what was written");
    close("written", &values(case.scores(again.adapter.sites())), &expected["scores"].data, TOLERANCE);
    assert_eq!(names, again.adapter.parameters().into_keys().collect::<Vec<_>>());
}

#[test]
fn parts_of_pairs_are_those_of_the_whole() {
    for name in ["blip", "vilt", "vilt_words"] {
        let case = Case::open(name);
        let (image, rows, pass) = (case.image(), case.rows(), Pass::evaluate());
        let whole = values(case.backbone.cross(&image, &rows, &Frozen, &pass));
        for row in 0..3 {
            for (text, tokens) in rows.iter().enumerate() {
                let one = image.clone().narrow(0, row, 1);
                let found = case.backbone.cross(&one, std::slice::from_ref(tokens), &Frozen, &pass);
                close(&format!("{name} {row} {text}"), &values(found), &[whole[row * rows.len() + text]], TOLERANCE);
            }
        }
    }
}

#[test]
fn folders_that_cannot_be_met_are_refused_by_name() {
    for (family, key, value, word) in [
        ("blip", "text_config/hidden_size", "21", "hidden_size"),
        ("blip", "text_config/bos_token_id", "99", "bos_token_id"),
        ("blip", "vision_config/image_size", "32", "32"),
        ("vilt", "hidden_act", "\"swish\"", "swish"),
        ("vilt", "vocab_size", "7", "vocabulary"),
        ("vilt", "position_embedding_type", "\"relative_key\"", "position_embedding_type"),
    ] {
        let folder = copied(&format!("parity/crossing/{family}"));
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        edit_json(&folder.path().join("config.json"), |config| {
            let mut place = config;
            for part in key.split('/') {
                place = &mut place[part];
            }
            *place = value;
        });
        let error = open_backbone(folder.path(), &plain()).expect_err("an impossible config").to_string();
        assert!(error.contains(word), "{family}.{key}: {error}");
    }
    for (family, tensor, word) in [
        ("blip", "text_decoder.bert.encoder.layer.1.crossattention.self.key.weight", "cross_attn.k_proj.weight"),
        ("blip", "text_decoder.cls.predictions.transform.dense.bias", "word_head.dense.bias"),
        ("vilt", "rank_output.weight", "rank_output"),
        ("vilt", "vilt.pooler.dense.weight", "match_head.pooler.weight"),
        ("vilt_words", "vilt.embeddings.token_type_embeddings.weight", "token_type_embeddings"),
    ] {
        let folder = copied(&format!("parity/crossing/{family}"));
        edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
            assert!(tensors.remove(tensor).is_some(), "{tensor}");
        });
        let error = open_backbone(folder.path(), &plain()).expect_err("a tensor is missing").to_string();
        assert!(error.contains(word), "{family} without {tensor}: {error}");
        let folder = copied(&format!("parity/crossing/{family}"));
        edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
            let tensor = tensors.get_mut(tensor).expect("it is there");
            tensor.shape[0] += 1;
            let more: usize = tensor.shape[1..].iter().product();
            tensor.data.resize(tensor.data.len() + more, 0.0);
        });
        if !tensor.contains("token_type") {
            let error = open_backbone(folder.path(), &plain()).expect_err("a tensor of another shape").to_string();
            assert!(error.contains("shape"), "{family} with another {tensor}: {error}");
        }
    }
}

#[test]
fn a_decoder_that_shares_its_matrix_may_leave_it_out() {
    let opened = |keeps: bool| {
        let folder = copied("parity/crossing/vilt_words");
        edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
            let words = tensors["vilt.embeddings.text_embeddings.word_embeddings.weight"].clone();
            tensors.insert("mlm_score.decoder.weight".into(), words);
            for name in ["mlm_score.decoder.weight", "mlm_score.decoder.bias"] {
                if !keeps {
                    tensors.remove(name);
                }
            }
        });
        open_backbone(folder.path(), &plain()).expect("a backbone")
    };
    assert_eq!(opened(true).digest(), opened(false).digest());
}
