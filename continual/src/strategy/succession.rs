//! From one training to the next: what a strategy takes up of the one before, between two versions of an adapter and between the
//! chunks of an experience.

use super::config::GradientConfig;
use super::needs::unsuited;
use crate::error::Result;

impl GradientConfig {
    /// Whether it takes up the state that a strategy left beside an adapter: its own, whatever its settings were. Another strategy takes up
    /// the adapter in training alone.
    ///
    /// # Errors
    /// A strategy that would lose by that what was learned, with the way out, and settings that the state does not fit.
    pub(crate) fn takes_up_state_of(&self, left: &Self) -> Result<bool> {
        if let (Self::SPrompts { centroids, text }, Self::SPrompts { centroids: before, text: had }) = (self, left)
            && (centroids, text) != (before, had)
        {
            let reason = format!(
                "the experiences before have `centroids = {before}` and `text = {had}`, and an image is compared with all of \
                 them; set `strategy.centroids` and `strategy.text` so"
            );
            return Err(unsuited(self.name(), reason));
        }
        if std::mem::discriminant(self) == std::mem::discriminant(left) {
            return Ok(true);
        }
        if left.puts_aside() {
            let (own, before) = (self.name(), left.name());
            let reason = format!(
                "the version was learned with `{before}`, which puts what each experience learned aside and trains the next \
                 by itself, so that `{own}` would go on without all of it; update with `--set strategy.name=\"{before}\"`, or \
                 begin another line with `--init`"
            );
            return Err(unsuited(own, reason));
        }
        Ok(false)
    }

    /// Whether it can learn an experience in chunks, each by itself.
    ///
    /// # Errors
    /// A strategy that would take each chunk for an experience.
    pub(crate) fn check_chunks(&self) -> Result<()> {
        if !self.puts_aside() {
            return Ok(());
        }
        let reason =
            "it puts aside what each training learned, and would do so with every chunk; leave `stream.chunk` out";
        Err(unsuited(self.name(), reason))
    }

    /// Whether what answers is more than the adapter in training holds. A pool is one adapter that is trained on; all others that are written
    /// for one method put aside what they trained.
    fn puts_aside(&self) -> bool {
        self.needs().is_some() && !matches!(self, Self::L2p {})
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{GRADIENT_STRATEGIES, strategy};

    #[test]
    fn a_strategy_takes_up_its_own_state_and_none_goes_on_without_what_was_put_aside() {
        let aside = ["o-lora", "inflora", "sd-lora", "moe-adapters", "dual-prompt", "coda-prompt", "s-prompts"];
        for before in GRADIENT_STRATEGIES {
            let left = strategy(&format!("name = {before:?}"));
            for own in GRADIENT_STRATEGIES {
                let taken = strategy(&format!("name = {own:?}")).takes_up_state_of(&left);
                if own == before {
                    assert!(taken.expect(own), "{own}");
                } else if aside.contains(before) {
                    let reason = taken.expect_err(own).to_string();
                    assert!([*own, *before, "--init"].iter().all(|word| reason.contains(word)), "{reason}");
                } else {
                    assert!(!taken.expect(own), "{own} after {before}");
                }
            }
            assert_eq!(left.check_chunks().is_err(), aside.contains(before), "{before}");
        }
    }

    #[test]
    fn other_settings_do_not_cost_the_state_unless_it_does_not_fit_them() {
        for (own, left) in [
            ("name = \"ewc\"\nweight = 100.0", "name = \"ewc\""),
            ("name = \"o-lora\"\nweight = 0.1", "name = \"o-lora\""),
            ("name = \"bic\"\nreplay = 8", "name = \"bic\"\nhold = 0.1"),
            ("name = \"s-prompts\"\ncentroids = 5", "name = \"s-prompts\""),
        ] {
            assert!(strategy(own).takes_up_state_of(&strategy(left)).expect(own), "{own}");
        }
        for other in ["centroids = 4", "text = true"] {
            let other = strategy(&format!("name = \"s-prompts\"\n{other}"));
            let reason = other.takes_up_state_of(&strategy("name = \"s-prompts\"")).expect_err("it does not fit");
            let reason = reason.to_string();
            assert!(reason.contains("`centroids = 5`") && reason.contains("`text = false`"), "{reason}");
        }
    }
}
