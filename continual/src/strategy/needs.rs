//! Which method a strategy trains, where it is written for one, so that a run can say no before it starts.

use inarch_peft::MethodConfig;

use super::branches::{Part, from_zero, members, only};
use super::config::GradientConfig;
use super::{contexts, dual_prompt, slca};
use crate::error::{Error, Result};

/// A strategy and the method that it is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Its name.
    pub(super) strategy: &'static str,
    /// The method, alone or once in a stack.
    pub(super) method: &'static str,
}

pub(super) const O_LORA: Need = Need { strategy: "o-lora", method: "lora" };
pub(super) const INFLORA: Need = Need { strategy: "inflora", method: "lora" };
pub(super) const SD_LORA: Need = Need { strategy: "sd-lora", method: "lora" };
pub(super) const MOE_ADAPTERS: Need = Need { strategy: "moe-adapters", method: "moe-adapters" };
pub(super) const L2P: Need = Need { strategy: "l2p", method: "l2p" };
pub(super) const DUAL_PROMPT: Need = Need { strategy: "dual-prompt", method: "dual-prompt" };
pub(super) const CODA_PROMPT: Need = Need { strategy: "coda-prompt", method: "coda-prompt" };
pub(super) const S_PROMPTS: Need = Need { strategy: "s-prompts", method: "vpt-shallow" };

impl Need {
    /// Where the member that it trains stands among the members of a method, and its settings.
    pub(super) fn member<'m, M: Clone + 'static>(
        self,
        own: impl IntoIterator<Item = &'m MethodConfig>,
    ) -> Result<(usize, M)> {
        only(own, |method| method.settings().cloned()).ok_or_else(|| self.missing())
    }

    /// As [`member`](Self::member), among the parts of a method.
    pub(super) fn part<M: Clone + 'static>(self, own: &[Part]) -> Result<(usize, M)> {
        self.member(own.iter().map(|(method, _)| method))
    }

    /// That `fit.method` is another one.
    pub(super) fn missing(self) -> Error {
        let method = self.method;
        self.fault(format!("it trains `{method}`, or a stack with one `{method}` in it; set `fit.method`"))
    }

    /// Whether the method leaves it to the strategy to count experiences.
    pub(super) fn counts(self, experiences: usize) -> Result<()> {
        match experiences {
            1 => Ok(()),
            _ => Err(self.fault("it counts experiences itself; leave the method's `experiences` at 1")),
        }
    }

    /// That `fit.method` has other settings than the strategy needs.
    pub(super) fn fault(self, reason: impl Into<String>) -> Error {
        unsuited(self.strategy, reason)
    }
}

/// That a strategy cannot train what the recipe says.
pub(super) fn unsuited(strategy: &str, reason: impl Into<String>) -> Error {
    Error::Recipe(inarch_recipes::Error::Recipe { origin: format!("strategy {strategy}"), reason: reason.into() })
}

impl GradientConfig {
    /// The one method that it trains; `None` where any that trains will do. (`slca` takes any that is bound to its classes.)
    pub(super) fn needs(&self) -> Option<Need> {
        match self {
            Self::OLora { .. } => Some(O_LORA),
            Self::Inflora { .. } => Some(INFLORA),
            Self::SdLora { .. } => Some(SD_LORA),
            Self::MoeAdapters { .. } => Some(MOE_ADAPTERS),
            Self::L2p {} => Some(L2P),
            Self::DualPrompt {} => Some(DUAL_PROMPT),
            Self::CodaPrompt {} => Some(CODA_PROMPT),
            Self::SPrompts { .. } => Some(S_PROMPTS),
            Self::Naive { .. }
            | Self::Joint {}
            | Self::Gdumb {}
            | Self::Er { .. }
            | Self::ErAce { .. }
            | Self::Der { .. }
            | Self::DerPlusPlus { .. }
            | Self::AGem { .. }
            | Self::Gem { .. }
            | Self::Mir { .. }
            | Self::GssGreedy { .. }
            | Self::Bic { .. }
            | Self::Icarl { .. }
            | Self::Slca { .. }
            | Self::Ewc { .. }
            | Self::OnlineEwc { .. }
            | Self::Si { .. }
            | Self::Mas { .. }
            | Self::Lwf { .. }
            | Self::Zscl { .. }
            | Self::WiseFt { .. }
            | Self::Ema { .. }
            | Self::Magmax { .. }
            | Self::Ties { .. } => None,
        }
    }

