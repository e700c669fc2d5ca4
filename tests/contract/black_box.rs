//! A method says that features alone suffice exactly when it enters no tower.

use inarch_core::backbone::{Entry, Sites as _, Tower};

use super::case::{methods, trained};
use crate::support::plain;

#[test]
fn methods_that_need_no_weights_enter_no_tower() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let enters = [Tower::Image, Tower::Text].iter().any(|tower| adapter.entry(*tower) < Entry::Feature);
        // A prompt of its own goes through the text tower even where nothing in it is changed.
        let prompts = !config.templates().expect("valid settings").is_empty();
        assert_eq!(config.black_box(), !enters && !prompts, "{}", config.name());
    }
}
