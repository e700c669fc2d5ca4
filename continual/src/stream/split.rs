//! Data sets to experiences.

use std::path::Path;
use std::sync::Arc;

use inarch_core::Seed;
use inarch_core::data::{ClipConfig, Dataset, Example, FeatureFile, few_shot};
use inarch_core::image::Window;

use super::config::{Order, StreamConfig, StreamKind};
use super::experience::{Experience, Stream};
use super::joined::JoinedFeatures;
use crate::error::{Error, Result};

impl Stream {
    /// Deals data sets out. `folder` is where images of made-up domains are written; the seed decides the order of the
    /// classes, the few-shot choice and what a blurry stream mixes.
    ///
    /// # Errors
    /// Settings that do not fit the data: more experiences than classes, several data sets where one is asked for, a
    /// data set without test images, images beside features, features of different backbones.
    pub fn new(datasets: &[Dataset], config: &StreamConfig, seed: u64, folder: &Path) -> Result<Self> {
        config.check()?;
        let seed = Seed::new(seed);
        for dataset in datasets {
            if dataset.train.is_empty() || dataset.test.is_empty() {
                let reason = "a stream needs training and test images; add `train` and `test` folders or splits";
                return Err(Error::setting(format!("data set `{}`", dataset.name), reason));
            }
        }
        let Some(first) = datasets.first() else { return Err(Error::setting("data", "a stream needs a data set")) };
        let mut stream = match config.kind {
            StreamKind::ClassIncremental | StreamKind::TaskIncremental | StreamKind::Blurry => {
                let [dataset] = datasets else {
                    let reason = "this kind splits the classes of one data set; use `domain-incremental` or `x-tail`";
                    return Err(Error::setting("data", format!("{} are given; {reason}", datasets.len())));
                };
                by_class(dataset, config, seed)?
            }
            StreamKind::DomainIncremental if datasets.len() == 1 => by_corruption(first, config, seed, folder)?,
            StreamKind::DomainIncremental | StreamKind::XTail => by_dataset(datasets, config, seed)?,
        };
        if config.chunk.is_some() {
            for (index, experience) in stream.experiences.iter_mut().enumerate() {
                let order = seed.split("arrival").split(index).order(experience.train.len());
                experience.train = order.iter().map(|at| experience.train[*at].clone()).collect();
            }
        }
        Ok(stream)
    }
}

fn shots(examples: &[Example], classes: usize, config: &StreamConfig, seed: Seed) -> Result<Vec<Example>> {
    match config.shots {
        Some(shots) => Ok(few_shot(examples, classes, shots, seed.split("few-shot"))?),
        None => Ok(examples.to_vec()),
    }
}

fn by_class(dataset: &Dataset, config: &StreamConfig, seed: Seed) -> Result<Stream> {
    let order: Vec<usize> = match config.order {
        Order::Given => (0..dataset.classes.len()).collect(),
        Order::Shuffled => seed.split("classes").order(dataset.classes.len()),
    };
    let names: Vec<String> = order.iter().map(|class| dataset.classes[*class].clone()).collect();
    let dataset = dataset.restrict(&names)?;
    let train = shots(&dataset.train, names.len(), config, seed)?;
    let parts = config.deal(names.len())?;
    let bounds: Vec<(usize, usize)> = parts
        .iter()
        .scan(0, |from, count| {
            let start = *from;
            *from += count;
            Some((start, *from))
        })
        .collect();
    let owner = |label: usize| bounds.iter().position(|(_, to)| label < *to).unwrap_or_default();
    // In a blurry stream a share of the images, chosen by hash, goes to another experience, also chosen by hash.
    let blur = if config.kind == StreamKind::Blurry { config.blur } else { 0.0 };
    let home = |example: &Example| {
        let own = owner(example.label);
        let draw = seed.split("blur").hash(&example.id);
        if bounds.len() > 1 && (draw as f64 / u64::MAX as f64) < blur {
            let other = (seed.split("elsewhere").hash(&example.id) % (bounds.len() as u64 - 1)) as usize;
            if other >= own { other + 1 } else { other }
        } else {
            own
        }
    };
    let mut experiences: Vec<Experience> = bounds
        .iter()
        .enumerate()
        .map(|(index, (from, to))| Experience {
            name: format!("{}", index + 1),
            classes: (*from..*to).collect(),
            known: *to,
            train: Vec::new(),
            test: dataset.test.iter().filter(|example| owner(example.label) == index).cloned().collect(),
        })
        .collect();
    for example in train {
        experiences[home(&example)].train.push(example);
    }
    let mut classes = names;
    let mut dataset = dataset;
    if blur > 0.0 {
        (classes, dataset) = by_appearance(&mut experiences, classes, &dataset)?;
    }
    Ok(Stream { classes, experiences, labels: config.label_space(), chunk: config.chunk, dataset })
}

