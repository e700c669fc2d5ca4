//! One batch: images of many requests, each with its own adapter, in as few passes as possible.
//!
//! Requests whose adapters leave the image tower alone share one frozen pass, an image that several of them ask about
//! counting once. Those that change it share a mixed pass ([`Mixed`]), and those that cannot stand beside others (they add
//! tokens or keys) run with their own kind. Scores are taken adapter by adapter, over its own classes.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Frozen, LinearChange, LinearSite, Mixed, Pass, Sites, Tower, normalise, values};

use super::job::{Answer, Fault, Job, Want};
use crate::adapters::{Head, Loaded};

/// Least images of a part of a batch that runs on a core of its own.
const LEAST: usize = 2;

/// The answers of some jobs, in their order.
pub(super) fn run(jobs: &[Job], backbone: &Backbone, most: usize) -> Vec<Result<Answer, Fault>> {
    let mut features: Vec<Option<Tensor<2>>> = jobs.iter().map(|_| None).collect();
    for (way, members) in ways(jobs) {
        let found = match way {
            Way::Frozen => frozen(jobs, &members, backbone, most),
            Way::Mixed => mixed(jobs, &members, backbone, most),
            Way::Alone(_) => alone(jobs, &members, backbone, most),
        };
        for (member, feature) in members.into_iter().zip(found) {
            features[member] = Some(feature);
        }
    }
    jobs.iter().zip(features).map(|(job, feature)| answer(job, feature, backbone, most)).collect()
}

/// Which pass through the image tower a job takes part in.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    /// The frozen tower.
    Frozen,
    /// The tower with each row's own adapter.
    Mixed,
    /// The tower with one adapter, named by its digest.
    Alone(String),
}

/// The jobs with images by their way, in a fixed order.
fn ways(jobs: &[Job]) -> Vec<(Way, Vec<usize>)> {
    let mut ways: Vec<(Way, Vec<usize>)> = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        if pixels(job).is_none() {
            continue;
        }
        let way = match &job.head.adapter {
            None => Way::Frozen,
            Some(loaded) if loaded.shares_image_features() => Way::Frozen,
            Some(loaded) if loaded.mixes() && loaded.folded().is_none() => Way::Mixed,
            Some(loaded) => Way::Alone(loaded.digest.clone()),
        };
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, members)) => members.push(at),
            None => ways.push((way, vec![at])),
        }
    }
    ways
}

fn pixels(job: &Job) -> Option<&Arc<Vec<f32>>> {
    match &job.want {
        Want::Scores(pixels) | Want::ImageFeatures(pixels) => Some(pixels),
        Want::TextFeatures(_) => None,
    }
}

/// Pixels of some images as a tensor, `[images, 3, size, size]`.
fn tensor(pixels: &[&[f32]], backbone: &Backbone) -> Tensor<4> {
    let size = backbone.spec().image.size;
    let count = pixels.iter().map(|pixels| pixels.len()).sum::<usize>() / (3 * size * size);
    Tensor::from_data(TensorData::new(pixels.concat(), [count, 3, size, size]), backbone.device())
}

/// Image features of the frozen tower; jobs with the same pixels share them.
fn frozen(jobs: &[Job], members: &[usize], backbone: &Backbone, most: usize) -> Vec<Tensor<2>> {
    let mut known: HashMap<*const Vec<f32>, Tensor<2>> = HashMap::new();
    let mut fresh: Vec<&Arc<Vec<f32>>> = Vec::new();
    for pixels in members.iter().filter_map(|at| pixels(&jobs[*at])) {
        if !fresh.iter().any(|seen| Arc::ptr_eq(seen, pixels) || seen == &pixels) {
            fresh.push(pixels);
        }
    }
    let all: Vec<&[f32]> = fresh.iter().map(|pixels| pixels.as_slice()).collect();
    let features = in_chunks(&tensor(&all, backbone), most, |pixels| backbone.evaluate_image(pixels, &Frozen));
    let size = backbone.preprocess().values_per_image();
    let mut start = 0;
    for pixels in &fresh {
        let count = pixels.len() / size;
        known.insert(Arc::as_ptr(pixels), features.clone().narrow(0, start, count));
        start += count;
    }
    let of = |at: &usize| {
        let pixels = pixels(&jobs[*at])?;
        let same = fresh.iter().find(|seen| Arc::ptr_eq(seen, pixels) || **seen == pixels)?;
        let feature = known.get(&Arc::as_ptr(same))?.clone();
        let sites = jobs[*at].head.sites();
        Some(sites.feature(Tower::Image, feature, &Pass::evaluate()))
    };
    members.iter().filter_map(of).collect()
}

/// Image features with each row's own adapter, in one pass for `most` rows.
fn mixed(jobs: &[Job], members: &[usize], backbone: &Backbone, most: usize) -> Vec<Tensor<2>> {
    // Neighbours that share the frozen layers, and that have equal ranks, share the work.
    let mut order: Vec<usize> = (0..members.len()).collect();
    let kind = |at: &usize| jobs[members[*at]].head.adapter.as_deref().map(kind);
    order.sort_by_cached_key(kind);
    let mut features: Vec<Option<Tensor<2>>> = members.iter().map(|_| None).collect();
    let mut rest = &order[..];
    while !rest.is_empty() {
        let mut rows = 0;
        let fits = |at: &&usize| {
            rows += jobs[members[**at]].rows();
            rows <= most
        };
        let taken = rest.iter().take_while(fits).count().max(1);
        let (group, later) = rest.split_at(taken);
        rest = later;
        let parts: Vec<&Job> = group.iter().map(|at| &jobs[members[*at]]).collect();
        let found = match &parts[..] {
            [only] => {
                let pixels =
                    tensor(&pixels(only).map(|pixels| pixels.as_slice()).into_iter().collect::<Vec<_>>(), backbone);
                in_chunks(&pixels, most, |pixels| backbone.evaluate_image(pixels, only.head.sites()))
            }
            parts => Tensor::cat(backbone.in_parts(parts.len(), LEAST, |range| together(&parts[range], backbone)), 0),
        };
        let mut start = 0;
        for (at, job) in group.iter().zip(parts) {
            features[*at] = Some(found.clone().narrow(0, start, job.rows()));
            start += job.rows();
        }
    }
    features.into_iter().flatten().collect()
}