    /// Whether it can train a method, as far as their settings tell.
    ///
    /// # Errors
    /// The method, or the setting of it, that it needs.
    pub(crate) fn check(&self, method: &MethodConfig) -> Result<()> {
        if matches!(self, Self::Slca { .. }) && !method.bound_to_classes() {
            return Err(slca::no_head());
        }
        let Some(need) = self.needs() else { return Ok(()) };
        let own = members(method);
        let named = |one: &MethodConfig| (one.name() == need.method).then_some(());
        let Some((at, ())) = only(own, named) else { return Err(need.missing()) };
        match (self, &own[at]) {
            (_, MethodConfig::Lora(config)) => from_zero(need, config),
            (_, MethodConfig::MoeAdapters(config)) => need.counts(config.experiences),
            (_, MethodConfig::DualPrompt(config)) => dual_prompt::one_expert(config),
            (_, MethodConfig::CodaPrompt(config)) => need.counts(config.experiences),
            (Self::SPrompts { text: true, .. }, _) => contexts::shared_in(own).map(drop),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use inarch_peft::MethodConfig;

    use super::super::config::{GRADIENT_STRATEGIES, strategy};

    fn method(text: &str) -> MethodConfig {
        toml::from_str(text).expect("a method")
    }

    #[test]
    fn a_strategy_that_is_written_for_one_method_says_no_to_any_other() {
        let linear_probe = MethodConfig::preset("linear-probe").expect("a method");
        let mut written = 0;
        for name in GRADIENT_STRATEGIES {
            let strategy = strategy(&format!("name = {name:?}"));
            let Some(need) = strategy.needs() else {
                assert!(strategy.check(&linear_probe).is_ok(), "{name}");
                continue;
            };
            written += 1;
            assert_eq!(need.strategy, *name);
            let reason = strategy.check(&linear_probe).expect_err(name).to_string();
            assert!(
                reason.contains(*name) && reason.contains(need.method) && reason.contains("fit.method"),
                "{reason}"
            );
            let one = match need.method {
                "dual-prompt" => "{ name = \"dual-prompt\", pool = 1 }".to_string(),
                other => format!("{{ name = {other:?} }}"),
            };
            let stack = |members: &str| method(&format!("name = \"stack\"\nmembers = [{members}]"));
            let head = "{ name = \"linear-probe\" }";
            assert!(strategy.check(&stack(&format!("{one}, {head}"))).is_ok(), "{name}");
            assert!(strategy.check(&stack(&format!("{one}, {one}"))).is_err(), "{name} of two");
            assert!(strategy.check(&stack(head)).is_err(), "{name} of none");
        }
        assert_eq!(written, 8);
    }

    #[test]
    fn settings_of_the_method_that_a_strategy_cannot_train_are_named() {
        let cases = [
            ("name = \"slca\"", "name = \"coop\"", "linear-probe"),
            ("name = \"o-lora\"", "name = \"lora\"\ninit = \"pissa\"", "`init`"),
            ("name = \"dual-prompt\"", "name = \"dual-prompt\"", "`pool`"),
            ("name = \"coda-prompt\"", "name = \"coda-prompt\"\nexperiences = 2", "`experiences`"),
            ("name = \"moe-adapters\"", "name = \"moe-adapters\"\nexperiences = 2", "`experiences`"),
            ("name = \"s-prompts\"\ntext = true", "name = \"vpt-shallow\"", "`coop`"),
        ];
        for (own, trained, reason) in cases {
            let found = strategy(own).check(&method(trained)).expect_err(own).to_string();
            assert!(found.contains(reason), "{own}: {found}");
        }
        let both = "name = \"stack\"\nmembers = [{ name = \"vpt-shallow\" }, { name = \"coop\" }]";
        assert!(strategy("name = \"s-prompts\"\ntext = true").check(&method(both)).is_ok());
    }
}