/// Renumbers the classes of a blurry stream in the order in which they first appear, so that those known after an
/// experience are the first so many.
fn by_appearance(
    experiences: &mut [Experience],
    classes: Vec<String>,
    dataset: &Dataset,
) -> Result<(Vec<String>, Dataset)> {
    let mut order: Vec<usize> = Vec::new();
    let mut known = Vec::new();
    for experience in experiences.iter() {
        let mut labels: Vec<usize> =
            experience.train.iter().map(|example| example.label).chain(experience.classes.clone()).collect();
        labels.sort_unstable();
        labels.iter().for_each(|label| {
            if !order.contains(label) {
                order.push(*label);
            }
        });
        known.push(order.len());
    }
    let position = |label: usize| order.iter().position(|known| *known == label).unwrap_or_default();
    for (experience, known) in experiences.iter_mut().zip(known) {
        experience.known = known;
        experience.classes.iter_mut().for_each(|label| *label = position(*label));
        experience
            .train
            .iter_mut()
            .chain(&mut experience.test)
            .for_each(|example| example.label = position(example.label));
    }
    let classes: Vec<String> = order.iter().map(|label| classes[*label].clone()).collect();
    let dataset = dataset.restrict(&classes)?;
    Ok((classes, dataset))
}

/// Each corruption is an experience with its own share of the training images; the test images come in every one.
fn by_corruption(dataset: &Dataset, config: &StreamConfig, seed: Seed, folder: &Path) -> Result<Stream> {
    let domains = &config.corruptions;
    let train = shots(&dataset.train, dataset.classes.len(), config, seed)?;
    // What was made of other images is not taken for these.
    let folder = folder.join(dataset.contents(dataset.examples().map(|(_, example)| example)).short());
    let share = |example: &Example| (seed.split("domain").hash(&example.id) % domains.len() as u64) as usize;
    let mut experiences = Vec::new();
    for (index, corruption) in domains.iter().enumerate() {
        let own: Vec<Example> = train.iter().filter(|example| share(example) == index).cloned().collect();
        // The noise of an image does not depend on the seed of the run: one domain for all seeds.
        let noise = Seed::new(0).split("corruption");
        experiences.push(Experience {
            name: corruption.name().into(),
            classes: (0..dataset.classes.len()).collect(),
            known: dataset.classes.len(),
            train: corruption.domain(&own, &folder, noise)?,
            test: corruption.domain(&dataset.test, &folder, noise)?,
        });
    }
    Ok(of_experiences((dataset.name.clone(), None, None, dataset.window), dataset.classes.clone(), experiences, config))
}

