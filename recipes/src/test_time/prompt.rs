//! A context of the text tower for each image, over whatever adapter there is.

use std::sync::Mutex;

use burn::tensor::Tensor;
use inarch_core::backbone::{
    BlockSite, BranchSite, Entry, LinearBase, Mode, NormBase, Pass, PoolBase, Scores, Sites, SublayerBase, Tower,
    values,
};
use inarch_peft::{ClassParts, Classifier};

use super::world::Model;
use crate::error::Result;

/// Classes in one part.
const PART: usize = 128;
/// The block whose token site meets the context.
const AT: BlockSite = BlockSite { tower: Tower::Text, block: 0 };

/// The text side as a prompt-tuning method begins with it.
#[derive(Clone)]
pub(super) struct Prompt {
    /// The embedded tokens of all classes.
    pub(super) parts: ClassParts,
    /// The context as the template, or the adapter, has it: `[tokens, width]`.
    pub(super) context: Tensor<2>,
}

impl Prompt {
    /// Reads the context off a pass through the text tower. `condition` is the normalised feature of the image, `[1, dim]`,
    /// for adapters whose prompts depend on it.
    ///
    /// # Errors
    /// Several templates, or no tokens before the class name that all classes share.
    pub(super) fn new(model: &Model<'_>, condition: Option<&Tensor<2>>) -> Result<Self> {
        let Model { backbone, classifier, sites } = *model;
        let refuse = |reason: String| Err(inarch_core::Error::invalid("prompt to be adapted", reason).into());
        let [template] = classifier.templates() else {
            let count = classifier.templates().len();
            return refuse(format!("one template is adapted, found {count}; choose one with `--templates`"));
        };
        let template = template.to_string();
        let before = template.split("{}").next().unwrap_or_default();
        let count = backbone.tokenize(&[before])?.remove(0).len().saturating_sub(2);
        if count == 0 {
            return refuse(format!("`{template}` has no words before the class name; take `a photo of a {{}}.`"));
        }
        let recorder = Recorder { inner: sites, seen: Mutex::default() };
        let parts = classifier.parts(&recorder, classifier.classes().len().div_ceil(PART));
        let pass = Pass { condition: condition.filter(|_| sites.conditions_text()), ..Pass::evaluate() };
        classifier.text(classifier.start(&recorder), &recorder, &pass);
        let Some(tokens) = recorder.seen.into_inner().ok().flatten() else {
            unreachable!("a text tower that starts at its tokens meets their site")
        };
        let [rows, _, width] = tokens.dims();
        let contexts = tokens.narrow(1, 1, count);
        let first = values(contexts.clone().narrow(0, 0, 1));
        let all = values(contexts.clone());
        if all.chunks(first.len()).any(|row| row != first.as_slice()) {
            return refuse(format!(
                "the {count} tokens before the names of the {rows} classes differ from class to class; \
                 use an adapter with one context for all, in front of the class name"
            ));
        }
        let context = contexts.narrow(0, 0, 1).reshape([count, width]);
        Ok(Self { parts, context })
    }

    /// Class features `[images * classes, dim]`, image-major, not normalised, of one context for each image,
    /// `[images, tokens, width]`.
    pub(super) fn text(&self, model: &Model<'_>, contexts: Tensor<3>, condition: Option<&Tensor<2>>) -> Tensor<2> {
        let Model { backbone, classifier, sites } = *model;
        let prompted = Prompted { inner: sites, contexts, classes: classifier.classes().len() };
        let pass = Pass { condition: condition.filter(|_| sites.conditions_text()), ..Pass::evaluate() };
        let outputs = self.parts.parts().iter().map(|part| part.output(backbone, &prompted, &pass)).collect();
        classifier.join(&self.parts, outputs, &prompted, &pass).features
    }

