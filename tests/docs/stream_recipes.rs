//! The recipes of `continual/recipes` are streams that can be run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use inarch_continual::{LearnerConfig, StreamRecipe};

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../continual/recipes");
    let files = inarch_core::file::list(&folder).expect("a folder of the repository");
    files.into_iter().filter(|path| path.extension().is_some_and(|found| found == "toml")).collect()
}

fn names(strategies: &[LearnerConfig]) -> BTreeSet<String> {
    strategies.iter().map(|strategy| strategy.name().to_string()).collect()
}

#[test]
fn every_recipe_of_a_stream_is_read_strictly_and_its_strategies_suit_its_method() {
    let mut run = BTreeSet::new();
    let recipes = recipes();
    for path in &recipes {
        let open = |set: &[String]| StreamRecipe::open(path, set).and_then(StreamRecipe::protocol);
        let protocol = open(&[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for strategy in &protocol.strategies {
            assert!(strategy.check(&protocol.fit.method).is_ok(), "{}: {}", path.display(), strategy.name());
        }
        assert_eq!(protocol.recipe.seeds, [1993, 1994, 1995], "{}", path.display());
        // With another method the same file is refused, where it has a strategy that is written for one.
        let linear_probe = inarch_peft::MethodConfig::preset("linear-probe").expect("a method");
        let written_for_one = protocol.strategies.iter().any(|strategy| strategy.check(&linear_probe).is_err());
        let other = open(&["fit.method={ name = \"linear-probe\" }".to_string()]);
        assert_eq!(other.is_err(), written_for_one, "{}", path.display());
        run.extend(names(&protocol.strategies));
        assert!(open(&["stream.experience=5".to_string()]).is_err(), "{}", path.display());
    }
    assert!(recipes.len() >= 8, "{recipes:?}");
    // Every strategy is in one of them, but the one that keeps every sample.
    let all: BTreeSet<String> = LearnerConfig::names().into_iter().filter(|name| name != "rail-dual").collect();
    assert_eq!(run, all);
}
