//! Which loss pairs are trained by, and that an offset of scores changes no probability.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Frozen, Pass, normalise, values};
use inarch_core::checkpoint::open_backbone;
use inarch_core::data::{Dataset, open_dataset, read_captions};
use inarch_core::image::{ImageBatch, ImageJob, Loader, OnBadImage, View};
use inarch_peft::Artifact;
use inarch_recipes::{Control, FitReport, PairLoss, PairSet, Pairs, Recipe, RecipeLayers, Session, Silent, Subset};

use crate::support::{close, copied, edit_tensors, fixture, plain, tiny};

const CAPTIONS: [&str; 6] = ["a cat", "a dog", "a cat", "a small dog", "a mat", "a dog on a mat"];

/// A PNG image that is like no other.
fn image(path: &Path, number: u32) {
    let pixel =
        |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c| ((53 * number + 40 * c + 9 * x + 5 * y * number) % 256) as u8));
    image::RgbImage::from_fn(32, 32, pixel).save(path).expect("a PNG file");
}

fn pairs(folder: &Path) -> PairSet {
    let mut manifest = String::from("path,caption\n");
    for (number, caption) in CAPTIONS.iter().enumerate() {
        image(&folder.join(format!("{number}.png")), number as u32);
        manifest.push_str(&format!("{number}.png,{caption}\n"));
    }
    let path = folder.join("captions.csv");
    std::fs::write(&path, manifest).expect("a writable folder");
    PairSet::from_captions(&read_captions(&path, None).expect("captions")).expect("pairs")
}

fn recipe(method: &str, settings: &[&str]) -> Recipe {
    let mut layers = RecipeLayers::preset(method, false).expect("a preset");
    let shared = [
        "views=1",
        "train.batch=6",
        "train.budget={ iterations = 3 }",
        "augment={ crop = \"centre\", flip = 0.0 }",
        "templates=[\"a {}\"]",
    ];
    for assignment in shared.iter().chain(settings) {
        layers.set(assignment).expect("a setting");
    }
    layers.finish().expect("a recipe")
}

fn train(backbone: &Backbone, set: &PairSet, settings: &[&str]) -> inarch_recipes::Result<(Artifact, FitReport)> {
    let (folder, stop) = (tempfile::tempdir().expect("a folder"), AtomicBool::new(false));
    let dataset = set.dataset("pairs");
    let session = Session::new(backbone, &dataset, Subset::All, OnBadImage::Fail, Control::new(&Silent, &stop))?;
    session.fit_pairs(&recipe("lora", &[&["method.dropout=0.0"][..], settings].concat()), set, folder.path())
}

/// The loss of the frozen backbone over all pairs.
fn frozen_loss(backbone: &Backbone, set: &PairSet, loss: PairLoss) -> f32 {
    let jobs = (0..set.len()).map(|index| {
        let path = set.path(index).clone();
        ImageJob { index, path, frame: None, bytes: None, view: View::Centre }
    });
    let mut features = Vec::new();
    let loader = Loader::new(backbone.preprocess().clone()).expect("a preprocessing");
    let take = |batch: ImageBatch| -> inarch_core::Result<()> {
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        features.push(normalise(backbone.encode_image(pixels, &Frozen, &Pass::evaluate())));
        Ok(())
    };
    loader.run(&jobs.collect::<Vec<_>>(), take).expect("readable images");
    let image = Tensor::cat(features, 0);
    let pairs = Pairs::new(CAPTIONS.map(|caption| (caption.to_string(), caption.to_string())));
    let text = normalise(backbone.text_features(&pairs.texts, 8).expect("texts"));
    let number = |value: f32| Tensor::<1>::from_data([value], &plain());
    let scale = backbone.logit_scale();
    values(match loss {
        PairLoss::Softmax => pairs.loss(image, text, number(scale), 0.0),
        PairLoss::Sigmoid => {
            let likeliest = pairs.likeliest_bias(image.clone(), text.clone(), scale);
            pairs.sigmoid_loss(image, text, number(scale), number(backbone.logit_bias().unwrap_or(likeliest)))
        }
    })[0]
}

