//! How an adapter starts.

use inarch_core::backbone::{Frozen, Pass};
use inarch_core::text::Template;
use inarch_peft::{Adapter, Classifier, CoopConfig, Error, LoraConfig, LoraInit, MethodConfig};

use super::case::{configured, fresh, methods, scores, zero_shot_methods};
use crate::support::{classes, differs, pixels, plain, same, templates, tiny};

/// Methods that start from given values alone.
const START_WITHOUT_DRAWS: &[&str] = &[
    "linear-probe",
    "kgcoop",
    "prograd",
    "biomedcoop",
    "2sfs",
    "oft",
    "boft",
    "fourierft",
    "ia3",
    "bitfit",
    "ln-tuning",
    "ssf",
    "clap",
    "cross-modal",
    "lp-plus-plus",
    "prolip",
    "taskres",
    "linear-head",
    "temporal-shift",
    "temperature",
    "vector-scaling",
    "tip-adapter",
    "tip-adapter-f",
    "simple-cil",
    "ranpac",
    "acil",
    "rail",
    "rail-dual",
    "fecam",
];

/// Scores without any adapter.
fn zero_shot(templates: &[Template]) -> burn::tensor::Tensor<2> {
    let classifier = Classifier::zero_shot(tiny(), &classes(), templates).expect("plain names");
    let image = tiny().encode_image(pixels(3), &Frozen, &Pass::evaluate());
    classifier.logits(&image, &classifier.features(&Frozen), &Frozen, &Pass::evaluate())
}

#[test]
fn a_fresh_adapter_scores_as_zero_shot() {
    for (config, templates) in zero_shot_methods() {
        let found = scores(&config, &fresh(&config, 1, &plain()), &classes(), pixels(3), &Pass::evaluate());
        same(config.name(), found, zero_shot(&templates), 1e-6);
    }
}

#[test]
fn random_values_are_no_zero_shot() {
    // Guards the other laws, which would hold for an adapter that is never asked.
    // Of one image there is nothing to weigh.
    for config in methods().into_iter().filter(|config| config.name() != "gated-pool") {
        let adapter = super::case::trained(&config, &plain());
        let found = scores(&config, &adapter, &classes(), pixels(3), &Pass::evaluate());
        differs(config.name(), found, zero_shot(&templates()));
    }
}

#[test]
fn one_seed_gives_one_adapter_and_another_seed_another() {
    for config in methods() {
        let parameters = |seed: u64| fresh(&config, seed, &plain()).parameters();
        assert_eq!(parameters(1), parameters(1), "{}", config.name());
        // A method whose start is drawn says so in its settings or documentation; none may draw from anything else.
        let given = match &config {
            MethodConfig::Coop(coop) => !coop.words.is_empty(),
            MethodConfig::Lora(lora) => matches!(lora.init, LoraInit::Pissa | LoraInit::Olora),
            _ => false,
        };
        let drawn = !START_WITHOUT_DRAWS.contains(&config.name()) && !given;
        assert_eq!(parameters(1) != parameters(2), drawn, "{}", config.name());
    }
}

#[test]
fn the_number_of_trained_values_is_the_documented_one() {
    for config in methods() {
        let name = config.name();
        let adapter = fresh(&config, 1, &plain());
        assert_eq!(adapter.trainable(), config.trainable(tiny(), classes().len(), super::case::IMAGES), "{name}");
        let stored: usize = adapter.parameters().values().map(|tensor| tensor.data.len()).sum();
        assert_eq!(burn::module::Module::num_params(&adapter), stored, "{name}");
    }
}

