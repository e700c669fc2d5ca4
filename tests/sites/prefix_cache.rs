//! What lies before an adapter's entry is computed once: going on from it equals the whole way, bit for bit.

use inarch_core::backbone::{Entry, Frozen, Pass, Sites, Tower};
use inarch_peft::LoraConfig;

use super::fold::lora;
use crate::support::{differs, pixels, plain, rows, same, tiny};

#[test]
fn an_adapter_that_enters_at_block_i_goes_on_from_block_i() {
    let pass = Pass::evaluate();
    for block in 0..tiny().depth(Tower::Image) {
        let adapter = lora(&[&format!("image.blocks.{block}.*")], &plain());
        assert_eq!(adapter.entry(Tower::Image), Entry::Block(block));
        assert_eq!(adapter.entry(Tower::Text), Entry::Never);
        let whole = tiny().finish(Tower::Image, tiny().start_image(pixels(3), Entry::Tokens), &adapter, &pass);
        let cached = tiny().start_image(pixels(3), Entry::Block(block));
        for _ in 0..2 {
            let found = tiny().finish(Tower::Image, cached.clone(), &adapter, &pass);
            same(&format!("image block {block}"), found, whole.clone(), 0.0);
        }
        same("encode", tiny().encode_image(pixels(3), &adapter, &pass), whole.clone(), 0.0);
        differs("adapted", whole, tiny().encode_image(pixels(3), &Frozen, &pass));
    }
    for block in 0..tiny().depth(Tower::Text) {
        let adapter = lora(&[&format!("text.blocks.{block}.*")], &plain());
        assert_eq!(adapter.entry(Tower::Text), Entry::Block(block));
        let whole = tiny().finish(Tower::Text, tiny().start_text(&rows(), Entry::Tokens), &adapter, &pass);
        let cached = tiny().start_text(&rows(), Entry::Block(block));
        same(&format!("text block {block}"), tiny().finish(Tower::Text, cached, &adapter, &pass), whole.clone(), 0.0);
        differs("adapted", whole, tiny().encode_text(&rows(), &Frozen, &pass));
    }
}

#[test]
fn every_stage_before_the_entry_leads_to_the_same_feature() {
    let pass = Pass::evaluate();
    let adapter = lora(&["*.projection"], &plain());
    for tower in [Tower::Image, Tower::Text] {
        assert_eq!(adapter.entry(tower), Entry::Head);
        let start = |entry: Entry| match tower {
            Tower::Image => tiny().start_image(pixels(2), entry),
            Tower::Text => tiny().start_text(&rows(), entry),
        };
        let whole = tiny().finish(tower, start(Entry::Tokens), &adapter, &pass);
        let mut stages: Vec<Entry> = (0..tiny().depth(tower)).map(Entry::Block).collect();
        stages.push(Entry::Head);
        for entry in stages {
            let partial = start(entry);
            assert_eq!(partial.entry, entry);
            same(&format!("{tower} {entry:?}"), tiny().finish(tower, partial, &adapter, &pass), whole.clone(), 0.0);
        }
    }
}

#[test]
fn a_tower_that_is_not_touched_ends_at_its_feature() {
    for entry in [Entry::Feature, Entry::Never] {
        let image = tiny().start_image(pixels(2), entry);
        let text = tiny().start_text(&rows(), entry);
        assert_eq!((image.entry, text.entry), (Entry::Feature, Entry::Feature));
        assert!(image.stream().is_none());
        let pass = Pass::evaluate();
        let expected = tiny().encode_image(pixels(2), &Frozen, &pass);
        same("image", image.into_feature().expect("a feature"), expected, 0.0);
        let expected = tiny().encode_text(&rows(), &Frozen, &pass);
        same("text", text.into_feature().expect("a feature"), expected, 0.0);
    }
}

#[test]
fn texts_of_any_length_in_one_batch_equal_each_text_alone() {
    let pass = Pass::evaluate();
    let adapter = lora(&LoraConfig::default().targets.iter().map(String::as_str).collect::<Vec<_>>(), &plain());
    let together = tiny().encode_text(&rows(), &adapter, &pass);
    for (at, row) in rows().into_iter().enumerate() {
        let alone = tiny().encode_text(&[row], &adapter, &pass);
        same("text", together.clone().narrow(0, at, 1), alone, 1e-6);
    }
}