/// Each data set is an experience.
fn by_dataset(datasets: &[Dataset], config: &StreamConfig, seed: Seed) -> Result<Stream> {
    let features = JoinedFeatures::of(datasets)?;
    let mut classes: Vec<String> = Vec::new();
    let mut experiences = Vec::new();
    for (number, dataset) in datasets.iter().enumerate() {
        for class in &dataset.classes {
            if !classes.contains(class) {
                classes.push(class.clone());
            }
        }
        let label = |class: &String| classes.iter().position(|known| known == class).unwrap_or_default();
        let labels: Vec<usize> = dataset.classes.iter().map(label).collect();
        let own = |examples: Vec<Example>| -> Vec<Example> {
            let renamed = |example: Example| Example {
                id: format!("{}/{}", dataset.name, example.id),
                label: labels[example.label],
                source: features.source(number, example.source),
                ..example
            };
            examples.into_iter().map(renamed).collect()
        };
        experiences.push(Experience {
            name: dataset.name.clone(),
            classes: labels.clone(),
            known: classes.len(),
            train: own(shots(&dataset.train, dataset.classes.len(), config, seed)?),
            test: own(dataset.test.clone()),
        });
    }
    let mut names: Vec<&String> = experiences.iter().map(|experience| &experience.name).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < experiences.len() {
        return Err(Error::setting(
            "data",
            "two data sets have one name; rename a folder, so that reports can tell them apart",
        ));
    }
    // Each has them in its own order.
    let has_all = |part: &Experience| (0..classes.len()).all(|class| part.classes.contains(&class));
    if config.kind == StreamKind::DomainIncremental && !experiences.iter().all(has_all) {
        return Err(Error::setting(
            "data",
            "domains must have the same classes; use `x-tail` for data sets that differ",
        ));
    }
    let name = datasets.iter().map(|dataset| dataset.name.as_str()).collect::<Vec<_>>().join("+");
    let clips = datasets.iter().find_map(|dataset| dataset.clips.clone());
    let window = datasets.iter().find_map(|dataset| dataset.window);
    Ok(of_experiences((name, features.file(), clips, window), classes, experiences, config))
}

