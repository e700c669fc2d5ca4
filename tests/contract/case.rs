//! One method on the tiny backbone, fresh or with random non-zero values in place of training.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Frozen, Pass, Sites as _, normalise};
use inarch_core::text::Template;
use inarch_peft::{Adapter, Artifact, Classifier, METHODS, MethodConfig, Provenance, Result, Start, Support};

use crate::support::{classes, draws, plain, randomised, templates, tiny};

/// Settings that fit the tiny backbone, where a preset does not; in TOML, as on the command line.
const TINY_SETTINGS: &[(&str, &str)] = &[
    // Sixteen tokens would leave no room for a class name in a context of twenty.
    ("coop", "context = 4"),
    ("proda", "prompts = 4\ncontext = 4"),
    ("cocoop", "reduction = 4"),
    // Longer templates would not fit either.
    ("promptsrc", "templates = 4"),
    // A hundred are more than a tower this small has values for.
    ("coda-prompt", "components = 7"),
    // One experience leaves no choice.
    ("s-prompts", "experiences = 3\ncentroids = 2"),
    ("sd-lora", "experiences = 3\nrank = 4\ndropout = 0.25"),
    ("moe-adapters", "experiences = 2\nexperts = 3\nhidden = 8\nscale = 1.0\ncode = 1"),
    ("vera", "rank = 16"),
    ("oft", "block = 8"),
    ("fourierft", "coefficients = 20"),
    ("ranpac", "projections = 24"),
    ("acil", "projections = 24"),
    ("rail", "projections = 24"),
    ("st-adapter", "reduction = 6"),
    ("aim", "reduction = 6\nframes = 4"),
    ("vita-clip", "global_tokens = 2\nframes = 4"),
    ("attention-pool", "hidden = 8\nheads = 2\nframes = 4"),
    ("gated-pool", "hidden = 8"),
    ("temporal-conv", "hidden = 8"),
    ("temporal-transformer", "hidden = 8\nheads = 2\nlayers = 2\nframes = 4"),
    ("mma", "hidden = 8\nscale = 1.0"),
    ("adaptformer", "scale = 2.0"),
    // The scores of a random backbone are large beside a vote of weight 1.
    ("tip-adapter", "alpha = 20.0"),
    ("tip-adapter-f", "alpha = 20.0"),
];

/// Forms of a method beside its preset that take another way through the code.
const FORMS: &[(&str, &str)] = &[
    ("coop", "context = 4\nclass_specific = true"),
    ("coop", "context = 5\nclass_position = \"middle\""),
    ("coop", "words = \"a photo of a\"\nclass_position = \"front\"\nclass_specific = true"),
    ("coda-prompt", "experiences = 3\ncomponents = 2"),
    ("clip-adapter", "image = false\ntext = true"),
    ("prefix-tuning", "text = false"),
    ("oft", "block = 8\nneumann_terms = 5"),
    ("boft", "block = 6\nfactors = 1\ntargets = [\"image.*\"]"),
    ("boft", "block = 4\nfactors = 3"),
    ("lora", "init = \"pissa\""),
    ("lora", "init = \"olora\""),
    ("lora", "init = \"eva\""),
    ("vita-clip", "global_tokens = 0\nlocal = false\nframes = 3\ndepth = 2"),
    ("vita-clip", "global_tokens = 1\nsummary = false\nframes = 3"),
    ("aim", "reduction = 6\ntemporal_adapters = 2\nscale = 1.0\nframes = 3"),
    ("temporal-shift", "parts = 3\nattention = false\nfirst_block = 1"),
    ("lora", "b_rate = 16.0\nrank_pattern = [{ sites = \"*.v_proj\", value = 3 }]"),
];

/// Settings that start as zero-shot, for methods whose preset does not.
const ZERO_SHOT_SETTINGS: &[(&str, &str)] = &[("coop", "words = \"a photo of a\"")];

