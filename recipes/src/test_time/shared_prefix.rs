//! The exact short way through a causal text tower: what stands before the class name is run once for all classes.
//!
//! A token of a causal tower sees only those before it. The start token and the context are therefore the same for all
//! classes of an image, and the classes need no more of them than their keys and values in each block. This holds for the
//! frozen tower; where an adapter touches it, all tokens run.

use std::sync::Mutex;

use burn::tensor::Tensor;
use inarch_core::backbone::{
    Backbone, BlockSite, Entry, LinearBase, LinearSite, Partial, Pass, Projection, Sites, Tower,
};

use super::world::Model;
use crate::error::Result;

/// The block whose token site meets the context.
const AT: BlockSite = BlockSite { tower: Tower::Text, block: 0 };

/// What stands behind the context, class by class.
#[derive(Clone)]
pub(super) struct SharedPrefix {
    /// The start token and placeholders for the context.
    before: Vec<u32>,
    /// The embedded class names and what follows them, a few classes in each part.
    behind: Vec<Partial>,
    /// What turns the positions of a text that starts there into those of the whole text, `[tokens, width]`.
    moved: Tensor<2>,
}

/// Classes in one part.
pub(super) const PART: usize = 128;

/// Keys and values of one block, `[images, tokens, width]`.
type KeysAndValues = [Option<Tensor<3>>; 2];

impl SharedPrefix {
    /// The way around a context of `count` tokens; `None` where an adapter touches the text tower.
    pub(super) fn new(model: &Model<'_>, count: usize) -> Result<Option<Self>> {
        let Model { backbone, classifier, sites } = *model;
        if sites.entry(Tower::Text) != Entry::Never || sites.conditions_text() {
            return Ok(None);
        }
        let [template] = classifier.templates() else { return Ok(None) };
        let texts: Vec<String> = classifier.classes().iter().map(|class| template.fill(class)).collect();
        let rows = backbone.tokenize(&texts)?;
        let split = 1 + count;
        let behind: Vec<Vec<u32>> = rows.iter().map(|row| row[split..].to_vec()).collect();
        // A part is as long as its longest text.
        let longest = behind.iter().map(Vec::len).max().unwrap_or(1);
        let positions = backbone.text_positions();
        let moved = positions.clone().narrow(0, split, longest) - positions.narrow(0, 0, longest);
        Ok(Some(Self {
            before: rows[0][..split].to_vec(),
            behind: behind.chunks(PART).map(|rows| backbone.start_text(rows, Entry::Tokens)).collect(),
            moved,
        }))
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> usize {
        self.behind.len()
    }

    /// Class features `[images * classes, dim]`, image-major, of one context for each image, `[images, tokens, width]`.
    pub(super) fn text(&self, backbone: &Backbone, contexts: &Tensor<3>) -> Tensor<2> {
        let [images, _, _] = contexts.dims();
        let part = |part| {
            let features = self.part(backbone, contexts.clone(), part);
            let [rows, dim] = features.dims();
            features.reshape([images, rows / images, dim])
        };
        let whole = Tensor::cat((0..self.parts()).map(part).collect(), 1);
        let [_, classes, dim] = whole.dims();
        whole.reshape([images * classes, dim])
    }

    /// The same of the classes of one part.
    pub(super) fn part(&self, backbone: &Backbone, contexts: Tensor<3>, part: usize) -> Tensor<2> {
        let [images, _, _] = contexts.dims();
        let start = backbone.start_text(&vec![self.before.clone(); images], Entry::Tokens);
        let before = Before { contexts, seen: Mutex::new(Vec::new()) };
        // The feature of a text that ends with the context means nothing; its keys and values are what counts.
        backbone.output(Tower::Text, start, &before, &Pass::evaluate());
        let seen = before.seen.into_inner().unwrap_or_default();
        let behind = Behind { seen, moved: self.moved.clone(), images };
        backbone.output(Tower::Text, self.behind[part].clone(), &behind, &Pass::evaluate())
    }
}

/// Which half of [`KeysAndValues`] a projection of the text tower is, and of which block.
fn part(at: LinearSite) -> Option<(usize, usize)> {
    match at {
        LinearSite::Block(BlockSite { tower: Tower::Text, block }, Projection::Key) => Some((block, 0)),
        LinearSite::Block(BlockSite { tower: Tower::Text, block }, Projection::Value) => Some((block, 1)),
        _ => None,
    }
}

/// The start token and the context: remembers keys and values.
struct Before {
    contexts: Tensor<3>,
    seen: Mutex<Vec<KeysAndValues>>,
}

impl Sites for Before {
    fn entry(&self, tower: Tower) -> Entry {
        if tower == Tower::Text { Entry::Tokens } else { Entry::Never }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at == AT { Tensor::cat(vec![tokens.narrow(1, 0, 1), self.contexts.clone()], 1) } else { tokens }
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        if let (Some((block, half)), Ok(mut seen)) = (part(base.at), self.seen.lock()) {
            if seen.len() <= block {
                seen.resize(block + 1, [None, None]);
            }
            seen[block][half] = Some(output.clone());
        }
        output
    }
}

/// The class names: see the keys and values of what stands before them.
struct Behind {
    seen: Vec<KeysAndValues>,
    moved: Tensor<2>,
    images: usize,
}

impl Sites for Behind {
    fn entry(&self, tower: Tower) -> Entry {
        if tower == Tower::Text { Entry::Tokens } else { Entry::Never }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at != AT {
            return tokens;
        }
        let [classes, length, width] = tokens.dims();
        let tokens = tokens + self.moved.clone().narrow(0, 0, length).unsqueeze::<3>();
        let tokens = tokens.unsqueeze::<4>().expand([self.images, classes, length, width]);
        tokens.reshape([self.images * classes, length, width])
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        let before = part(base.at).and_then(|(block, half)| self.seen.get(block)?[half].clone());
        let Some(before) = before else { return output };
        let ([images, tokens, width], [rows, _, _]) = (before.dims(), output.dims());
        let before = before.unsqueeze_dim::<4>(1).expand([images, rows / images, tokens, width]);
        Tensor::cat(vec![before.reshape([rows, tokens, width]), output], 1)
    }
}
