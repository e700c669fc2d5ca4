//! Laws that every method of test-time adaptation keeps, on the tiny backbone.

use inarch_core::Seed;
use inarch_core::backbone::{Entry, Frozen, HostTensor, Sites, Tower};
use inarch_core::image::RgbImage;
use inarch_core::text::Template;
use inarch_peft::{Adapter, Classifier, MethodConfig};
use inarch_recipes::test_time::{
    Episode, FallBack, Model, Outcome, Snapshot, TEST_TIME_METHODS, TestTime, TestTimeConfig,
};

use super::case::{methods, trained};
use crate::support::{classes, close, plain, tiny};

/// Images in the stream of these laws.
const IMAGES: usize = 10;

fn images() -> Vec<(String, RgbImage)> {
    let image = |number: usize| {
        let noise = Seed::new(3).split(number).uniforms(3, 1.0);
        let pixel = |x: u32, y: u32| {
            image::Rgb([0, 1, 2].map(|channel: usize| {
                let wave = (0.2 + 0.1 * number as f32) * (x as f32 + noise[channel] * y as f32) + channel as f32;
                (127.0 + 120.0 * wave.sin()) as u8
            }))
        };
        (format!("class/{number}.png"), RgbImage::from_fn(40, 36, pixel))
    };
    (0..IMAGES).map(image).collect()
}

fn config(name: &str, settings: &[&str]) -> TestTimeConfig {
    let shared = ["views=8", "judge=tiny", "batch=4"];
    let settings = shared.iter().chain(settings).map(|setting| format!("test-time.{setting}"));
    TestTimeConfig::new(name, &settings.collect::<Vec<_>>()).expect("valid settings")
}

fn zero_shot() -> Classifier<'static> {
    let template = Template::new("a photo of a {}.").expect("one place");
    Classifier::zero_shot(tiny(), &classes(), &[template]).expect("plain names")
}

fn tester<'a>(classifier: &'a Classifier<'a>, sites: &'a dyn Sites, config: &TestTimeConfig) -> TestTime<'a> {
    let model = Model { backbone: tiny(), classifier, sites };
    TestTime::new(model, config, Some(tiny()), Some(IMAGES)).unwrap_or_else(|error| panic!("{config:?}: {error}"))
}

fn episodes(tester: &mut TestTime<'_>) -> Vec<Episode> {
    let images = images();
    let named: Vec<(&str, &RgbImage)> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
    tester.episodes(&named).expect("images of pixels")
}

fn flat(outcomes: &[Outcome]) -> Vec<f32> {
    outcomes.iter().flat_map(|outcome| outcome.probabilities()).collect()
}

#[test]
fn an_interrupted_stream_goes_on_as_if_nothing_had_been() {
    let classifier = zero_shot();
    let folder = tempfile::tempdir().expect("a folder");
    for name in TEST_TIME_METHODS {
        // The random backbone is sure of nothing, and SAR learns from sure images only.
        let config = config(name, if *name == "sar" { &["reliable=1.0", "recover=0.0", "lr=0.01"] } else { &[] });
        let mut whole = tester(&classifier, &Frozen, &config);
        let all = episodes(&mut whole);
        let expected: Vec<Outcome> = all.chunks(4).flat_map(|batch| whole.adapt(batch).expect("answers")).collect();
        assert_eq!(expected.len(), IMAGES);

        let mut first = tester(&classifier, &Frozen, &config);
        let mut found = first.adapt(&all[..4]).expect("answers");
        let path = folder.path().join(format!("{name}.safetensors"));
        first.snapshot().write(&path).expect("a writable folder");
        drop(first);
        let mut second = tester(&classifier, &Frozen, &config);
        second.restore(&Snapshot::read(&path).expect("what was written")).expect("its own state");
        assert_eq!(second.position(), 4);
        found.extend(all[4..].chunks(4).flat_map(|batch| second.adapt(batch).expect("answers")));
        assert_eq!(flat(&found), flat(&expected), "{name}");
        assert!(second.snapshot() == whole.snapshot(), "{name}: the states differ");
        let admitted =
            |outcomes: &[Outcome]| outcomes.iter().flat_map(|outcome| outcome.admitted.clone()).collect::<Vec<_>>();
        assert_eq!(admitted(&found), admitted(&expected), "{name}");

        whole.reset();
        let again: Vec<Outcome> = all.chunks(4).flat_map(|batch| whole.adapt(batch).expect("answers")).collect();
        assert_eq!(flat(&again), flat(&expected), "{name}: a reset forgets everything");

        let needs = *whole.needs();
        let remembers = flat(&whole.adapt(&all[..4]).expect("answers")) != flat(&expected[..4]);
        assert_eq!(remembers, needs.online, "{name}: an online method remembers, an episodic one does not");
        if !needs.online {
            let single: Vec<Outcome> =
                all.iter().flat_map(|episode| whole.adapt(std::slice::from_ref(episode)).expect("answers")).collect();
            close(&format!("{name}: alone and in a batch"), &flat(&single), &flat(&expected), 1e-4);
        }
        let moved = expected.iter().any(|outcome| {
            outcome.scores.iter().zip(&outcome.unadapted).any(|(after, before)| (after - before).abs() > 1e-3)
        });
        assert!(moved, "{name} changes nothing");
    }
    assert!(tiny().verify(), "the backbone's bytes changed");
}