/// Image features of some jobs in one pass, each row with its own adapter.
fn together(parts: &[&Job], backbone: &Backbone) -> Tensor<2> {
    let rows: Vec<(usize, &dyn Sites)> = merged(parts);
    let sites: &dyn Sites = match rows[..] {
        [(_, only)] => only,
        _ => &Mixed::new(rows, Vec::new()),
    };
    let all: Vec<&[f32]> = parts.iter().filter_map(|job| Some(pixels(job)?.as_slice())).collect();
    backbone.encode_image(tensor(&all, backbone), sites, &Pass::evaluate())
}

/// Sorts adapters of low rank first, by rank, then by identity.
fn kind(loaded: &Loaded) -> (usize, usize, String) {
    let site = |projection| LinearSite::Block(inarch_core::backbone::BlockSite::new(Tower::Image, 0), projection);
    let changes =
        inarch_core::backbone::Projection::ALL.map(|projection| loaded.sites().linear_change(site(projection)));
    let rank = |change: &LinearChange| match change {
        LinearChange::None => 0,
        LinearChange::LowRank(factors) => factors.a.dims()[1],
        LinearChange::Any => usize::MAX,
    };
    let first = if loaded.sites().touched().linear { changes.iter().map(rank).max().unwrap_or(0) } else { 0 };
    (usize::from(first == usize::MAX), first, loaded.digest.clone())
}

/// Rows and adapters in order, neighbours with the same adapter as one.
fn merged<'a>(parts: &[&'a Job]) -> Vec<(usize, &'a dyn Sites)> {
    let identity = |job: &Job| job.head.adapter.as_ref().map(|loaded| loaded.digest.clone());
    let groups = parts.chunk_by(|left, right| identity(left) == identity(right));
    groups.map(|group| (group.iter().map(|job| job.rows()).sum(), group[0].head.sites())).collect()
}

/// Image features of jobs with one and the same adapter, through the folded weights where there are some.
fn alone(jobs: &[Job], members: &[usize], backbone: &Backbone, most: usize) -> Vec<Tensor<2>> {
    let all: Vec<&[f32]> = members.iter().filter_map(|at| Some(pixels(&jobs[*at])?.as_slice())).collect();
    let head: &Head = &jobs[members[0]].head;
    let folded = head.adapter.as_ref().and_then(|loaded| loaded.folded());
    let pixels = tensor(&all, backbone);
    let features = match &folded {
        Some(folded) => in_chunks(&pixels, most, |pixels| folded.evaluate_image(pixels, &Frozen)),
        None => in_chunks(&pixels, most, |pixels| backbone.evaluate_image(pixels, head.sites())),
    };
    let mut start = 0;
    let of = |at: &usize| {
        let rows = jobs[*at].rows();
        start += rows;
        features.clone().narrow(0, start - rows, rows)
    };
    members.iter().map(of).collect()
}

/// Encodes at most `most` images at a time.
fn in_chunks(pixels: &Tensor<4>, most: usize, encode: impl Fn(Tensor<4>) -> Tensor<2>) -> Tensor<2> {
    let count = pixels.dims()[0];
    let chunk = |start| encode(pixels.clone().narrow(0, start, most.max(1).min(count - start)));
    Tensor::cat((0..count).step_by(most.max(1)).map(chunk).collect(), 0)
}

fn answer(job: &Job, feature: Option<Tensor<2>>, backbone: &Backbone, most: usize) -> Result<Answer, Fault> {
    let sites = job.head.sites();
    match (&job.want, feature) {
        (Want::Scores(_), Some(feature)) => Ok(scores(&job.head, &feature)),
        (Want::ImageFeatures(_), Some(feature)) => Ok(rows_of(feature)),
        (Want::TextFeatures(rows), _) => {
            let encode = |rows: &[Vec<u32>]| backbone.encode_text(rows, sites, &Pass::evaluate());
            Ok(rows.chunks(most.max(1)).flat_map(|rows| rows_of(encode(rows))).collect())
        }
        (Want::Scores(_) | Want::ImageFeatures(_), None) => Err(Fault::Failed),
    }
}

/// Scores of image features `[images, dim]`, one row an image.
fn scores(head: &Head, image: &Tensor<2>) -> Answer {
    let (classifier, sites) = (&head.classifier, head.sites());
    if let Some(text) = &head.text {
        return rows_of(classifier.logits(image, text, sites, &Pass::evaluate()));
    }
    // Prompts that depend on the image: one run of the text tower for each, so that memory stays that of one.
    let each = |row| {
        let image = image.clone().narrow(0, row, 1);
        let condition = normalise(image.clone());
        let pass = Pass { condition: Some(&condition), ..Pass::evaluate() };
        let text = classifier.text(head.start.clone(), sites, &pass);
        values(classifier.logits(&image, &text, sites, &pass))
    };
    (0..image.dims()[0]).map(each).collect()
}

fn rows_of(tensor: Tensor<2>) -> Answer {
    let width = tensor.dims()[1];
    values(tensor).chunks(width.max(1)).map(<[f32]>::to_vec).collect()
}