#[test]
fn pairs_are_trained_by_the_loss_of_the_backbone_or_of_the_recipe() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = pairs(folder.path());
    let siglip = open_backbone(&fixture("parity/families/siglip"), &plain()).expect("a backbone");
    let runs: [(&Backbone, &[&str], PairLoss); 4] = [
        (&siglip, &[], PairLoss::Sigmoid),
        (&siglip, &["train.pair_loss=\"softmax\""], PairLoss::Softmax),
        (tiny(), &[], PairLoss::Softmax),
        (tiny(), &["train.pair_loss=\"sigmoid\""], PairLoss::Sigmoid),
    ];
    for (backbone, settings, loss) in runs {
        let (_, report) = train(backbone, &set, settings).expect("a run");
        let what = format!("{} {loss:?}", backbone.name());
        // What decided is beside the result.
        assert_eq!(report.recipe.train.pair_loss, Some(loss), "{what}");
        close(&what, &report.losses[..1], &[frozen_loss(backbone, &set, loss)], 1e-5);
        assert!(report.losses[2] < report.losses[0], "{what}: {:?}", report.losses);
    }
}

#[test]
fn a_pair_whose_image_cannot_be_read_leaves_the_others_their_captions() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = pairs(folder.path());
    let manifest = std::fs::read_to_string(folder.path().join("captions.csv")).expect("captions");
    let others: String =
        manifest.lines().filter(|line| !line.starts_with("0.png")).map(|line| format!("{line}\n")).collect();
    let path = folder.path().join("others.csv");
    std::fs::write(&path, others).expect("a writable folder");
    let others = PairSet::from_captions(&read_captions(&path, None).expect("captions")).expect("pairs");
    std::fs::write(folder.path().join("0.png"), "no image").expect("a writable folder");
    // An adapter of the texts alone, beside features that are computed once.
    let texts = recipe("lora", &["method.dropout=0.0", "method.targets=[\"text.*.q_proj\"]"]);
    let [found, expected] = [&all, &others].map(|set| {
        let (out, stop) = (tempfile::tempdir().expect("a folder"), AtomicBool::new(false));
        let dataset = set.dataset("pairs");
        let control = Control::new(&Silent, &stop);
        let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Skip, control).expect("a session");
        session.fit_pairs(&texts, set, out.path()).expect("a run").1
    });
    close("losses", &found.losses, &expected.losses, 1e-6);
    assert_eq!((found.data.train, found.data.skipped.len()), (5, 1));
}

/// Images of three classes; with `several`, of any number of them.
fn classes(folder: &Path, several: bool) -> Dataset {
    let mut manifest = String::from("path,label,split\n");
    for number in 0..9u32 {
        image(&folder.join(format!("{number}.png")), number);
        let label = ["cat", "dog", "mat"][number as usize % 3];
        let label = if several { ["cat;dog", "dog", "mat;cat"][number as usize % 3] } else { label };
        manifest.push_str(&format!("{number}.png,{label},{}\n", if number < 6 { "train" } else { "test" }));
    }
    let path = folder.join("labels.csv");
    std::fs::write(&path, manifest).expect("a writable folder");
    open_dataset(&path, None).expect("labels")
}

#[test]
fn an_offset_of_all_scores_changes_no_probability() {
    let opened = |bias: f32| {
        let folder = copied("parity/families/siglip");
        edit_tensors(&folder.path().join("model.safetensors"), |tensors| {
            tensors.get_mut("logit_bias").expect("an offset").data = vec![bias];
        });
        open_backbone(folder.path(), &plain()).expect("a backbone")
    };
    let backbones = [opened(-16.5), opened(0.0)];
    let folder = tempfile::tempdir().expect("a folder");
    for several in [false, true] {
        let dataset = classes(folder.path(), several);
        let methods: [(&str, &[&str]); 7] = [
            ("lora", &["method.dropout=0.0"]),
            ("coop", &["method.context=2"]),
            ("cocoop", &["method.context=2"]),
            ("linear-probe", &[]),
            ("temperature", &[]),
            ("linear-head", &[]),
            ("lp-plus-plus", &[]),
        ];
        for (method, settings) in methods {
            if several && ["temperature", "lp-plus-plus"].contains(&method) {
                continue; // One scales the distance from fixed offsets, the other knows single labels only.
            }
            let stop = AtomicBool::new(false);
            let [with, without] = backbones.each_ref().map(|backbone| {
                let control = Control::new(&Silent, &stop);
                let session = Session::new(backbone, &dataset, Subset::All, OnBadImage::Fail, control).expect("data");
                let out = tempfile::tempdir().expect("a folder");
                let run = session.fit(&recipe(method, settings), out.path());
                run.unwrap_or_else(|error| panic!("{method}: {error}")).1
            });
            let what = format!("{method}, several: {several}");
            close(&what, &with.losses, &without.losses, 1e-3);
            let measures = |report: &FitReport| {
                let metrics = &report.test.as_ref().expect("test images").metrics;
                [metrics.nll as f32, metrics.ece as f32]
            };
            close(&what, &measures(&with), &measures(&without), 1e-3);
        }
    }
}