fn adapted(method: &MethodConfig) -> Classifier<'static> {
    let template = Template::new("a photo of a {}.").expect("one place");
    Classifier::adapted(tiny(), method, &classes(), &classes(), &[template]).expect("classes of this adapter")
}

#[test]
fn a_prompt_that_takes_no_step_scores_as_the_adapter_beneath() {
    let mut composed = 0;
    for method in methods() {
        let adapter: Adapter = trained(&method, &plain());
        let classifier = adapted(&method);
        let config = config("tpt", &["lr=0.0"]);
        let mut tester = tester(&classifier, adapter.sites(), &config);
        let episodes = episodes(&mut tester);
        match tester.adapt(&episodes[..3]) {
            Ok(outcomes) => {
                composed += 1;
                let before: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.unadapted.clone()).collect();
                let after: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.scores.clone()).collect();
                close(&format!("{method:?}"), &after, &before, 1e-4);
            }
            Err(error) => assert!(error.to_string().contains("prompt to be adapted"), "{method:?}: {error}"),
        }
    }
    assert!(composed > 35, "only {composed} adapters carry an adapted prompt");
}

/// An adapter that does nothing and says that it touches the text tower, so that all tokens run.
struct Untouched;

impl Sites for Untouched {
    fn entry(&self, tower: Tower) -> Entry {
        if tower == Tower::Text { Entry::Tokens } else { Entry::Never }
    }
}

#[test]
fn a_prefix_that_is_run_once_changes_no_answer() {
    let classifier = zero_shot();
    for name in ["tpt", "c-tpt", "swap-prompt"] {
        let config = config(name, &["lr=0.02"]);
        let mut short = tester(&classifier, &Frozen, &config);
        let all = episodes(&mut short);
        let found = short.adapt(&all).expect("answers");
        let expected = tester(&classifier, &Untouched, &config).adapt(&all).expect("answers");
        close(name, &flat(&found), &flat(&expected), 1e-4);
        assert!(found.iter().all(|outcome| outcome.scores != outcome.unadapted), "{name}");
    }
}

#[test]
fn many_classes_are_shared_among_the_cores_without_changing_an_answer() {
    let names: Vec<String> = (0..150).map(|class| format!("{} {}", ["a", "b c", "d"][class % 3], class)).collect();
    let template = Template::new("a photo of a {}.").expect("one place");
    let classifier = Classifier::zero_shot(tiny(), &names, &[template]).expect("plain names");
    for (name, steps) in [("tpt", "steps=1"), ("c-tpt", "steps=2")] {
        let config = config(name, &["lr=0.02", steps]);
        let mut short = tester(&classifier, &Frozen, &config);
        let all = episodes(&mut short);
        let found = short.adapt(&all[..3]).expect("answers");
        let expected = tester(&classifier, &Untouched, &config).adapt(&all[..3]).expect("answers");
        close(name, &flat(&found), &flat(&expected), 1e-4);
        assert!(found.iter().all(|outcome| outcome.scores != outcome.unadapted), "{name}");
    }
}

#[test]
fn every_method_works_over_adapters_of_every_site() {
    for name in
        ["coop", "lora", "ln-tuning", "vpt-deep", "cocoop", "clip-adapter", "tip-adapter", "linear-probe", "maple"]
    {
        let method = methods().into_iter().find(|method| method.name() == name).expect("a method");
        let adapter = trained(&method, &plain());
        let classifier = adapted(&method);
        for name in TEST_TIME_METHODS {
            let config = config(name, &["views=4"]);
            let model = Model { backbone: tiny(), classifier: &classifier, sites: adapter.sites() };
            let mut tester = match TestTime::new(model, &config, Some(tiny()), None) {
                Ok(tester) => tester,
                Err(error) => {
                    assert!(
                        method.name() == "cocoop" && error.to_string().contains("for each image"),
                        "{name}: {error}"
                    );
                    continue;
                }
            };
            let episodes = episodes(&mut tester);
            let outcomes = tester.adapt(&episodes[..4]).unwrap_or_else(|error| panic!("{name}: {error}"));
            let sums = outcomes.iter().map(|outcome| outcome.probabilities().iter().sum::<f32>());
            assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{name} over {}", method.name());
        }
    }
}

