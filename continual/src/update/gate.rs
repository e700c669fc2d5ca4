//! The gate that an update must pass before it is put in force.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::negative_flips;

/// Thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Most that the accuracy of a class may fall (0 to 1).
    pub class_drop: f64,
    /// How sure a fall must be (one-sided), 0.5 to 0.9999.
    pub confidence: f64,
    /// Turns the burden of proof round: an update passes only when it is as sure that no class falls by more.
    pub strict: bool,
    /// Most that the accuracy over everything known before may fall, as it is measured.
    pub accuracy_drop: f64,
    /// Most answers that may turn from right to wrong (0 to 1).
    pub negative_flips: f64,
    /// Most that zero-shot accuracy on the given sets may fall.
    pub zero_shot_drop: f64,
    /// Most bytes of the adapter; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_bytes: Option<u64>,
    /// Most milliseconds for an image behind the backbone; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_ms: Option<f64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            class_drop: 0.05,
            confidence: 0.95,
            strict: false,
            accuracy_drop: 0.02,
            negative_flips: 0.05,
            zero_shot_drop: 0.02,
            most_bytes: None,
            most_ms: None,
        }
    }
}

/// How one class fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassChange {
    /// The class.
    pub class: String,
    /// Samples it was judged by.
    pub samples: usize,
    /// Accuracy before.
    pub before: f64,
    /// Accuracy after.
    pub after: f64,
    /// Half width of the confidence interval of the change.
    pub bound: f64,
}

/// One rule and what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, as the threshold's in the recipe.
    pub name: String,
    /// Whether it is kept.
    pub passed: bool,
    /// What was found, in words.
    pub found: String,
}

/// What the gate said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every rule is kept.
    pub passed: bool,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Every class that was known before.
    pub classes: Vec<ClassChange>,
}

/// What the gate looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The class of each sample that was held out and known before, and whether it was answered right before and after.
    pub(crate) answers: Vec<(String, bool, bool)>,
    /// Zero-shot sets: name, accuracy before, accuracy after.
    pub(crate) zero_shot: Vec<(String, f64, f64)>,
    /// Bytes of the adapter.
    pub(crate) bytes: u64,
    /// Milliseconds for an image behind the backbone.
    pub(crate) ms: f64,
}