/// A method with its preset and the given settings over it.
pub(crate) fn configured(name: &str, settings: &str) -> MethodConfig {
    let mut table = toml::Table::try_from(MethodConfig::preset(name).expect("a known method")).expect("plain data");
    table.extend(toml::from_str::<toml::Table>(settings).expect("TOML"));
    table.try_into().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn listed(list: &[(&str, &str)], name: &str) -> Option<MethodConfig> {
    list.iter().find(|(listed, _)| *listed == name).map(|(name, settings)| configured(name, settings))
}

/// Every method with its preset, where that fits the tiny backbone, and in its other forms.
pub(crate) fn methods() -> Vec<MethodConfig> {
    let method = |name: &&str| listed(TINY_SETTINGS, name).unwrap_or_else(|| configured(name, ""));
    let forms = FORMS.iter().map(|(name, settings)| configured(name, settings));
    METHODS.iter().map(method).chain(forms).collect()
}

/// Every method in a form that starts as zero-shot, with the templates that it starts as.
pub(super) fn zero_shot_methods() -> Vec<(MethodConfig, Vec<Template>)> {
    let method = |config: MethodConfig| {
        let config = listed(ZERO_SHOT_SETTINGS, config.name()).unwrap_or(config);
        let own = config.templates().expect("valid settings");
        config.starts_as_zero_shot().then_some((config, if own.is_empty() { templates() } else { own }))
    };
    methods().into_iter().filter_map(method).collect()
}

/// The zero-shot class features.
pub(super) fn class_features() -> Tensor<2> {
    Classifier::zero_shot(tiny(), &classes(), &templates()).expect("plain names").features(&Frozen)
}

/// Training images that methods start from.
pub(super) const IMAGES: usize = 8;

/// Initialises a method with two training images of each class, in two views.
pub(super) fn init(config: &MethodConfig, backbone: &Backbone, seed: u64, device: &Device) -> Result<Adapter> {
    let labels: Vec<usize> = (0..IMAGES).map(|image| image / 2).collect();
    let size = backbone.spec().image.size;
    let pixels = draws("support", [16, 3, size, size], 1.0, &plain());
    let features = backbone.encode_image(pixels.clone(), &Frozen, &Pass::evaluate());
    let visit = |take: &mut dyn FnMut(Tensor<4>)| {
        (0..4).for_each(|batch| take(pixels.clone().narrow(0, 4 * batch, 4)));
        Ok(())
    };
    let support = Support { features, views: 2, labels: &labels, pixels: Some(&visit) };
    let class_features = class_features();
    let start = Start::new(backbone, &class_features, Seed::new(seed), device);
    config.init(&Start { support: config.needs_support().then_some(&support), ..start })
}

pub(crate) fn fresh(config: &MethodConfig, seed: u64, device: &Device) -> Adapter {
    init(config, tiny(), seed, device).unwrap_or_else(|error| panic!("{}: {error}", config.name()))
}

/// An adapter that has something to say.
pub(super) fn trained(config: &MethodConfig, device: &Device) -> Adapter {
    randomised(fresh(config, 1, device), 0.3, device)
}

/// A trained adapter as an artifact.
pub(crate) fn artifact(config: &MethodConfig) -> Artifact {
    let metrics = BTreeMap::from([("accuracy".to_string(), 1.0 / 3.0)]);
    let provenance = Provenance { classes: classes(), templates: templates(), data: None, clips: None, metrics };
    Artifact::new(trained(config, &plain()), config.clone(), tiny(), provenance).expect("plain names")
}

/// Scores of images for some classes, as the adapter gives them.
pub(crate) fn scores(
    config: &MethodConfig,
    adapter: &Adapter,
    classes: &[String],
    pixels: Tensor<4>,
    pass: &Pass<'_>,
) -> Tensor<2> {
    let trained = crate::support::classes();
    let classifier =
        Classifier::adapted(tiny(), config, &trained, classes, &templates()).expect("classes of this adapter");
    let image = tiny().encode_image(pixels, adapter, pass);
    let condition = normalise(image.clone());
    let pass = Pass { condition: adapter.conditions_text().then_some(&condition), ..*pass };
    let text = classifier.text(classifier.start(adapter), adapter, &pass);
    classifier.logits(&image, &text, adapter, &pass)
}
