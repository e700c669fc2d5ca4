//! `inarch demo`: the whole story on real images, offline.

use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use inarch_core::data::{Dataset, Source, open_dataset};
use inarch_core::file;
use inarch_recipes::report::{
    Body, Confusion, Curves, Gallery, GalleryItem, Page, Point, Section, Series, Table, render,
};
use inarch_recipes::{Evaluation, FitReport, RecipeLayers, ReportHead, Session, Subset, pocket};
use serde::Serialize;

use crate::args::DemoArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::{Output, percent, table};
use crate::progress::Bars;

/// A small part of the clothing data set (CC0); `cli/sample/README.md` says how it was made.
const SAMPLE: &[u8] = include_bytes!("../../sample/sample.tar");
const METHODS: [&str; 3] = ["linear-probe", "coop", "lora"];
const SHOTS: [usize; 3] = [1, 4, 16];
/// Images in the gallery.
const GALLERY: usize = 12;

/// What is printed with `--json`.
#[derive(Serialize)]
struct DemoResult {
    #[serde(flatten)]
    head: ReportHead,
    report: PathBuf,
    data: PathBuf,
    zero_shot: f64,
    runs: Vec<DemoRun>,
    seconds: f64,
}

#[derive(Serialize)]
struct DemoRun {
    method: &'static str,
    shots: usize,
    accuracy: f64,
    ece: f64,
    trainable: usize,
    seconds: f64,
    adapter: PathBuf,
}

pub(crate) fn run(args: &DemoArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let started = Instant::now();
    let control = bars.control();
    let data = unpack(&args.output)?;
    let backbone = backbones::open(pocket::NAME, &inarch_core::device(&args.device.device)?)?;
    let dataset = open_dataset(&data, None)?;
    let session = Session::new(&backbone, &dataset, Subset::All, Default::default(), control)?;
    control.progress.say(&format!(
        "{} photos of {} kinds of clothing, beside `{}`, a backbone that has never seen any",
        dataset.train.len() + dataset.test.len(),
        dataset.classes.len(),
        backbone.name()
    ));

    let mut runs = Vec::new();
    let mut reports: Vec<FitReport> = Vec::new();
    for shots in SHOTS {
        for method in METHODS {
            let mut layers = RecipeLayers::preset(method, false)?;
            for assignment in [
                format!("shots={shots}"),
                format!("backbone={:?}", pocket::NAME),
                format!("data={:?}", data.display().to_string()),
            ] {
                layers.set(&assignment)?;
            }
            let folder = args.output.join("runs").join(format!("{method}-{shots}-shot"));
            let (artifact, report) = session.fit(&layers.finish()?, &folder)?;
            artifact.self_test(&backbone)?;
            let Some(test) = &report.test else { continue };
            control.progress.say(&format!(
                "{method:<12} {shots:>2} shots  {}  ({:.0} s)",
                percent(test.metrics.accuracy),
                report.seconds.total
            ));
            runs.push(DemoRun {
                method,
                shots,
                accuracy: test.metrics.accuracy,
                ece: test.metrics.ece,
                trainable: report.trainable,
                seconds: report.seconds.total,
                adapter: folder,
            });
            reports.push(report);
        }
    }
    let zero_shot = reports.iter().find_map(|report| report.zero_shot.clone());
    let best = reports
        .iter()
        .filter_map(|report| Some((report, report.test.as_ref()?)))
        .max_by(|left, right| left.1.metrics.accuracy.total_cmp(&right.1.metrics.accuracy));
    let (Some(zero_shot), Some((best, test))) = (zero_shot, best) else {
        return Err(inarch_core::Error::invalid("demo sample", "it has no test images").into());
    };
    let page = page(&dataset, &backbone, &zero_shot, &runs, best, test, started.elapsed().as_secs_f64())?;
    let report = args.output.join("report.html");
    file::write(&report, render(&page).map_err(inarch_recipes::Error::from)?.as_bytes())?;
    let result = DemoResult {
        head: ReportHead::new(&backbone),
        report,
        data,
        zero_shot: zero_shot.metrics.accuracy,
        runs,
        seconds: started.elapsed().as_secs_f64(),
    };
    file::write_json(&args.output.join("report.json"), &result)?;
    output.result(&result, || text(&result));
    Ok(())
}

fn unpack(folder: &Path) -> Result<PathBuf, CommandError> {
    let data = folder.join("clothing-sample");
    file::create_folder(&data)?;
    let fault = inarch_core::Error::io("unpack the sample into", &data);
    tar::Archive::new(SAMPLE).unpack(&data).map_err(fault)?;
    Ok(data)
}

fn accuracy_table(runs: &[DemoRun], zero_shot: f64) -> Vec<Vec<String>> {
    let mut rows =
        vec![std::iter::once("method".to_string()).chain(SHOTS.map(|shots| format!("{shots}-shot"))).collect()];
    rows.push(std::iter::once("zero-shot".to_string()).chain(SHOTS.map(|_| percent(zero_shot))).collect());
    for method in METHODS {
        let cell = |shots: usize| {
            let run = runs.iter().find(|run| run.method == method && run.shots == shots);
            run.map_or(String::new(), |run| percent(run.accuracy))
        };
        rows.push(std::iter::once(method.to_string()).chain(SHOTS.map(cell)).collect());
    }
    rows
}

