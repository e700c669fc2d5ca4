//! Settings that are given and left out: those of a first version, which later ones keep, and those of steps where a head is solved.

use inarch_peft::MethodConfig;
use serde::Serialize;
use serde_json::{Map, Value};

use super::recipe::UpdateRecipe;
use crate::memory::MemoryConfig;

/// What a head that is solved takes of `fit` as well.
const TEMPLATES: &str = "templates";

/// What is to be said of the settings of a recipe that an update of this method, memory and probe does not take up; `None` where it
/// takes all that differ from what there is.
pub(super) fn left_out(
    recipe: &UpdateRecipe,
    method: &MethodConfig,
    [memory, probe]: [&MemoryConfig; 2],
) -> Option<String> {
    let usual = UpdateRecipe::default();
    let mut names = Vec::new();
    let own: Map<String, Value> = fields(&recipe.method);
    names.extend(differing("method", &own, &Map::new(), &fields(method)));
    for (part, given, usual, kept) in
        [("memory", &recipe.memory, &usual.memory, memory), ("probe", &recipe.probe, &usual.probe, probe)]
    {
        names.extend(differing(part, &fields(given), &fields(usual), &fields(kept)));
    }
    let mut lines = Vec::new();
    if !names.is_empty() {
        lines.push(format!("left out: {}, settings of a first version, which later ones keep", names.join(", ")));
    }
    let of_steps = recipe.strategy != usual.strategy || recipe.fit.keys().any(|key| key != TEMPLATES);
    if method.analytic().is_some() && of_steps {
        lines.push(format!(
            "left out: `strategy` and `fit` but its `{TEMPLATES}`, for `{}` is solved and takes no steps",
            method.name()
        ));
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn fields(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The names of fields that are neither as usual nor as they are kept.
fn differing<'f>(
    part: &'f str,
    given: &'f Map<String, Value>,
    usual: &'f Map<String, Value>,
    kept: &'f Map<String, Value>,
) -> impl Iterator<Item = String> + 'f {
    let is_like = |field: &str, value: &Value, others: &Map<String, Value>| {
        others.get(field).is_some_and(|other| match (value.as_f64(), other.as_f64()) {
            // 1 and 1.0 are one number.
            (Some(value), Some(other)) => value == other,
            _ => value == other,
        })
    };
    let differs = move |field: &str, value: &Value| !is_like(field, value, usual) && !is_like(field, value, kept);
    given.iter().filter(move |(field, value)| differs(field, value)).map(move |(field, _)| format!("`{part}.{field}`"))
}

#[cfg(test)]
mod tests {
    use inarch_peft::MethodConfig;

    use super::{UpdateRecipe, left_out};
    use crate::memory::MemoryConfig;

    #[test]
    fn what_is_not_taken_up_is_named() {
        let said = |settings: &[&str], method: &str, kept: MemoryConfig| {
            let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
            let recipe = UpdateRecipe::read("", "test", &settings).expect("valid settings");
            let method = MethodConfig::preset(method).expect("a method");
            left_out(&recipe, &method, [&kept, &UpdateRecipe::default().probe])
        };
        let usual = MemoryConfig::default();
        let large = MemoryConfig { budget_bytes: 1 << 20, ..usual };
        // As they are, as they were begun, and what every update takes.
        assert_eq!(said(&[], "lora", large), None);
        assert_eq!(said(&["memory.budget_bytes=1048576", "gate.class_drop=0.2"], "lora", large), None);
        assert_eq!(said(&["strategy.name=\"der\"", "fit.train.batch=8"], "lora", usual), None);
        assert_eq!(said(&["method.projections=2000", "method.seed=1993"], "rail", usual), None);
        assert_eq!(said(&["fit.templates=\"a sketch of a {}.\""], "rail", usual), None);

        let found = said(&["memory.budget_bytes=2048", "memory.most_days=9", "probe.seed=7"], "lora", large);
        let found = found.expect("three settings");
        assert!(found.starts_with("left out: `memory.budget_bytes`, `memory.most_days`, `probe.seed`,"), "{found}");
        let found = said(&["method.rank=7"], "lora", usual).expect("a setting");
        assert!(found.contains("`method.rank`") && !found.contains("strategy"), "{found}");
        for setting in ["strategy.name=\"der\"", "fit.train.batch=8"] {
            let found = said(&[setting], "rail", usual).expect("no steps");
            assert!(found.contains("`rail` is solved") && !found.contains("first version"), "{found}");
        }
    }
}