fn of_experiences(
    (name, features, clips, window): (String, Option<Arc<FeatureFile>>, Option<ClipConfig>, Option<Window>),
    classes: Vec<String>,
    experiences: Vec<Experience>,
    config: &StreamConfig,
) -> Stream {
    let all = |split: fn(&Experience) -> &Vec<Example>| experiences.iter().flat_map(split).cloned().collect();
    let dataset = Dataset {
        name,
        classes: classes.clone(),
        train: all(|experience| &experience.train),
        val: Vec::new(),
        test: all(|experience| &experience.test),
        features,
        clips,
        window,
        ignored_files: Default::default(),
        multi_label: false,
    };
    Stream { classes, experiences, labels: config.label_space(), chunk: config.chunk, dataset }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use inarch_core::data::{Dataset, Example, FeatureFile, FeatureKind, Source};

    use super::super::{Corruption, Stream, StreamConfig, StreamKind};

    fn dataset(name: &str, classes: &[&str]) -> Dataset {
        let make = |split: &str, count: usize| {
            let one = |(label, class): (usize, &&str)| {
                (0..count)
                    .map(|at| {
                        let id = format!("{split}/{class}/{at}.png");
                        Example::new(id.clone(), Source::Image(id.into()), label)
                    })
                    .collect::<Vec<_>>()
            };
            classes.iter().enumerate().flat_map(one).collect()
        };
        let classes = classes.iter().map(ToString::to_string).collect();
        let (train, test) = (make("train", 30), make("test", 4));
        Dataset {
            name: name.into(),
            classes,
            train,
            val: Vec::new(),
            test,
            features: None,
            clips: None,
            window: None,
            ignored_files: Default::default(),
            multi_label: false,
        }
    }

    fn stream(datasets: &[Dataset], config: &StreamConfig, seed: u64) -> Stream {
        Stream::new(datasets, config, seed, Path::new("unused")).unwrap()
    }

    #[test]
    fn every_example_comes_once_under_its_own_name_and_classes_are_known_in_order() {
        let data = dataset("letters", &["a", "b", "c", "d", "e", "f", "g", "h"]);
        for (kind, experiences) in
            [(StreamKind::ClassIncremental, 4), (StreamKind::Blurry, 4), (StreamKind::TaskIncremental, 3)]
        {
            let config = StreamConfig { kind, experiences, blur: 0.3, ..StreamConfig::default() };
            let made = stream(std::slice::from_ref(&data), &config, 1993);
            let mut ids = Vec::new();
            for experience in &made.experiences {
                for example in experience.train.iter().chain(&experience.test) {
                    assert!(
                        example.id.contains(&format!("/{}/", made.classes[example.label])),
                        "{kind:?} {}",
                        example.id
                    );
                    assert!(example.label < experience.known, "{kind:?}");
                    ids.push(example.id.clone());
                }
                assert!(experience.test.iter().all(|example| experience.classes.contains(&example.label)));
            }
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), 8 * 34);
            let elsewhere =
                made.experiences.iter().flat_map(|part| part.train.iter().filter(|e| !part.classes.contains(&e.label)));
            let share = elsewhere.count() as f64 / 240.0;
            assert!(if kind == StreamKind::Blurry { (share - 0.3).abs() < 0.1 } else { share == 0.0 }, "{share}");
            assert_eq!(stream(std::slice::from_ref(&data), &config, 1993).classes, made.classes);
        }
        let order = |seed| stream(std::slice::from_ref(&data), &StreamConfig::default(), seed).classes;
        assert_ne!(order(1), order(2));
    }

    /// Two features of length 2 for each class, one to learn and one to test: `[10 label + number, side]`.
    fn features(name: &str, classes: &[&str], (side, backbone): (f32, &str)) -> Dataset {
        let rows = 2 * classes.len();
        let file = FeatureFile {
            backbone: backbone.into(),
            adapter: None,
            kind: FeatureKind::Image,
            ids: (0..rows).map(|row| format!("{row}.png")).collect(),
            labels: None,
            classes: None,
            splits: None,
            dim: 2,
            values: (0..rows).flat_map(|row| [(10 * (row / 2) + row % 2) as f32, side]).collect(),
        };
        let part = |number: usize| -> Vec<Example> {
            let one = |label: usize| {
                Example::new(format!("{}.png", 2 * label + number), Source::Row(2 * label + number), label)
            };
            (0..classes.len()).map(one).collect()
        };
        let (train, test) = (part(0), part(1));
        Dataset { train, test, features: Some(Arc::new(file)), ..dataset(name, classes) }
    }

    #[test]
    fn features_of_several_data_sets_keep_their_rows() {
        let parts = [features("x", &["a", "b"], (1.0, "one")), features("y", &["b", "c", "d"], (2.0, "one"))];
        let config = StreamConfig { kind: StreamKind::XTail, ..StreamConfig::default() };
        let made = stream(&parts, &config, 1);
        let file = made.dataset.features.as_ref().unwrap();
        assert_eq!((file.rows(), file.backbone.as_str()), (10, "one"));
        let value = |example: &Example| match example.source {
            Source::Row(row) => file.row(row).unwrap().to_vec(),
            ref other => panic!("{other:?}"),
        };
        for (experience, side) in made.experiences.iter().zip([1.0, 2.0]) {
            for (number, examples) in [&experience.train, &experience.test].into_iter().enumerate() {
                // Labels in the data set's own order, whatever they are in the stream.
                let expected: Vec<Vec<f32>> =
                    (0..experience.classes.len()).map(|own| vec![(10 * own + number) as f32, side]).collect();
                assert_eq!(examples.iter().map(value).collect::<Vec<_>>(), expected, "{}", experience.name);
            }
        }
        let refused = |other: Dataset| {
            let parts = [parts[0].clone(), other];
            Stream::new(&parts, &config, 1, Path::new("unused")).unwrap_err().to_string()
        };
        let other = refused(features("y", &["b"], (2.0, "two")));
        assert!(["backbone", "`y`", "one, as `x`", "two"].iter().all(|part| other.contains(part)), "{other}");
        let images = refused(dataset("y", &["b"]));
        assert!(["`x` holds features", "`y` images"].iter().all(|part| images.contains(part)), "{images}");
        let file = |change: &dyn Fn(&mut FeatureFile)| {
            let mut own = parts[1].clone();
            change(Arc::make_mut(own.features.as_mut().unwrap()));
            refused(own)
        };
        let wide = file(&|file| file.dim = 1);
        assert!(wide.contains("width of the features of `y`"), "{wide}");
        let adapted = file(&|file| file.adapter = Some("lora".into()));
        assert!(adapted.contains("adapter `lora`"), "{adapted}");
    }

    #[test]
    fn data_sets_become_experiences_over_one_label_space() {
        let parts = [dataset("x", &["a", "b"]), dataset("y", &["b", "c"])];
        let config = StreamConfig { kind: StreamKind::XTail, shots: Some(4), ..StreamConfig::default() };
        let made = stream(&parts, &config, 1);
        assert_eq!(made.classes, ["a", "b", "c"]);
        assert_eq!(made.experiences[1].classes, [1, 2]);
        assert_eq!((made.experiences[0].known, made.experiences[1].known), (2, 3));
        assert_eq!(made.experiences[1].train.len(), 8);
        let [x, y] = parts.clone();
        let error = Stream::new(&[x.clone(), y, x], &config, 1, Path::new("unused")).unwrap_err().to_string();
        assert!(error.contains("one name"), "{error}");
        let domain = StreamConfig { kind: StreamKind::DomainIncremental, ..config.clone() };
        let error = Stream::new(&parts, &domain, 1, Path::new("unused")).unwrap_err().to_string();
        assert!(error.contains("same classes"), "{error}");
        let turned = stream(&[dataset("x", &["a", "b"]), dataset("y", &["b", "a"])], &domain, 1);
        assert_eq!((&turned.experiences[0].classes, &turned.experiences[1].classes), (&vec![0, 1], &vec![1, 0]));
        let error = Stream::new(&parts, &StreamConfig::default(), 1, Path::new("unused")).unwrap_err().to_string();
        assert!(error.contains("one data set"), "{error}");
    }

    #[test]
    fn an_experience_without_an_image_is_refused() {
        let data = dataset("letters", &["a", "b", "c", "d"]);
        let config = StreamConfig { experiences: 2, ..StreamConfig::default() };
        let left = |unreadable: &dyn Fn(&Example) -> bool| {
            let mut made = stream(std::slice::from_ref(&data), &config, 1);
            made.leave_out(unreadable);
            made.need_images()
        };
        assert!(left(&|_: &Example| false).is_ok());
        assert!(left(&|example: &Example| example.label == 3).is_ok(), "another class of its experience is there");
        for (split, other) in [("training", "test"), ("test", "training")] {
            let folder = if split == "training" { "train/" } else { "test/" };
            let unread = |example: &Example| example.label > 1 && example.id.starts_with(folder);
            let error = left(&unread).unwrap_err().to_string();
            assert!(error.contains("experience `2`") && error.contains(split) && !error.contains(other), "{error}");
        }
    }

    #[test]
    fn domains_are_made_anew_of_an_image_that_has_changed_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut data = dataset("photos", &["a", "b"]);
        let mut paths = Vec::new();
        for example in data.train.iter_mut().chain(&mut data.test) {
            let path = folder.path().join(example.id.replace('/', "-"));
            example.source = Source::Image(path.clone());
            paths.push(path);
        }
        let corruptions = vec![Corruption::Brightness];
        let config = StreamConfig { kind: StreamKind::DomainIncremental, corruptions, ..StreamConfig::default() };
        let shown = |level: u8| {
            let image = image::RgbImage::from_pixel(4, 4, image::Rgb([level; 3]));
            paths.iter().for_each(|path| image.save(path).unwrap());
            let made = Stream::new(std::slice::from_ref(&data), &config, 1, &folder.path().join("domains")).unwrap();
            let Source::Image(path) = &made.experiences[0].test[0].source else { panic!("an image") };
            (path.clone(), image::open(path).unwrap().to_rgb8().get_pixel(0, 0).0[0])
        };
        let (first, dark) = shown(10);
        assert_eq!(shown(10), (first.clone(), dark));
        let (second, bright) = shown(100);
        assert!(10 < dark && dark < bright && first != second, "{dark} {bright}");

        std::fs::write(&paths[0], "no image").unwrap();
        let made = Stream::new(std::slice::from_ref(&data), &config, 1, &folder.path().join("domains")).unwrap();
        let unread = |example: &&Example| example.source == Source::Image(paths[0].clone());
        assert_eq!(made.experiences[0].train.iter().filter(unread).count(), 1, "whoever reads it is told");
    }
}