#[test]
fn a_setting_outside_its_domain_is_refused_by_name() {
    let lora = |change: fn(&mut LoraConfig)| {
        let mut config = LoraConfig::default();
        change(&mut config);
        MethodConfig::Lora(config)
    };
    let coop = |context: usize| MethodConfig::Coop(CoopConfig { context, ..CoopConfig::default() });
    for (config, setting) in [
        (lora(|config| config.rank = 0), "rank"),
        (lora(|config| config.rank = 1_000_000_000_000), "rank"),
        (lora(|config| config.dropout = 1.0), "dropout"),
        (lora(|config| config.dropout = f64::NAN), "dropout"),
        (lora(|config| config.targets.clear()), "targets"),
        (coop(0), "context"),
        (coop(17), "context"),
        (coop(1_000_000_000_000), "context"),
        (configured("cocoop", "reduction = 0"), "reduction"),
        (configured("kgcoop", "weight = inf"), "weight"),
        (configured("biomedcoop", "kdsp = nan"), "kdsp"),
        (configured("biomedcoop", "tau = 0.0"), "tau"),
        (configured("prograd", "strength = 1.5"), "strength"),
        (configured("proda", "prompts = 1"), "prompts"),
        (configured("proda", "prompts = 1000000000000"), "prompts"),
        (configured("tcp", "depth_share = 1.0"), "depth_share"),
        (configured("vpt-shallow", "tokens = 0"), "tokens"),
        (configured("vpt-deep", "tokens = 1000000000000"), "tokens"),
        (configured("ivlp", "depth = 0"), "depth"),
        (configured("ivlp", "text_tokens = 50"), "tokens"),
        (configured("maple", "tokens = 50"), "tokens"),
        (configured("promptsrc", "deviation = 0.0"), "deviation"),
        (configured("prefix-tuning", "tokens = 0"), "tokens"),
        (configured("prefix-tuning", "image = false\ntext = false"), "image"),
        (configured("2sfs", "first_stage = 1.0"), "first_stage"),
        (configured("dora", "rank = 0"), "rank"),
        (configured("vera", "rank = 0"), "rank"),
        (configured("loha", "rank = 0"), "rank"),
        (configured("lokr", "rank = 0"), "rank"),
        (configured("oft", "block = 7"), "block"),
        (configured("boft", "block = 7"), "block"),
        (configured("boft", "factors = 3"), "block"),
        (configured("boft", "factors = 0"), "factors"),
        (configured("fourierft", "coefficients = 0"), "coefficients"),
        (configured("houlsby", "reduction = 0"), "reduction"),
        (configured("mma", "hidden = 0"), "hidden"),
        (configured("st-adapter", "reduction = 0"), "reduction"),
        (configured("st-adapter", "kernel = 4"), "kernel"),
        (configured("st-adapter", "first_block = 2"), "first_block"),
        (configured("st-adapter", "after_attention = false\nafter_mlp = false"), "after_attention"),
        (configured("aim", "reduction = 0"), "reduction"),
        (configured("aim", "scale = nan"), "scale"),
        (configured("aim", "temporal_adapters = 3"), "temporal_adapters"),
        (configured("aim", "frames = 0"), "frames"),
        (configured("aim", "frames = 1000000000000"), "frames"),
        (configured("temporal-shift", "parts = 1"), "parts"),
        (configured("temporal-shift", "parts = 49"), "parts"),
        (configured("temporal-shift", "attention = false\nmlp = false"), "attention"),
        (configured("temporal-shift", "first_block = 3"), "first_block"),
        (configured("vita-clip", "global_tokens = 1000000000000"), "global_tokens"),
        (configured("vita-clip", "global_tokens = 0\nlocal = false\nsummary = false"), "global_tokens"),
        (configured("vita-clip", "frames = 0"), "frames"),
        (configured("vita-clip", "frames = 1000000000000"), "frames"),
        (configured("vita-clip", "depth = 0"), "depth"),
        (configured("attention-pool", "heads = 0"), "heads"),
        (configured("gated-pool", "hidden = 0"), "hidden"),
        (configured("attention-pool", "frames = 1000000000000"), "frames"),
        (configured("temporal-conv", "kernel = 0"), "kernel"),
        (configured("temporal-conv", "hidden = 0"), "hidden"),
        (configured("temporal-transformer", "heads = 3"), "heads"),
        (configured("temporal-transformer", "layers = 0"), "layers"),
        (configured("clip-adapter", "ratio = 2.0"), "ratio"),
        (configured("taskres", "alpha = 0.0"), "alpha"),
    ] {
        let result = super::case::init(&config, tiny(), 1, &plain());
        match result.map(|adapter: Adapter| adapter.trainable()) {
            Err(Error::Setting { setting: found, .. }) => assert_eq!(found, setting),
            other => panic!("`{setting}` of {config:?}: {other:?}"),
        }
    }
    let config = lora(|config| config.targets = vec!["*.q_proj".into(), "*.query".into()]);
    let result = super::case::init(&config, tiny(), 1, &plain());
    let message = result.expect_err("a target that selects nothing").to_string();
    assert!(message.contains("`*.query`") && message.contains("image.blocks.0.q_proj"), "{message}");
}