fn page(
    dataset: &Dataset,
    backbone: &inarch_core::backbone::Backbone,
    zero_shot: &Evaluation,
    runs: &[DemoRun],
    best: &FitReport,
    test: &Evaluation,
    seconds: f64,
) -> Result<Page, CommandError> {
    let name = best.recipe.method.name();
    let shots = best.recipe.shots.unwrap_or_default();
    let mut rows = accuracy_table(runs, zero_shot.metrics.accuracy);
    let header = rows.remove(0);
    let series = METHODS.map(|method| Series {
        name: method.into(),
        points: runs
            .iter()
            .filter(|run| run.method == method)
            .map(|run| Point { x: run.shots as f64, mean: 100.0 * run.accuracy, std: 0.0 })
            .collect(),
    });
    let cost = runs
        .iter()
        .filter(|run| run.shots == SHOTS[SHOTS.len() - 1])
        .map(|run| {
            vec![
                run.method.to_string(),
                run.trainable.to_string(),
                format!("{:.1}", run.seconds),
                format!("{:.3}", run.ece),
            ]
        })
        .collect();
    let section = |title: &str, text: &str, body: Body| Section { title: title.into(), text: text.into(), body };
    let confusion = |evaluation: &Evaluation| {
        Body::Confusion(Confusion { classes: evaluation.classes.clone(), counts: evaluation.confusion.clone() })
    };
    Ok(Page {
        title: "inarch demo".into(),
        lead: format!(
            "A frozen backbone of {:.1} M parameters that was never shown clothes names {} of the test photos \
             correctly. With {shots} photos of each kind and {} trained values, {name} brings it to {}.",
            backbone.parameters() as f64 / 1e6,
            percent(zero_shot.metrics.accuracy),
            best.trainable,
            percent(test.metrics.accuracy)
        ),
        facts: [
            ("backbone", format!("{} ({})", backbone.name(), backbone.digest().short())),
            ("data", "a sample of clothing-dataset-small (CC0)".into()),
            ("training photos", dataset.train.len().to_string()),
            ("test photos", dataset.test.len().to_string()),
            ("classes", dataset.classes.join(", ")),
            ("seed", best.recipe.seed.to_string()),
            ("seconds", format!("{seconds:.0}")),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec(),
        sections: vec![
            section(
                "Accuracy by shots",
                "Test accuracy of each method, by the number of training photos of each kind. One seed: differences \
                 of a few points mean nothing.",
                Body::Curves(Curves {
                    x_label: "photos of each kind".into(),
                    y_label: "test accuracy (%)".into(),
                    log2_x: true,
                    series: series.to_vec(),
                    baselines: vec![("zero-shot".into(), 100.0 * zero_shot.metrics.accuracy)],
                }),
            ),
            section("The same as numbers", "", Body::Table(Table { header, rows })),
            section(
                "What it costs",
                "With 16 photos of each kind. The backbone itself is never changed.",
                Body::Table(Table {
                    header: ["method", "trained values", "seconds", "calibration error"].map(String::from).to_vec(),
                    rows: cost,
                }),
            ),
            section(
                &format!("What {name} sees"),
                "Test photos, with their kind and what they were taken for before and after.",
                Body::Gallery(gallery(dataset, zero_shot, test)?),
            ),
            section("Confusion, zero-shot", "", confusion(zero_shot)),
            section(&format!("Confusion, {name} with {shots} shots"), "", confusion(test)),
        ],
    })
}

/// One or two test photos of each class.
fn gallery(dataset: &Dataset, before: &Evaluation, after: &Evaluation) -> Result<Gallery, CommandError> {
    let mut items = Vec::new();
    let mut shown = vec![0usize; dataset.classes.len()];
    let limit = GALLERY.div_ceil(dataset.classes.len().max(1));
    for ((position, before), (_, after)) in before.predicted.iter().zip(&after.predicted) {
        let example = &dataset.test[*position];
        if shown[example.label] >= limit || items.len() >= GALLERY {
            continue;
        }
        let Source::Image(path) = &example.source else { continue };
        shown[example.label] += 1;
        items.push(GalleryItem {
            image_data_uri: format!("data:image/jpeg;base64,{}", STANDARD.encode(file::read(path)?)),
            caption: format!(
                "{}: zero-shot says {}, adapted says {}",
                dataset.classes[example.label], dataset.classes[*before], dataset.classes[*after]
            ),
            good: *after == example.label,
        });
    }
    Ok(Gallery { items })
}

fn text(result: &DemoResult) -> String {
    let folder = result.report.parent().unwrap_or(Path::new("."));
    let best = result.runs.iter().max_by(|left, right| left.accuracy.total_cmp(&right.accuracy));
    let adapter = best.map_or(String::new(), |run| run.adapter.display().to_string());
    format!(
        "{}\n{:.0} s. Look at {}\nEverything is in {}\n\nTry next:\n  \
         inarch predict -b pocket -a {adapter} {}/test/*/*.jpg\n  \
         inarch eval -b pocket -d {} -a {adapter}\n  \
         inarch fit -b pocket -d YOUR_FOLDER_OF_CLASS_FOLDERS -m lora --shots 16\n",
        table(&accuracy_table(&result.runs, result.zero_shot)),
        result.seconds,
        result.report.display(),
        folder.display(),
        result.data.display(),
        result.data.display(),
    )
}
