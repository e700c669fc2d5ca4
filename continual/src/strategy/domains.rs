//! Domains of the settings of strategies, so that a run can say no before it starts.

use super::config::GradientConfig;
use super::needs::unsuited;
use crate::error::Result;

/// What a number may be. None may be infinite or no number.
#[derive(Clone, Copy)]
enum Domain {
    /// Any.
    Number,
    /// 0 or more.
    Weight,
    /// 1 or more.
    Count,
    /// More than 0.
    Positive,
    /// 0 to 1.
    Share,
    /// 0 to 1, but not 1.
    Fraction,
    /// 0 to 1, but not 0.
    Portion,
}

impl Domain {
    fn holds(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Number => true,
                Self::Weight => value >= 0.0,
                Self::Count => value >= 1.0,
                Self::Positive => value > 0.0,
                Self::Share => (0.0..=1.0).contains(&value),
                Self::Fraction => (0.0..1.0).contains(&value),
                Self::Portion => value > 0.0 && value <= 1.0,
            }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Weight => "at least 0",
            Self::Count => "at least 1",
            Self::Positive => "above 0",
            Self::Share => "0 to 1",
            Self::Fraction => "at least 0 and below 1",
            Self::Portion => "above 0 and at most 1",
        }
    }
}

impl GradientConfig {
    /// Checks its settings.
    ///
    /// # Errors
    /// One outside its domain.
    pub(crate) fn check_settings(&self) -> Result<()> {
        match self.domains().into_iter().find(|(_, value, domain)| !domain.holds(*value)) {
            None => Ok(()),
            Some((setting, value, domain)) => {
                Err(unsuited(self.name(), format!("`{setting}` must be {}, found {value}", domain.words())))
            }
        }
    }

    /// Its numbers, each with what it may be.
    fn domains(&self) -> Vec<(&'static str, f64, Domain)> {
        use Domain::{Count, Fraction, Number, Portion, Positive, Share, Weight};
        let count = |name: &'static str, value: usize| (name, value as f64, Count);
        match *self {
            Self::Naive { .. }
            | Self::Joint {}
            | Self::Gdumb {}
            | Self::L2p {}
            | Self::DualPrompt {}
            | Self::CodaPrompt {} => Vec::new(),
            Self::Er { replay } | Self::ErAce { replay } | Self::AGem { replay } => vec![count("replay", replay)],
            Self::Der { replay, alpha } => vec![count("replay", replay), ("alpha", alpha, Weight)],
            Self::DerPlusPlus { replay, alpha, beta } => {
                vec![count("replay", replay), ("alpha", alpha, Weight), ("beta", beta, Weight)]
            }
            Self::Gem { replay, margin } => vec![count("replay", replay), ("margin", margin, Weight)],
            Self::Mir { replay, candidates } => vec![count("replay", replay), count("candidates", candidates)],
            Self::GssGreedy { replay, compare } => vec![count("replay", replay), count("compare", compare)],
            Self::Bic { replay, temperature, held_out, hold } => vec![
                count("replay", replay),
                ("temperature", temperature, Positive),
                ("held_out", held_out, Fraction),
                ("hold", hold, Weight),
            ],
            Self::Icarl { replay, weight, temperature } => {
                vec![count("replay", replay), ("weight", weight, Weight), ("temperature", temperature, Positive)]
            }
            Self::Slca { slow, draws, epochs, temperature } => vec![
                ("slow", slow, Weight),
                count("draws", draws),
                count("epochs", epochs),
                ("temperature", temperature, Positive),
            ],
            Self::OLora { weight } => vec![("weight", weight, Weight)],
            Self::Inflora { threshold } => vec![("threshold", threshold, Share)],
            Self::SdLora { magnitude } => vec![("magnitude", magnitude, Number)],
            Self::MoeAdapters { outside } => vec![("outside", outside, Fraction)],
            Self::SPrompts { centroids, .. } => vec![count("centroids", centroids)],
            Self::Ewc { weight, samples } | Self::Mas { weight, samples } => {
                vec![("weight", weight, Weight), count("samples", samples)]
            }
            Self::OnlineEwc { weight, samples, decay } => {
                vec![("weight", weight, Weight), count("samples", samples), ("decay", decay, Share)]
            }
            Self::Si { weight, damping } => vec![("weight", weight, Weight), ("damping", damping, Positive)],
            Self::Lwf { weight, temperature } => {
                vec![("weight", weight, Weight), ("temperature", temperature, Positive)]
            }
            Self::Zscl { weight, temperature, hold } => {
                vec![("weight", weight, Weight), ("temperature", temperature, Positive), ("hold", hold, Weight)]
            }
            Self::WiseFt { share } => vec![("share", share, Share)],
            Self::Ema { decay } => vec![("decay", decay, Share)],
            Self::Magmax { scale } => vec![("scale", scale, Number)],
            Self::Ties { density, scale } => vec![("density", density, Portion), ("scale", scale, Number)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{GRADIENT_STRATEGIES, strategy};

    #[test]
    fn every_number_has_a_domain_that_holds_its_default_and_not_all_numbers() {
        for name in GRADIENT_STRATEGIES {
            let plain = strategy(&format!("name = {name:?}"));
            plain.check_settings().expect(name);
            let toml::Value::Table(settings) = toml::Value::try_from(&plain).expect("plain data") else {
                panic!("a table")
            };
            for (setting, value) in settings {
                let wrong = match value {
                    toml::Value::Integer(_) => "0",
                    toml::Value::Float(_) => "nan",
                    _ => continue,
                };
                let other = strategy(&format!("name = {name:?}\n{setting} = {wrong}"));
                let reason = other.check_settings().expect_err(&setting).to_string();
                assert!(reason.contains(name) && reason.contains(&format!("`{setting}`")), "{reason}");
            }
        }
    }

    #[test]
    fn ends_of_domains() {
        for (text, holds) in [
            ("name = \"ties\"\ndensity = 1.0", true),
            ("name = \"ties\"\ndensity = 0.0", false),
            ("name = \"bic\"\nheld_out = 0.0", true),
            ("name = \"bic\"\nheld_out = 1.0", false),
            ("name = \"lwf\"\ntemperature = 0.0", false),
            ("name = \"lwf\"\nweight = 0.0", true),
            ("name = \"ewc\"\nweight = -1.0", false),
            ("name = \"wise-ft\"\nshare = 1.5", false),
            ("name = \"magmax\"\nscale = -0.5", true),
            ("name = \"zscl\"\nhold = inf", false),
        ] {
            assert_eq!(strategy(text).check_settings().is_ok(), holds, "{text}");
        }
    }
}
