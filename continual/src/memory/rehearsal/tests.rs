use inarch_core::{Digest, Seed};

use super::super::{Content, Fingerprint, Memory, MemoryConfig, Precision, Sample, Sampler, herding};
use super::OVERHEAD;

const SAMPLERS: [Sampler; 5] =
    [Sampler::Reservoir, Sampler::Balanced, Sampler::Herding, Sampler::Ring, Sampler::LossAware];

fn fingerprint() -> Fingerprint {
    let digest = Digest::of(b"backbone");
    Fingerprint { name: "test".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 8 }
}

fn memory(sampler: Sampler, budget_bytes: u64, seed: u64) -> Memory {
    let config = MemoryConfig { budget_bytes, sampler, seed, precision: Precision::F32, ..MemoryConfig::default() };
    Memory::new(config, fingerprint()).unwrap()
}

fn samples(range: std::ops::Range<usize>, classes: usize) -> Vec<Sample> {
    let one = |at: usize| Sample {
        id: format!("{at:05}"),
        class: format!("class {}", at % classes),
        source: "test".into(),
        time: at as u64,
        weight: 1.0 + (at % 5) as f32,
        latent: Seed::new(at as u64).normals(8, 1.0),
        views: Vec::new(),
        image: Some(vec![0; 100]),
        scores: Vec::new(),
    };
    range.map(one).collect()
}

#[test]
fn the_budget_holds_with_everything_counted() {
    for sampler in SAMPLERS {
        for budget in [2048, 5000, 20_000] {
            let mut memory = memory(sampler, budget, 1);
            for part in 0..5 {
                memory.offer(samples(part * 50..(part + 1) * 50, 3 + part)).unwrap();
                assert!(memory.bytes() <= budget, "{sampler:?}");
            }
            assert_eq!(memory.bytes(), memory.snapshot(None).len() as u64, "{sampler:?}");
            assert!(memory.bytes() + 200 > budget || memory.len() == 250, "{sampler:?}: room is left");
            assert_eq!(memory.offered().values().sum::<u64>(), 250);
            assert!(memory.samples().all(|sample| sample.image.is_none()));
        }
    }
    assert!(Memory::new(MemoryConfig { budget_bytes: 10, ..MemoryConfig::default() }, fingerprint()).is_err());
    let config = MemoryConfig { budget_bytes: 1024, content: Content::Images, ..MemoryConfig::default() };
    let mut small = Memory::new(config, fingerprint()).unwrap();
    let mut large = samples(0..1, 1);
    large[0].image = Some(vec![0; 5000]);
    assert!(small.offer(large).unwrap_err().to_string().contains("single sample"));
}

#[test]
fn the_choice_does_not_depend_on_order_or_parts_and_memories_merge() {
    for sampler in [Sampler::Reservoir, Sampler::Balanced, Sampler::Ring, Sampler::LossAware] {
        let mut whole = memory(sampler, 6000, 1);
        whole.offer(samples(0..400, 4)).unwrap();
        let mut parts = memory(sampler, 6000, 1);
        for part in [3, 0, 2, 1] {
            let mut some = samples(part * 100..(part + 1) * 100, 4);
            some.reverse();
            parts.offer(some).unwrap();
        }
        assert_eq!(whole, parts, "{sampler:?}");
        let mut left = memory(sampler, 6000, 1);
        let mut right = memory(sampler, 6000, 1);
        left.offer(samples(0..130, 4)).unwrap();
        right.offer(samples(130..400, 4)).unwrap();
        left.merge(&right).unwrap();
        assert_eq!(whole, left, "{sampler:?}");
    }
    assert!(memory(Sampler::Ring, 6000, 1).merge(&memory(Sampler::Ring, 6000, 2)).is_err());
}

#[test]
fn the_last_byte_of_a_budget_is_the_same_to_all_parts() {
    // More candidates take more digits in the header; a sample takes 84 bytes here, so that one of these budgets would tell.
    for budget in 2048..2148 {
        let of = |from: usize, to: usize| {
            let mut memory = memory(Sampler::Reservoir, budget, 1);
            memory.offer(samples(from..to, 2)).unwrap();
            memory
        };
        let (whole, mut parts) = (of(0, 120), of(0, 60));
        parts.merge(&of(60, 120)).unwrap();
        assert_eq!(whole, parts, "{budget}");
        assert!(whole.len() < 30 && whole.snapshot(None).len() as u64 + OVERHEAD <= budget, "{budget}");
    }
}