#[test]
fn a_method_that_runs_away_is_stopped_and_falls_back() {
    let classifier = zero_shot();
    let config = config("tent", &["lr=10.0", "window=4", "margin=0.0"]);
    let mut tester = tester(&classifier, &Frozen, &config);
    let all = episodes(&mut tester);
    let outcomes: Vec<Outcome> = (0..4)
        .flat_map(|_| all.chunks(4).flat_map(|batch| tester.adapt(batch).expect("answers")).collect::<Vec<_>>())
        .collect();
    let fallen: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.fell_back.is_some()).collect();
    assert!(!fallen.is_empty(), "a rate of 10 must do harm");
    assert!(fallen.iter().all(|outcome| outcome.scores == outcome.unadapted));
    assert!(outcomes.iter().all(|outcome| outcome.scores.iter().all(|score| score.is_finite())));
    assert!(
        fallen.iter().all(|outcome| [FallBack::Collapse, FallBack::NotFinite].contains(&outcome.fell_back.unwrap()))
    );
}

#[test]
fn unsure_answers_are_withheld() {
    let classifier = zero_shot();
    let outcomes = |abstain: &str| {
        let mut tester = tester(&classifier, &Frozen, &config("mta", &[abstain]));
        let all = episodes(&mut tester);
        tester.adapt(&all).expect("answers")
    };
    let confidence = |outcome: &Outcome| outcome.probabilities().into_iter().fold(0.0f32, f32::max);
    assert!(outcomes("abstain=0.0").iter().all(|outcome| !outcome.abstained));
    assert!(outcomes("abstain=0.6").iter().all(|outcome| outcome.abstained == (confidence(outcome) < 0.6)));
}

#[test]
fn what_cannot_fit_is_refused() {
    let classifier = zero_shot();
    let model = Model { backbone: tiny(), classifier: &classifier, sites: &Frozen };
    let huge = config("dmn", &["capacity=1000000", "memory_mib=1"]);
    let error = TestTime::new(model, &huge, None, None).err().expect("too much memory").to_string();
    assert!(error.contains("memory_mib"), "{error}");

    let mut tda = tester(&classifier, &Frozen, &config("tda", &[]));
    let all = episodes(&mut tda);
    tda.adapt(&all).expect("answers");
    let snapshot = tda.snapshot();
    let mut other = tester(&classifier, &Frozen, &config("tda", &["capacity=9"]));
    assert!(other.restore(&snapshot).expect_err("other settings").to_string().contains("method"));
    let fewer = Classifier::zero_shot(tiny(), &classes()[..3], classifier.templates()).expect("plain names");
    let mut other = tester(&fewer, &Frozen, &config("tda", &[]));
    assert!(other.restore(&snapshot).expect_err("other classes").to_string().contains("classes"));
    let templates = [Template::new("a drawing of a {}").expect("one place")];
    let drawings = Classifier::zero_shot(tiny(), &classes(), &templates).expect("plain names");
    let mut other = tester(&drawings, &Frozen, &config("tda", &[]));
    assert!(other.restore(&snapshot).expect_err("other prompts").to_string().contains("templates"));
    // Several templates have no one context; a class name alone has none at all.
    for templates in [&["a photo of a {}.", "a {}"][..], &["{}"]] {
        let templates: Vec<Template> = templates.iter().map(|text| Template::new(text).expect("one place")).collect();
        let classifier = Classifier::zero_shot(tiny(), &classes(), &templates).expect("plain names");
        let mut tpt = tester(&classifier, &Frozen, &config("tpt", &[]));
        let all = episodes(&mut tpt);
        assert!(tpt.adapt(&all).expect_err("no context").to_string().contains("prompt to be adapted"));
    }
}

#[test]
fn a_state_of_other_shapes_is_refused() {
    let classifier = zero_shot();
    // One number, without an axis, where there should be rows.
    let number = |name: &str| HostTensor { shape: Vec::new(), data: vec![1.0], origin: name.into() };
    for (name, tensor) in [("onzeta", "vectors"), ("swap-prompt", "own")] {
        let config = config(name, &[]);
        let mut tester = tester(&classifier, &Frozen, &config);
        let all = episodes(&mut tester);
        tester.adapt(&all).expect("answers");
        let mut snapshot = tester.snapshot();
        assert!(snapshot.tensors.contains_key(tensor), "{name}");
        snapshot.tensors.insert(tensor.into(), number(tensor));
        assert!(tester.restore(&snapshot).is_err(), "{name}");
        // All of one length, and not that of the prompt.
        snapshot.tensors.values_mut().for_each(|own| *own = number(tensor));
        let refused = tester.restore(&snapshot).and_then(|()| tester.adapt(&all));
        assert!(refused.is_err(), "{name}");
    }
}