    /// The same of the classes of one part, of one context `[1, tokens, width]`, where no adapter touches the texts.
    pub(super) fn part(&self, model: &Model<'_>, context: Tensor<3>, part: usize) -> Tensor<2> {
        let Model { backbone, classifier, sites } = *model;
        let prompted = Prompted { inner: sites, contexts: context, classes: classifier.classes().len() };
        self.parts.parts()[part].output(backbone, &prompted, &Pass::evaluate())
    }
}

/// Whether the texts of several images can share a pass: an adapter whose text side knows classes or images expects the
/// rows of one.
pub(super) fn shares_passes(classifier: &Classifier<'_>, sites: &dyn Sites) -> bool {
    !sites.conditions_text() && classifier.prior().is_none()
}

/// Hands everything on but what an implementation of [`Sites`] says itself.
macro_rules! rest_of_sites {
    () => {
        fn conditions_text(&self) -> bool {
            self.inner.conditions_text()
        }

        fn shares_beginnings(&self, mode: Mode) -> bool {
            self.inner.shares_beginnings(mode)
        }

        fn needs_all_tokens(&self, tower: Tower) -> bool {
            self.inner.needs_all_tokens(tower)
        }

        fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
            self.inner.linear(base, input, pass)
        }

        fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
            self.inner.norm(base, input, pass)
        }

        fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
            self.inner.branch(at, input, output, pass)
        }

        fn wraps_sublayers(&self, tower: Tower) -> bool {
            self.inner.wraps_sublayers(tower)
        }

        fn sublayer(&self, base: SublayerBase<'_>, stream: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
            self.inner.sublayer(base, stream, pass)
        }

        fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, pass: &Pass<'_>) -> Tensor<2> {
            self.inner.pool(base, frames, pass)
        }

        fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
            self.inner.logits(scores, pass)
        }

        fn queries_image(&self) -> bool {
            self.inner.queries_image()
        }

        fn entry(&self, tower: Tower) -> Entry {
            if tower == Tower::Text { Entry::Tokens } else { self.inner.entry(tower) }
        }
    };
}

/// An adapter whose input tokens of the text tower are remembered.
struct Recorder<'a> {
    inner: &'a dyn Sites,
    seen: Mutex<Option<Tensor<3>>>,
}

impl Sites for Recorder<'_> {
    rest_of_sites!();

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let tokens = self.inner.tokens(at, tokens, pass);
        if at == AT
            && let Ok(mut seen) = self.seen.lock()
        {
            *seen = Some(tokens.clone());
        }
        tokens
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.inner.feature(tower, feature, pass)
    }
}

/// An adapter with a context of its own for each image. The rows of the text tower are image-major.
struct Prompted<'a> {
    inner: &'a dyn Sites,
    /// `[images, tokens, width]`.
    contexts: Tensor<3>,
    classes: usize,
}

impl Sites for Prompted<'_> {
    rest_of_sites!();

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let tokens = self.inner.tokens(at, tokens, pass);
        if at != AT {
            return tokens;
        }
        let ([images, count, width], [classes, length, _]) = (self.contexts.dims(), tokens.dims());
        let rows = images * classes;
        let tokens = tokens.unsqueeze::<4>().expand([images, classes, length, width]).reshape([rows, length, width]);
        let contexts = self.contexts.clone().unsqueeze_dim::<4>(1).expand([images, classes, count, width]);
        let start = tokens.clone().narrow(1, 0, 1);
        let rest = tokens.narrow(1, 1 + count, length - 1 - count);
        Tensor::cat(vec![start, contexts.reshape([rows, count, width]), rest], 1)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let [images, _, _] = self.contexts.dims();
        if tower == Tower::Image || images == 1 {
            return self.inner.feature(tower, feature, pass);
        }
        // An adapter with a row for each class expects the classes once.
        let own =
            |image| self.inner.feature(tower, feature.clone().narrow(0, image * self.classes, self.classes), pass);
        Tensor::cat((0..images).map(own).collect(), 0)
    }
}