#[test]
fn what_two_memories_both_began_with_counts_once() {
    for sampler in [Sampler::Reservoir, Sampler::Balanced, Sampler::Ring, Sampler::LossAware] {
        let of = |parts: &[(usize, usize)]| {
            let mut memory = memory(sampler, 6000, 1);
            parts.iter().for_each(|(from, to)| memory.offer(samples(*from..*to, 4)).unwrap());
            memory
        };
        let base = of(&[(0, 150)]);
        assert!(base.len() < 150, "it has dropped some");
        let (mut left, right) = (of(&[(0, 150), (150, 260)]), of(&[(0, 150), (260, 400)]));
        left.join(&right, Some(&base)).unwrap();
        assert_eq!(left, of(&[(0, 150), (150, 260), (260, 400)]), "{sampler:?}");
    }
}

#[test]
fn a_reservoir_is_a_uniform_sample() {
    // 2000 draws of about 20 of 100: every sample is kept equally often. Chi-square with 99 degrees of freedom is
    // below 149 with probability 0.999; correlations of a draw without replacement only make it smaller.
    let (mut kept, mut total) = (vec![0.0f64; 100], 0.0);
    for seed in 0..2000 {
        let mut memory = memory(Sampler::Reservoir, 2048, seed);
        for part in 0..4 {
            memory.offer(samples(part * 25..(part + 1) * 25, 2)).unwrap();
        }
        for sample in memory.samples() {
            kept[sample.id.parse::<usize>().unwrap()] += 1.0;
            total += 1.0;
        }
    }
    let expected = total / 100.0;
    let square: f64 = kept.iter().map(|count| (count - expected).powi(2) / expected).sum();
    assert!(expected > 200.0 && square < 149.0, "{expected} {square}");
}

#[test]
fn removal_leaves_the_sample_of_the_rest() {
    let mut with = memory(Sampler::Reservoir, 1 << 20, 1);
    with.offer(samples(0..50, 2)).unwrap();
    let ids: Vec<String> = (0..50).step_by(3).map(|at| format!("{at:05}")).collect();
    let gone = with.remove(&ids);
    assert_eq!(gone.len(), ids.len());
    let mut without = memory(Sampler::Reservoir, 1 << 20, 1);
    without.offer(samples(0..50, 2).into_iter().filter(|sample| !ids.contains(&sample.id))).unwrap();
    assert_eq!(with, without);
    // A class whose last sample is taken out is not named any more.
    let gone: Vec<String> =
        with.samples().filter(|sample| sample.class == "class 1").map(|sample| sample.id.clone()).collect();
    with.remove(&gone);
    assert_eq!(with.offered().keys().collect::<Vec<_>>(), ["class 0"]);
    assert!(!with.snapshot(None).windows(7).any(|window| window == b"class 1"));
}

#[test]
fn removal_from_a_full_memory_leaves_a_smaller_sample_of_the_rest() {
    let mut with = memory(Sampler::Reservoir, 4096, 1);
    with.offer(samples(0..200, 2)).unwrap();
    let held = with.len();
    let ids: Vec<String> = (0..200).step_by(3).map(|at| format!("{at:05}")).collect();
    let gone = with.remove(&ids).len();
    assert!(held < 100 && gone > 3 && gone < ids.len(), "{held} {gone}");
    // A budget for as many: some bytes are for digits in the header, and none would do for one more.
    let mut without = memory(Sampler::Reservoir, with.bytes() + OVERHEAD + 20, 1);
    without.offer(samples(0..200, 2).into_iter().filter(|sample| !ids.contains(&sample.id))).unwrap();
    assert!(with.samples().eq(without.samples()));
}

#[test]
fn as_many_samples_count_as_are_there_at_least_and_under_their_classes() {
    let mut memory = memory(Sampler::Balanced, 1 << 20, 1);
    memory.offer(samples(0..4, 2)).unwrap();
    // One of them under another class, twice.
    for _ in 0..2 {
        memory.offer(samples(0..1, 1).into_iter().map(|sample| Sample { class: "class 1".into(), ..sample })).unwrap();
        assert_eq!((memory.offered()["class 0"], memory.offered()["class 1"]), (1, 3));
    }
    // One that the memory never held or has lost already is not taken out of those that it holds.
    memory.remove(&["00000".to_string()]);
    for (class, left) in [("class 1", 2), ("class 0", 1)] {
        memory.uncount_dropped(class);
        assert_eq!(memory.offered()[class], left);
    }
    *memory.offered.get_mut("class 0").unwrap() += 1;
    memory.uncount_dropped("class 0");
    assert_eq!(memory.offered()["class 0"], 1);
}

