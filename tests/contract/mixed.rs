//! A batch of images whose rows use different adapters gives each row what it gets alone.

use burn::tensor::Tensor;
use inarch_core::backbone::{Frozen, Mixed, Pass, Sites};
use inarch_peft::{MethodConfig, Stacking};

use super::case::{fresh, methods, trained};
use crate::support::{differs, pixels, plain, randomised, same, tiny};

fn image(pixels: Tensor<4>, sites: &dyn Sites) -> Tensor<2> {
    tiny().encode_image(pixels, sites, &Pass::evaluate())
}

#[test]
fn rows_with_different_adapters_equal_row_by_row() {
    let lora = trained(&MethodConfig::preset("lora").expect("a preset"), &plain());
    for config in methods() {
        let first = trained(&config, &plain());
        let second = randomised(fresh(&config, 1, &plain()), 0.5, &plain());
        let mut members: Vec<&dyn Sites> = vec![&first, &first, &second];
        // One dense batch has rows of one length: what adds tokens or keys is batched with its own kind.
        if config.stacking() == Stacking::Anywhere {
            members.extend([&lora as &dyn Sites, &Frozen]);
        }
        let rows = members.iter().map(|member| (1, *member)).collect();
        let together = image(pixels(members.len()), &Mixed::new(rows, Vec::new()));
        for (row, member) in members.iter().enumerate() {
            let alone = image(pixels(members.len()).narrow(0, row, 1), *member);
            same(&format!("{} row {row}", config.name()), together.clone().narrow(0, row, 1), alone, 1e-5);
        }
        if config.stacking() == Stacking::Anywhere {
            let [third, frozen] = [&lora as &dyn Sites, &Frozen].map(|member| image(pixels(5).narrow(0, 3, 1), member));
            differs("the rows use different adapters", third, frozen);
        }
    }
}
