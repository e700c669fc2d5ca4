//! Clips: every method takes them, no clip sees another, and what is frozen is computed for each frame by itself.

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Entry, Frames, Frozen, Mixed, Partial, Pass, PoolBase, Sites, Stack, Tower};
use inarch_core::data::ClipConfig;
use inarch_peft::{Artifact, MethodConfig, Provenance, Stacking};

use super::case::{fresh, methods, trained};
use crate::support::{classes, differs, pixels, plain, randomised, same, templates, tiny};

const FRAMES: usize = 3;

/// Methods that see the order of frames.
const TEMPORAL: &[&str] = &["st-adapter", "vita-clip", "attention-pool", "temporal-conv", "temporal-transformer"];

/// Methods that weigh frames, whatever their order.
const WEIGHING: &[&str] = &["gated-pool"];

fn mixes_frames(config: &MethodConfig) -> bool {
    TEMPORAL.contains(&config.name()) || WEIGHING.contains(&config.name())
}

/// Methods whose image prompts depend on the clip's feature, which is not that of each frame.
const BY_CLIP: &[&str] = &["l2p", "coda-prompt", "dual-prompt", "s-prompts", "moe-adapters"];

fn pass() -> Pass<'static> {
    Pass { frames: Frames::of(FRAMES), ..Pass::evaluate() }
}

/// Features `[clips, dim]`.
fn image(pixels: Tensor<4>, sites: &dyn Sites) -> Tensor<2> {
    tiny().encode_image(pixels, sites, &pass())
}

/// Frames of some clips out of `pixels(12)`.
fn clip(at: usize) -> Tensor<4> {
    pixels(4 * FRAMES).narrow(0, at * FRAMES, FRAMES)
}

/// The same clips with the frames of each backwards.
fn backwards(pixels: Tensor<4>) -> Tensor<4> {
    let [rows, channels, height, width] = pixels.dims();
    pixels
        .reshape([rows / FRAMES, FRAMES, channels * height * width])
        .flip([1])
        .reshape([rows, channels, height, width])
}

/// The mean over the frames of each clip.
fn mean(frames: Tensor<2>) -> Tensor<2> {
    let [rows, dim] = frames.dims();
    frames.reshape([rows / FRAMES, FRAMES, dim]).mean_dim(1).squeeze_dim::<2>(1)
}

#[test]
fn a_clip_does_not_depend_on_its_batch() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let together = image(pixels(4 * FRAMES), &adapter);
        assert_eq!(together.dims()[0], 4, "{}", config.name());
        for row in 0..4 {
            same(config.name(), together.clone().narrow(0, row, 1), image(clip(row), &adapter), 1e-5);
        }
        let others = image(Tensor::cat(vec![clip(3), clip(1)], 0), &adapter);
        same(
            config.name(),
            others,
            Tensor::cat(vec![together.clone().narrow(0, 3, 1), together.narrow(0, 1, 1)], 0),
            1e-5,
        );
    }
}

#[test]
fn only_temporal_methods_see_the_order_of_frames() {
    for config in methods() {
        // Large values, so that attention is not flat.
        let adapter = randomised(fresh(&config, 1, &plain()), 1.0, &plain());
        let [forwards, backwards] =
            [pixels(2 * FRAMES), backwards(pixels(2 * FRAMES))].map(|pixels| image(pixels, &adapter));
        match TEMPORAL.contains(&config.name()) {
            true => differs(config.name(), forwards, backwards),
            false => same(config.name(), forwards, backwards, 1e-5),
        }
    }
}

#[test]
fn methods_that_know_nothing_of_time_see_the_mean_of_frames() {
    let clips = || pixels(2 * FRAMES);
    let frozen = mean(tiny().encode_image(clips(), &Frozen, &Pass::evaluate()));
    same("no adapter", image(clips(), &Frozen), frozen.clone(), 1e-6);
    for config in methods().iter().filter(|config| !mixes_frames(config)) {
        let adapter = trained(config, &plain());
        let expected = match adapter.entry(Tower::Image) {
            Entry::Feature | Entry::Never => adapter.feature(Tower::Image, frozen.clone(), &pass()),
            _ if BY_CLIP.contains(&config.name()) => continue,
            _ => mean(tiny().encode_image(clips(), &adapter, &Pass::evaluate())),
        };
        same(config.name(), image(clips(), &adapter), expected, 1e-5);
    }
}

#[test]
fn a_fresh_temporal_method_is_mean_pooling() {
    let starting = |config: &&MethodConfig| mixes_frames(config) && config.starts_as_zero_shot();
    for config in methods().iter().filter(starting) {
        let found = image(pixels(2 * FRAMES), &fresh(config, 1, &plain()));
        same(config.name(), found, image(pixels(2 * FRAMES), &Frozen), 1e-6);
    }
}

#[test]
fn a_clip_of_one_frame_is_an_image() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let one = Pass { frames: Frames::of(1), ..Pass::evaluate() };
        let still = tiny().encode_image(pixels(2), &adapter, &Pass::evaluate());
        same(config.name(), tiny().encode_image(pixels(2), &adapter, &one), still, 0.0);
    }
}