#[test]
fn classes_share_evenly_and_borrow_what_others_do_not_need() {
    let mut memory = memory(Sampler::Balanced, 8192, 1);
    // 3 of the first class, many of two others.
    let some = samples(0..300, 3).into_iter().filter(|sample| sample.class != "class 0" || sample.time < 9);
    memory.offer(some).unwrap();
    let held = memory.held();
    assert_eq!(held["class 0"], 3);
    assert!(held["class 1"].abs_diff(held["class 2"]) <= 1 && held["class 1"] > 20, "{held:?}");
}

#[test]
fn exemplars_of_a_class_shrink_to_the_first_that_herding_chose_among_all() {
    let of = |class: &str, from: usize| -> Vec<Sample> {
        let some = samples(from..from + 60, 1).into_iter();
        some.map(|sample| Sample { id: format!("{class}/{}", sample.id), class: class.into(), ..sample }).collect()
    };
    let first = of("a", 0);
    let unit = |latent: &[f32]| {
        let length = latent.iter().map(|value| value * value).sum::<f32>().sqrt();
        latent.iter().map(|value| value / length).collect::<Vec<f32>>()
    };
    let rows: Vec<f32> = first.iter().flat_map(|sample| unit(&sample.latent)).collect();
    let order: Vec<String> = herding(&rows, 8, first.len()).into_iter().map(|at| first[at].id.clone()).collect();
    let mut memory = memory(Sampler::Herding, 4096, 1);
    memory.offer(first).unwrap();
    let mut before = memory.len();
    for (class, from) in [("b", 100), ("c", 200), ("d", 300)] {
        memory.offer(of(class, from)).unwrap();
        let held: Vec<&String> =
            memory.samples().filter(|sample| sample.class == "a").map(|sample| &sample.id).collect();
        assert!(held.len() > 5 && held.len() < before, "{} of {before}", held.len());
        before = held.len();
        let mut expected: Vec<&String> = order[..held.len()].iter().collect();
        expected.sort();
        assert_eq!(held, expected, "after {class}");
        // The places are part of the snapshot.
        let read = Memory::decode(&memory.snapshot(None), std::path::Path::new("a snapshot"), None).unwrap();
        assert_eq!(read, memory);
    }
}

#[test]
fn samplers_keep_what_they_promise() {
    let mut ring = memory(Sampler::Ring, 4096, 1);
    ring.offer(samples(0..300, 3)).unwrap();
    let oldest = ring.samples().map(|sample| sample.time).min().unwrap();
    assert_eq!(oldest as usize, 300 - ring.len());
    let mut weights = 0.0;
    for seed in 0..40 {
        let mut aware = memory(Sampler::LossAware, 4096, seed);
        aware.offer(samples(0..300, 3)).unwrap();
        weights += aware.samples().map(|sample| f64::from(sample.weight)).sum::<f64>() / aware.len() as f64 / 40.0;
    }
    // In proportion to weights 1 to 5 the mean weight would be 55 / 15, evenly 3.
    assert!((weights - 55.0 / 15.0).abs() < 0.15, "{weights}");
    let mut young = memory(Sampler::Reservoir, 1 << 20, 1);
    young.config.most_days = Some(1);
    young.offer(samples(0..10, 2)).unwrap();
    assert_eq!((young.expire(86_400 + 4), young.len()), (4, 6));
}

#[test]
fn latents_that_were_held_are_joined_with_images_and_take_the_place_of_none() {
    let images = |range| {
        let mut memory = memory(Sampler::Balanced, 60_000, 1);
        memory.config.content = Content::Images;
        memory.offer(samples(range, 3)).unwrap();
        memory
    };
    let latents = || {
        let mut memory = memory(Sampler::Balanced, 20_000, 1);
        memory.offer(samples(0..30, 3)).unwrap();
        assert!(memory.samples().all(|sample| sample.image.is_none()));
        memory
    };
    assert!(latents().merge(&images(20..50)).is_err());
    let one = |mut left: Memory, right: &Memory| {
        left.merge(right).unwrap();
        left
    };
    let old = latents().keeping_images(60_000);
    let both = one(old.clone(), &images(20..50));
    // Ten are in both and were offered once.
    assert_eq!((both.len(), both.offered().values().sum::<u64>()), (50, 50));
    assert_eq!(both.samples().filter(|sample| sample.image.is_some()).count(), 30);
    assert!(both == one(images(20..50), &old) && both.bytes() <= both.config().budget_bytes);
}