impl Gate {
    /// Checks the thresholds.
    ///
    /// # Errors
    /// One outside its domain.
    pub fn check(&self) -> Result<()> {
        let shares = [
            ("gate.class_drop", self.class_drop),
            ("gate.accuracy_drop", self.accuracy_drop),
            ("gate.negative_flips", self.negative_flips),
            ("gate.zero_shot_drop", self.zero_shot_drop),
        ];
        if let Some((name, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(Error::setting(name, format!("must be 0 to 1, found {value}")));
        }
        if !(0.5..=0.9999).contains(&self.confidence) {
            return Err(Error::setting("gate.confidence", format!("must be 0.5 to 0.9999, found {}", self.confidence)));
        }
        Ok(())
    }

    /// Judges an update. A first version, which nothing is compared with, is judged by size and time alone.
    pub(crate) fn judge(&self, evidence: &Evidence) -> Verdict {
        let mut classes: Vec<String> = evidence.answers.iter().map(|(class, ..)| class.clone()).collect();
        classes.sort();
        classes.dedup();
        let classes: Vec<ClassChange> =
            classes.into_iter().map(|class| self.change(class, &evidence.answers)).collect();
        let fell = |change: &&ClassChange| {
            let drop = change.before - change.after;
            if self.strict { drop + change.bound > self.class_drop } else { drop - change.bound > self.class_drop }
        };
        let fallen: Vec<String> = classes.iter().filter(fell).map(describe).collect();
        let (before, after): (Vec<bool>, Vec<bool>) =
            evidence.answers.iter().map(|(_, before, after)| (*before, *after)).unzip();
        let share = |right: &[bool]| right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64;
        let (old, new, flips) = (share(&before), share(&after), negative_flips(&before, &after));
        let rule = |name: &str, passed: bool, found: String| Rule { name: name.into(), passed, found };
        let mut rules = if evidence.answers.is_empty() {
            Vec::new()
        } else {
            vec![
                rule(
                    "class_drop",
                    fallen.is_empty(),
                    match &fallen[..] {
                        [] => {
                            format!(
                                "no class of {} fell by more than {:.1} points",
                                classes.len(),
                                100.0 * self.class_drop
                            )
                        }
                        fallen => fallen.join("; "),
                    },
                ),
                rule(
                    "accuracy_drop",
                    old - new <= self.accuracy_drop + 1e-12,
                    format!("{:.1} % before, {:.1} % after, over {} samples", 100.0 * old, 100.0 * new, before.len()),
                ),
                rule(
                    "negative_flips",
                    flips <= self.negative_flips + 1e-12,
                    format!("{:.1} % of the answers turned from right to wrong", 100.0 * flips),
                ),
            ]
        };
        for (name, before, after) in &evidence.zero_shot {
            let found = format!("on `{name}` {:.1} % before, {:.1} % after", 100.0 * before, 100.0 * after);
            rules.push(rule("zero_shot_drop", before - after <= self.zero_shot_drop + 1e-12, found));
        }
        if let Some(most) = self.most_bytes {
            let found = format!("{} bytes, at most {most}", evidence.bytes);
            rules.push(rule("most_bytes", evidence.bytes <= most, found));
        }
        if let Some(most) = self.most_ms {
            let found = format!("{:.3} ms for an image, at most {most}", evidence.ms);
            rules.push(rule("most_ms", evidence.ms <= most, found));
        }
        Verdict { passed: rules.iter().all(|rule| rule.passed), rules, classes }
    }

    fn change(&self, class: String, answers: &[(String, bool, bool)]) -> ClassChange {
        let own: Vec<(bool, bool)> =
            answers.iter().filter(|(known, ..)| *known == class).map(|(_, before, after)| (*before, *after)).collect();
        let count = own.len() as f64;
        let number = |of: fn(&(bool, bool)) -> bool| own.iter().filter(|pair| of(pair)).count() as f64;
        let (lost, won) = (number(|pair| pair.0 && !pair.1), number(|pair| !pair.0 && pair.1));
        // The same samples were answered twice, so only those that changed count (as in McNemar's test); one more of each
        // keeps the bound from vanishing where few samples happen to agree.
        let deviation = (lost + won + 2.0 - (lost - won).powi(2) / (count + 2.0)).max(0.0).sqrt() / (count + 2.0);
        ClassChange {
            samples: own.len(),
            before: number(|pair| pair.0) / count,
            after: number(|pair| pair.1) / count,
            bound: quantile(self.confidence) * deviation,
            class,
        }
    }
}

fn describe(change: &ClassChange) -> String {
    let ClassChange { class, samples, before, after, bound } = change;
    let drop = 100.0 * (before - after);
    format!(
        "`{class}` fell by {drop:.1} ± {:.1} points ({:.1} % to {:.1} %, {samples} samples)",
        100.0 * bound,
        100.0 * before,
        100.0 * after
    )
}

impl Verdict {
    /// The rules that are broken, in one line.
    pub fn broken(&self) -> String {
        let broken = self.rules.iter().filter(|rule| !rule.passed);
        broken.map(|rule| format!("{}: {}", rule.name, rule.found)).collect::<Vec<_>>().join("; ")
    }
}

/// The quantile of the standard normal distribution for a probability of 0.5 to 1 (Abramowitz and Stegun, 26.2.23; error below
/// 4.5e-4).
fn quantile(probability: f64) -> f64 {
    let t = (-2.0 * (1.0 - probability).max(1e-12).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - above / below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Evidence, Gate, quantile};

    fn answers(class: &str, right_before: usize, right_after: usize, count: usize) -> Vec<(String, bool, bool)> {
        (0..count).map(|at| (class.to_string(), at < right_before, at < right_after)).collect()
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, expected) in [(0.5, 0.0), (0.9, 1.2816), (0.95, 1.6449), (0.99, 2.3263)] {
            assert!((quantile(probability) - expected).abs() < 1e-3, "{probability}");
        }
    }

    #[test]
    fn a_fall_must_be_sure_and_a_strict_gate_wants_proof_of_none() {
        let gate = Gate { accuracy_drop: 1.0, negative_flips: 1.0, ..Gate::default() };
        let judge = |gate: &Gate, answers: Vec<_>| gate.judge(&Evidence { answers, ..Evidence::default() });
        // 100 samples, 90 right before, 70 after: 20 points, surely more than 5.
        let verdict = judge(&gate, answers("cat", 90, 70, 100));
        assert!(!verdict.passed && verdict.broken().contains("`cat` fell by 20.0"), "{verdict:?}");
        // 5 samples, one lost: 20 points that mean nothing.
        assert!(judge(&gate, answers("cat", 5, 4, 5)).passed);
        assert!(!judge(&Gate { strict: true, ..gate }, answers("cat", 5, 5, 5)).passed);
        assert!(judge(&Gate { strict: true, ..gate }, answers("cat", 90, 91, 400)).passed);
    }

    #[test]
    fn every_rule_can_say_no() {
        let few = Gate { most_bytes: Some(10), most_ms: Some(0.1), ..Gate::default() };
        let evidence = Evidence {
            answers: [answers("cat", 50, 45, 50), answers("dog", 40, 50, 50)].concat(),
            zero_shot: vec![("other".into(), 0.6, 0.5)],
            bytes: 11,
            ms: 0.2,
        };
        let verdict = few.judge(&evidence);
        let failed: Vec<&str> =
            verdict.rules.iter().filter(|rule| !rule.passed).map(|rule| rule.name.as_str()).collect();
        assert_eq!(failed, ["zero_shot_drop", "most_bytes", "most_ms"]);
        let evidence = Evidence { answers: answers("cat", 50, 45, 50), ..Evidence::default() };
        let verdict = Gate::default().judge(&evidence);
        assert_eq!(verdict.rules.iter().filter(|rule| !rule.passed).count(), 2, "{verdict:?}");
        assert!(Gate { confidence: 0.2, ..Gate::default() }.check().is_err());
    }
}
