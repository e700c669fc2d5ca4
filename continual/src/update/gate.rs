//! The gate that an update must pass before it is put in force.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::negative_flips;

/// Names that a sentence lists at most.
const NAMES: usize = 5;

/// Thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Most that the accuracy of a class may fall (0 to 1).
    pub class_drop: f64,
    /// How sure a fall must be (one-sided), 0.5 to 0.9999.
    pub confidence: f64,
    /// Turns the burden of proof round: an update passes only when it is as sure that no class falls by more. A class that no sample
    /// judges is not sure.
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
    /// Every class known before that samples judged.
    pub classes: Vec<ClassChange>,
}

/// What the gate looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The classes known before.
    pub(crate) known: Vec<String>,
    /// The class of each sample that was held out and known before, and whether it was answered right before and after.
    pub(crate) answers: Vec<(String, bool, bool)>,
    /// Zero-shot sets: name, accuracy before, accuracy after.
    pub(crate) zero_shot: Vec<(String, f64, f64)>,
    /// Bytes of the adapter.
    pub(crate) bytes: u64,
    /// Milliseconds for an image behind the backbone; `None` where no sample tells.
    pub(crate) ms: Option<f64>,
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
        let unjudged: Vec<&String> =
            evidence.known.iter().filter(|known| classes.iter().all(|one| one.class != **known)).collect();
        let mut rules = Vec::new();
        if !classes.is_empty() || (self.strict && !unjudged.is_empty()) {
            rules.push(self.class_rule(&classes, &unjudged));
        }
        let (before, after): (Vec<bool>, Vec<bool>) =
            evidence.answers.iter().map(|(_, before, after)| (*before, *after)).unzip();
        let share = |right: &[bool]| right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64;
        let (old, new, flips) = (share(&before), share(&after), negative_flips(&before, &after));
        if !evidence.answers.is_empty() {
            let found =
                format!("{:.1} % before, {:.1} % after, over {} samples", 100.0 * old, 100.0 * new, before.len());
            rules.push(rule("accuracy_drop", old - new <= self.accuracy_drop + 1e-12, found));
            let found = format!("{:.1} % of the answers turned from right to wrong", 100.0 * flips);
            rules.push(rule("negative_flips", flips <= self.negative_flips + 1e-12, found));
        }
        for (name, before, after) in &evidence.zero_shot {
            let found = format!("on `{name}` {:.1} % before, {:.1} % after", 100.0 * before, 100.0 * after);
            rules.push(rule("zero_shot_drop", before - after <= self.zero_shot_drop + 1e-12, found));
        }
        if let Some(most) = self.most_bytes {
            let found = format!("{} bytes, at most {most}", evidence.bytes);
            rules.push(rule("most_bytes", evidence.bytes <= most, found));
        }
        if let Some(most) = self.most_ms {
            // What nothing tells is not kept.
            let (kept, found) = match evidence.ms {
                Some(ms) => (ms <= most, format!("{ms:.3} ms for an image, at most {most}")),
                None => (false, "there is no sample to take the time of".to_string()),
            };
            rules.push(rule("most_ms", kept, found));
        }
        Verdict { passed: rules.iter().all(|rule| rule.passed), rules, classes }
    }

    /// Whether a class fell, by those that samples judge and those that none does.
    fn class_rule(&self, classes: &[ClassChange], unjudged: &[&String]) -> Rule {
        let fell = |change: &&ClassChange| {
            let drop = change.before - change.after;
            if self.strict { drop + change.bound > self.class_drop } else { drop - change.bound > self.class_drop }
        };
        let mut found: Vec<String> = classes.iter().filter(fell).map(describe).collect();
        let passed = found.is_empty() && (!self.strict || unjudged.is_empty());
        if passed {
            let most = 100.0 * self.class_drop;
            found.push(format!("no class of {} fell by more than {most:.1} points", classes.len()));
        }
        if !unjudged.is_empty() {
            found.push(format!("no held-out sample judges {}", listed(unjudged)));
        }
        rule("class_drop", passed, found.join("; "))
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

fn rule(name: &str, passed: bool, found: String) -> Rule {
    Rule { name: name.into(), passed, found }
}

/// Some names, and how many there are beside them.
pub(super) fn listed(names: &[&String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
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
            ms: Some(0.2),
            ..Evidence::default()
        };
        let verdict = few.judge(&evidence);
        let failed: Vec<&str> =
            verdict.rules.iter().filter(|rule| !rule.passed).map(|rule| rule.name.as_str()).collect();
        assert_eq!(failed, ["zero_shot_drop", "most_bytes", "most_ms"]);
        let evidence = Evidence { answers: answers("cat", 50, 45, 50), ..Evidence::default() };
        let verdict = Gate::default().judge(&evidence);
        assert_eq!(verdict.rules.iter().filter(|rule| !rule.passed).count(), 2, "{verdict:?}");
        assert!(Gate { confidence: 0.2, ..Gate::default() }.check().is_err());
        // A time that nothing tells is not one that is kept.
        let untimed = Gate { most_ms: Some(1e9), ..Gate::default() }.judge(&Evidence::default());
        assert!(!untimed.passed && untimed.broken().contains("most_ms: there is no sample"), "{untimed:?}");
    }

    #[test]
    fn a_class_that_no_sample_judges_is_named_and_a_strict_gate_says_no() {
        let known: Vec<String> = ["cat", "dog", "owl"].map(String::from).into();
        let rule = |gate: &Gate, answers: Vec<_>| {
            let verdict = gate.judge(&Evidence { known: known.clone(), answers, ..Evidence::default() });
            verdict.rules.into_iter().find(|rule| rule.name == "class_drop").map(|rule| (rule.passed, rule.found))
        };
        let strict = Gate { strict: true, ..Gate::default() };
        let cat = || answers("cat", 380, 385, 400);
        let (passed, found) = rule(&Gate::default(), cat()).expect("a rule");
        assert!(passed && found.contains("no class of 1") && found.contains("judges `dog`, `owl`"), "{found}");
        let (passed, found) = rule(&strict, cat()).expect("a rule");
        assert!(!passed && found == "no held-out sample judges `dog`, `owl`", "{found}");
        let all = || known.iter().flat_map(|class| answers(class, 380, 385, 400)).collect::<Vec<_>>();
        assert_eq!(rule(&strict, all()), Some((true, "no class of 3 fell by more than 5.0 points".into())));
        // Nothing at all judges it.
        assert!(rule(&Gate::default(), Vec::new()).is_none());
        assert_eq!(rule(&strict, Vec::new()).map(|rule| rule.0), Some(false));
        let many: Vec<String> = (0..8).map(|at| format!("class {at}")).collect();
        let verdict = strict.judge(&Evidence { known: many, ..Evidence::default() });
        assert!(verdict.broken().ends_with("`class 4` and 3 more"), "{}", verdict.broken());
    }
}