#[test]
fn every_view_is_counted_in_the_budget_and_comes_back() {
    let in_views = |count: usize| -> Vec<Sample> {
        let one = |sample: Sample| {
            let views = Seed::new(sample.time).split("views").normals(8 * (count - 1), 1.0);
            Sample { views, ..sample }
        };
        samples(0..200, 4).into_iter().map(one).collect()
    };
    for (precision, latent) in [(Precision::F32, 32), (Precision::F16, 16), (Precision::Int8, 12)] {
        let of = |views: usize| {
            let config = MemoryConfig { budget_bytes: 6000, precision, views, ..MemoryConfig::default() };
            let mut memory = Memory::new(config, fingerprint()).unwrap();
            memory.offer(in_views(views)).unwrap();
            memory
        };
        let (one, three) = (of(1), of(3));
        assert!(three.len() < one.len(), "{precision:?}");
        for memory in [&one, &three] {
            let bytes = memory.snapshot(None);
            assert!(memory.bytes() == bytes.len() as u64 && memory.bytes() <= 6000, "{precision:?}");
            // What one sample more would take is not left.
            assert!(memory.bytes() + 3 * latent + 150 > 6000, "{precision:?}: room is left");
            assert_eq!(&Memory::decode(&bytes, std::path::Path::new("a snapshot"), None).unwrap(), memory);
        }
        let named = |memory: &Memory| memory.snapshot(None).windows(7).any(|window| window == b"\"views\"");
        assert!(named(&three) && !named(&one), "a memory of one view is written as before");
        // The same samples fill the same bytes but for their further views, and the word in the header.
        let few = |views: usize| {
            let config = MemoryConfig { precision, views, ..MemoryConfig::default() };
            let mut memory = Memory::new(config, fingerprint()).unwrap();
            memory.offer(in_views(views).into_iter().take(9)).unwrap();
            (memory.len(), memory.bytes())
        };
        let ((count, bytes), (same, more)) = (few(1), few(3));
        assert_eq!((count, same), (9, 9));
        assert_eq!(more - bytes, 9 * 2 * latent + ",\"views\":3".len() as u64, "{precision:?}");
    }
}

#[test]
fn a_latent_that_could_not_be_read_back_is_refused() {
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        let config = MemoryConfig { precision, ..MemoryConfig::default() };
        let mut memory = Memory::new(config, fingerprint()).unwrap();
        memory.offer(samples(0..3, 1)).unwrap();
        let mut large = samples(3..4, 1);
        large[0].latent[5] = 1e5;
        match memory.offer(large) {
            Ok(()) => assert!(precision != Precision::F16 && memory.len() == 4),
            Err(error) => assert!(precision == Precision::F16 && error.to_string().contains("`00003`"), "{error}"),
        }
        let read = Memory::decode(&memory.snapshot(None), std::path::Path::new("a snapshot"), None);
        assert_eq!(read.unwrap(), memory, "{precision:?}");
    }
}

#[test]
fn another_number_of_views_is_refused() {
    let three = |seed: u64| {
        let config = MemoryConfig { views: 3, seed, ..MemoryConfig::default() };
        Memory::new(config, fingerprint()).unwrap()
    };
    let in_views = |count: usize| {
        let views = Seed::new(1).normals(8 * (count - 1), 1.0);
        samples(0..1, 1).into_iter().map(move |sample| Sample { views: views.clone(), ..sample })
    };
    let mut memory = three(1);
    for count in [1, 2, 4] {
        let said = memory.offer(in_views(count)).unwrap_err().to_string();
        assert!(said.contains(&format!("of {count} views")) && said.contains("keeps 3"), "{said}");
    }
    memory.offer(in_views(3)).unwrap();
    assert!(self::memory(Sampler::Balanced, 4096, 1).offer(in_views(3)).is_err());
    // A memory of one view and one of three do not become one.
    let one = Memory::new(MemoryConfig::default(), fingerprint()).unwrap();
    let said = memory.merge(&one).unwrap_err().to_string();
    assert!(said.contains("\"views\":3"), "{said}");
    let (views, content) = (MemoryConfig { views: 2, ..MemoryConfig::default() }, Content::Images);
    assert!(views.check().is_ok() && MemoryConfig { content, ..views }.check().is_err());
    assert!([0, 65, usize::MAX].iter().all(|count| MemoryConfig { views: *count, ..views }.check().is_err()));
    let mut without_end = three(1);
    without_end.config.views = usize::MAX;
    let read = Memory::decode(&without_end.snapshot(None), std::path::Path::new("a snapshot"), None);
    assert!(read.unwrap_err().to_string().contains("memory.views"));
}