#[test]
fn frozen_work_is_done_once_for_each_frame() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let entry = adapter.entry(Tower::Image).min(Entry::Pool);
        // Frame by frame, as they lie in a store.
        let stored = tiny().start_image(pixels(2 * FRAMES), entry);
        let partial = match stored.stream() {
            Some(stream) => Partial::image_stream(entry, stream),
            None => Partial::frames(stored.into_feature().expect("features")),
        };
        let found = tiny().finish(Tower::Image, partial, &adapter, &pass());
        same(config.name(), found, image(pixels(2 * FRAMES), &adapter), 1e-6);
        let parts = tiny().evaluate_clips(pixels(2 * FRAMES), Frames::of(FRAMES), &adapter);
        same(config.name(), parts, image(pixels(2 * FRAMES), &adapter), 1e-5);
    }
}

#[test]
fn clips_with_different_adapters_share_a_batch() {
    let lora = trained(&MethodConfig::preset("lora").expect("a preset"), &plain());
    for config in methods() {
        let first = trained(&config, &plain());
        let second = randomised(fresh(&config, 1, &plain()), 0.5, &plain());
        let mut members: Vec<&dyn Sites> = vec![&first, &second];
        if config.stacking() == Stacking::Anywhere {
            members.extend([&lora as &dyn Sites, &Frozen]);
        }
        let rows = members.iter().map(|member| (1, *member)).collect();
        let all = pixels(4 * FRAMES).narrow(0, 0, members.len() * FRAMES);
        let together = image(all, &Mixed::new(rows, Vec::new()));
        for (row, member) in members.iter().enumerate() {
            same(config.name(), together.clone().narrow(0, row, 1), image(clip(row), *member), 1e-5);
        }
    }
}

#[test]
fn in_a_stack_the_last_pool_wraps_the_others() {
    let of = |name: &str| {
        let config = methods().into_iter().find(|config| config.name() == name).expect("a method");
        trained(&config, &plain())
    };
    let (conv, attention) = (of("temporal-conv"), of("attention-pool"));
    let frames = tiny().encode_image(pixels(2 * FRAMES), &Frozen, &Pass::evaluate());
    let dim = frames.dims()[1];
    let plain_mean = |frames: Tensor<3>| frames.mean_dim(1).squeeze_dim::<2>(1);
    let below = |frames| conv.pool(PoolBase::new(&plain_mean), frames, &pass());
    let expected = attention.pool(PoolBase::new(&below), frames.reshape([2, FRAMES, dim]), &pass());
    let found = image(pixels(2 * FRAMES), &Stack(vec![&conv, &attention]));
    same("a stack", found.clone(), expected, 1e-5);
    differs("the other order", found, image(pixels(2 * FRAMES), &Stack(vec![&attention, &conv])));
}

#[test]
fn prompts_of_clips_stand_beside_methods_of_norms_layers_and_branches() {
    let of = |name: &str| methods().into_iter().find(|config| config.name() == name).expect("a method");
    let prompts = trained(&of("vita-clip"), &plain());
    let stacked = |members: Vec<&dyn Sites>| image(pixels(2 * FRAMES), &Stack(members));
    let alone = image(pixels(2 * FRAMES), &prompts);
    for name in ["ln-tuning", "ssf", "lora", "st-adapter", "temporal-conv"] {
        let idle = fresh(&of(name), 1, &plain());
        same(name, stacked(vec![&prompts, &idle]), alone.clone(), 1e-5);
        same(name, stacked(vec![&idle, &prompts]), alone.clone(), 1e-5);
        let busy = trained(&of(name), &plain());
        differs(name, stacked(vec![&prompts, &busy]), alone.clone());
    }
}

#[test]
fn an_adapter_of_clips_is_saved_and_loaded() {
    for config in methods().iter().filter(|config| mixes_frames(config)) {
        let clips = Some(ClipConfig { frames: FRAMES, ..ClipConfig::default() });
        let provenance =
            Provenance { classes: classes(), templates: templates(), data: None, clips, metrics: Default::default() };
        let artifact =
            Artifact::new(trained(config, &plain()), config.clone(), tiny(), provenance).expect("plain names");
        let folder = tempfile::tempdir().expect("a folder");
        artifact.save(folder.path()).expect("a writable folder");
        let loaded = Artifact::load(folder.path(), tiny()).expect("what was saved");
        loaded.self_test(tiny()).expect("the adapter that was saved");
        assert_eq!(loaded.manifest, artifact.manifest);
        let inputs = loaded.manifest.self_test.inputs.as_ref().expect("what an adapter of today tells");
        assert_eq!((inputs.frames, inputs.shape[0]), (FRAMES, 2 * FRAMES));
        same(config.name(), image(pixels(FRAMES), &loaded.adapter), image(pixels(FRAMES), &artifact.adapter), 0.0);
        // The golden clips are clips: with still images in their place the test would not hold.
        let mut still = loaded;
        still.manifest.clips = None;
        still.self_test(tiny()).expect_err("other inputs give other scores");
    }
}

#[test]
fn a_training_pass_over_clips_repeats_and_reaches_every_parameter() {
    for config in methods().iter().filter(|config| mixes_frames(config)) {
        let device = plain().autodiff();
        let adapter = trained(config, &device);
        let pass = Pass { frames: Frames::of(FRAMES), ..Pass::train(Seed::new(1)) };
        let feature = tiny().encode_image(pixels(2 * FRAMES), &adapter, &pass);
        let weights = crate::support::draws("weights", feature.dims(), 1.0, &plain());
        for gradient in crate::support::gradients(&adapter, &(feature * weights).sum()) {
            let greatest = gradient.greatest.unwrap_or(0.0);
            assert!(greatest > 0.0 && greatest.is_finite(), "{}: `{}` {greatest}", config.name(), gradient.name);
        }
    }
}
