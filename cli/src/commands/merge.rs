//! `inarch merge`: join updates that were made apart.

use inarch_continual::{MergeReport, MergeRequest, merge};
use inarch_peft::Combination;

use super::update::{now, read_key};
use crate::args::MergeArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::{Output, percent};
use crate::progress::Bars;
use crate::versions::AnyVersions;

pub(crate) fn run(args: &MergeArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let control = bars.control();
    let key = read_key(args.version.key.as_ref())?;
    let device = inarch_core::device(&args.version.device.device)?;
    let backbone = backbones::open(&args.version.backbone, &device)?;
    let combination =
        Combination { merge: args.merge.into(), weights: args.weights.clone(), rank: None, density: 0.5, seed: 1 };
    let request = MergeRequest {
        parts: &args.versions,
        base: args.base.as_deref(),
        pooled: args.pooled.as_deref(),
        output: &args.output,
        combination: &combination,
        key: key.as_ref(),
        time: now(),
    };
    let report = merge(&backbone, &AnyVersions::new(), &request, control)?;
    output.result(&report, || text(&report));
    Ok(())
}

fn text(report: &MergeReport) -> String {
    let accuracy = |accuracy: &Option<f64>| accuracy.map_or("–".into(), percent);
    let parts: Vec<String> = report.parts.iter().map(accuracy).collect();
    let how = if report.exact {
        "equal to one update with all the data"
    } else {
        "merged by weights, which is not what training on all the data would give"
    };
    let pooled = match (report.pooled, report.loss) {
        (Some(pooled), Some(loss)) => {
            format!(", pooled {} (lost by merging: {:.1} points)", percent(pooled), 100.0 * loss)
        }
        _ => String::new(),
    };
    format!(
        "{} of {} samples and {} classes: {how}\nheld-out accuracy: parts {}, merged {}{pooled}\npublished {}\n",
        report.method,
        report.samples,
        report.classes.len(),
        parts.join(", "),
        accuracy(&report.accuracy),
        report.version
    )
}
