//! The classes in parts that can be run apart, each on a thread of its own.

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Mode, Partial, Pass, Sites, Tower, indices};

use crate::classifier::Classifier;

/// Classes of similar length together: a part is as long as its longest text.
#[derive(Debug, Clone)]
pub struct ClassParts {
    parts: Vec<ClassPart>,
    /// The classes as they come, part after part.
    order: Vec<usize>,
    /// Texts of a class.
    templates: usize,
}

/// Some of the classes, with what an adapter is told about them.
#[derive(Debug, Clone)]
pub struct ClassPart {
    start: Partial,
    classes: usize,
    known: Option<Vec<usize>>,
    prior: Option<Tensor<2>>,
}

impl ClassPart {
    /// The text tower of these classes through the adapter, short of its feature site: `[classes * templates, dim]`; with an
    /// image-conditioned prompt `[images * classes * templates, dim]`, image-major.
    pub fn output(&self, backbone: &Backbone, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let pass = Pass { classes: self.known.as_deref(), prior: self.prior.as_ref(), ..*pass };
        backbone.output(Tower::Text, self.start.clone(), sites, &pass)
    }
}

impl ClassParts {
    pub(crate) fn new(classifier: &Classifier<'_>, sites: &dyn Sites, count: usize) -> Self {
        let (rows, classes) = (classifier.rows(), classifier.classes().len());
        let templates = rows.len() / classes;
        let length = |class: usize| rows[class * templates..][..templates].iter().map(Vec::len).max();
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by_key(|class| length(*class));
        let count = count.clamp(1, classes);
        let part = |part: usize| {
            let classes = &order[classes * part / count..classes * (part + 1) / count];
            let own: Vec<Vec<u32>> =
                classes.iter().flat_map(|class| &rows[class * templates..][..templates]).cloned().collect();
            ClassPart {
                start: classifier.backbone().start_text(&own, sites.entry(Tower::Text)),
                classes: classes.len(),
                known: classifier.known().map(|known| classes.iter().map(|class| known[*class]).collect()),
                prior: classifier
                    .prior()
                    .map(|prior| prior.clone().select(0, indices(classes.iter().copied(), &prior.device()))),
            }
        };
        let parts: Vec<ClassPart> = (0..count).map(part).collect();
        Self { parts, order, templates }
    }

    /// The parts.
    pub fn parts(&self) -> &[ClassPart] {
        &self.parts
    }

    /// Texts that the tower runs, their tokens, and how many of these run when shared beginnings run once.
    pub fn tokens(&self, sites: &dyn Sites, mode: Mode) -> [usize; 3] {
        self.parts.iter().fold([0; 3], |sum, part| {
            let counted = [part.classes * self.templates, part.start.token_count(), part.start.tokens_run(sites, mode)];
            std::array::from_fn(|at| sum[at] + counted[at])
        })
    }

    /// Rows of all classes `[classes, dim]`, dealt out to the parts: the way back from [`Classifier::join`] for one template.
    pub fn split(&self, rows: Tensor<2>) -> Vec<Tensor<2>> {
        let places = indices(self.order.iter().copied(), &rows.device());
        let (rows, mut start) = (rows.select(0, places), 0);
        let next = |part: &ClassPart| {
            start += part.classes;
            rows.clone().narrow(0, start - part.classes, part.classes)
        };
        self.parts.iter().map(next).collect()
    }

    /// Outputs of all parts, in their order, as one of all classes in theirs: `[classes * templates, dim]`, image-major
    /// with an image-conditioned prompt.
    pub(crate) fn join(&self, outputs: Vec<Tensor<2>>) -> Tensor<2> {
        let sized = self.parts.iter().zip(outputs).map(|(part, output)| {
            let [rows, dim] = output.dims();
            let images = rows / (part.classes * self.templates);
            output.reshape([images, part.classes, self.templates * dim])
        });
        let whole = Tensor::cat(sized.collect(), 1);
        let [images, classes, width] = whole.dims();
        let whole = match self.order.is_sorted() {
            true => whole,
            false => {
                let mut places = vec![0; classes];
                self.order.iter().enumerate().for_each(|(place, class)| places[*class] = place);
                let places = indices(places, &whole.device());
                whole.select(1, places)
            }
        };
        whole.reshape([images * classes * self.templates, width / self.templates])
    }
}
