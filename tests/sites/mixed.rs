//! One batch whose rows use different adapters, of kinds that the backbone does not know.

use inarch_core::backbone::{Frozen, Mixed, Pass, Sites};
use inarch_peft::{LoraConfig, LoraInit, MethodConfig};

use super::bottleneck::Bottleneck;
use super::dora::Dora;
use super::fold::lora;
use super::ia3::Ia3;
use super::ssf::Ssf;
use super::sublayer::{Wrap, beside};
use super::vpt::Vpt;
use crate::contract::case::fresh;
use crate::support::{differs, pixels, plain, randomised, rows, same, tiny};

/// Compares a mixed batch with each member's rows alone.
fn check(what: &str, members: &[(usize, &dyn Sites)]) {
    let mut ranges = Vec::new();
    let mut next = 0;
    for (count, member) in members {
        ranges.push((next..next + count, *member));
        next += count;
    }
    let mixed = Mixed::new(members.to_vec(), members.to_vec());
    let pass = Pass::evaluate();
    let images = pixels(next);
    let texts: Vec<Vec<u32>> = rows().into_iter().cycle().take(next).collect();
    let image = tiny().encode_image(images.clone(), &mixed, &pass);
    let text = tiny().encode_text(&texts, &mixed, &pass);
    for (rows, member) in ranges {
        for row in rows {
            let alone = tiny().encode_image(images.clone().narrow(0, row, 1), member, &pass);
            same(&format!("{what}: image {row}"), image.clone().narrow(0, row, 1), alone, 1e-5);
            let alone = tiny().encode_text(&texts[row..=row], member, &pass);
            same(&format!("{what}: text {row}"), text.clone().narrow(0, row, 1), alone, 1e-5);
        }
    }
    differs(what, image, tiny().encode_image(images, &Frozen, &pass));
}

#[test]
fn every_row_is_adapted_by_its_own_adapter() {
    let device = plain();
    let (lora, ia3) = (lora(&["*.q_proj", "*.v_proj"], &device), Ia3::random(&device));
    let (dora, ssf) = (Dora::random(&device), Ssf::random(&device));
    let bottleneck = Bottleneck::random(true, &device);
    check("sites of all kinds", &[(1, &lora), (2, &ia3), (1, &Frozen), (1, &dora), (1, &ssf), (2, &bottleneck)]);
}

#[test]
fn low_rank_products_of_several_ranks_share_a_batch() {
    let device = plain();
    let lora = |rank: usize, alpha: f64, seed: u64, init: LoraInit| {
        let targets = ["*.q_proj", "*.fc1", "image.projection"].map(String::from).to_vec();
        let config = MethodConfig::Lora(LoraConfig { rank, alpha, targets, init, ..LoraConfig::default() });
        randomised(fresh(&config, seed, &device), 0.5, &device)
    };
    let [first, second, third] =
        [(2, 3.0, 1), (2, 5.0, 2), (4, 1.0, 3)].map(|(r, a, s)| lora(r, a, s, LoraInit::Kaiming));
    let origin = lora(2, 3.0, 4, LoraInit::Pissa);
    let ia3 = Ia3::random(&device);
    check("ranks", &[(1, &first), (2, &second), (1, &Frozen), (2, &third), (1, &first), (1, &origin), (2, &ia3)]);
}

#[test]
fn adapters_that_enter_late_share_a_batch_with_those_that_enter_early() {
    let device = plain();
    let (late, early) = (lora(&["*.projection"], &device), Ssf::random(&device));
    check("entries", &[(2, &late), (1, &early)]);
}

#[test]
fn rows_whose_sublayers_are_wrapped_share_a_batch() {
    let device = plain();
    let (lora, wrap) = (lora(&["*.q_proj", "*.v_proj"], &device), Wrap(beside));
    check("sublayers", &[(1, &lora), (2, &wrap), (1, &Frozen), (1, &lora), (1, &wrap)]);
}

#[test]
fn prompts_of_one_length_share_a_batch() {
    // Of several lengths they cannot: rows of one tensor have one number of tokens.
    let device = plain();
    let (left, right) = (Vpt::named("left", 2, &device), Vpt::named("right", 2, &device));
    check("prompts", &[(2, &left), (1, &right)]);
}
