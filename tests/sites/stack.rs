//! Three adapters at once: LoRA, CoOp and IA3, against weights and tokens composed by hand.

use inarch_core::backbone::{BlockSite, Entry, Sites, Stack, Tower};
use inarch_peft::{Adapter, CoopConfig};

use super::fold::lora;
use super::ia3::Ia3;
use crate::support::{
    Edits, Reference, Rows, begin, differs, features, layer_name, like_reference, pixels, plain, product, randomised,
    rows, rows_of, tiny,
};

/// Context tokens after the begin token.
struct Context(Rows);

impl Edits for Context {
    fn tokens(&self, at: BlockSite, mut rows: Rows) -> Rows {
        if at == (BlockSite { tower: Tower::Text, block: 0 }) {
            rows[1..=self.0.len()].clone_from_slice(&self.0);
        }
        rows
    }
}

#[test]
fn lora_coop_and_ia3_equal_what_is_composed_by_hand() {
    let device = plain();
    let ia3 = Ia3::random(&device);
    let lora = lora(&["*.k_proj", "*.fc2", "text.*.q_proj"], &device);
    let config = CoopConfig { context: 3, ..CoopConfig::default() };
    let coop = begin(&config, &device).expect("room for three tokens");
    let coop = randomised(coop, 0.5, &device);

    // The first member is the innermost: the gains are on the frozen weight, the update beside them.
    let mut tensors = tiny().state_dict();
    ia3.compose(&mut tensors);
    let parameters = Adapter::Lora(lora.clone()).parameters();
    let rows_named = |name: &str| -> Rows {
        let tensor = &parameters[name];
        tensor.data.chunks(tensor.shape[1]).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
    };
    let scale = 2.0 / 3.0_f64.sqrt();
    let mut updated = 0;
    for site in inarch_peft::all_sites(tiny()) {
        // Lists of blocks are numbered in parameter paths as in site names.
        let name = format!("sites.{site}");
        if !parameters.contains_key(&format!("{name}.a")) {
            continue;
        }
        let update = product(&rows_named(&format!("{name}.a")), &rows_named(&format!("{name}.b")));
        let weight = tensors.get_mut(&format!("{}.weight", layer_name(site))).expect("a canonical name");
        let inputs = weight.shape[1];
        for (at, value) in weight.data.iter_mut().enumerate() {
            *value += (scale * update[at % inputs][at / inputs]) as f32;
        }
        updated += 1;
    }
    assert_eq!(updated, 3 + 2 + 3 + 2 + 2);

    let context = Adapter::Coop(coop.clone()).parameters();
    let context = &context["context"];
    let context = burn::tensor::TensorData::new(context.data.clone(), context.shape.clone());
    let context = Context(rows_of(burn::tensor::Tensor::from_data(context, &device)));
    let expected = Reference::new(tiny().spec(), tensors).features(pixels(3), &rows(), &context);

    // CoOp touches no linear layer: its place does not matter.
    for stack in [Stack(vec![&ia3, &coop, &lora]), Stack(vec![&coop, &ia3, &lora])] {
        assert_eq!((stack.entry(Tower::Image), stack.entry(Tower::Text)), (Entry::Block(0), Entry::Tokens));
        like_reference("stack", features(tiny(), &stack), expected.clone());
    }
    let [right_order, _] = features(tiny(), &Stack(vec![&ia3, &coop, &lora]));
    let [other_order, _] = features(tiny(), &Stack(vec![&lora, &coop, &ia3]));
    differs("order", right_order, other_order);
}

#[test]
fn a_stack_in_a_stack_is_one_long_stack() {
    let device = plain();
    let (ia3, lora) = (Ia3::random(&device), lora(&["*"], &device));
    let vpt = super::vpt::Vpt::random(2, &device);
    let inner = Stack(vec![&lora, &ia3]);
    let nested = features(tiny(), &Stack(vec![&vpt, &inner]));
    crate::support::same_features("nested", nested, features(tiny(), &Stack(vec![&vpt, &lora, &ia3])), 0.0);
}
