//! What an adapter is trained to do, and the loss of one step.

use std::ops::Range;

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Meeting, Mode, Pass, Sites, Tower, normalise};
use inarch_core::data::Example;
use inarch_peft::{Adapter, ClassPart, ClassParts, Classifier, Loss, Step};

use crate::balance::Balance;
use crate::contrastive::{PairLoss, Pairs};
use crate::crossing;
use crate::error::Result;
use crate::pretrain::PairSet;

/// What an adapter is trained to do.
#[expect(clippy::large_enum_variant, reason = "there is one for each run")]
pub(crate) enum Objective<'a> {
    /// The method's loss over classes.
    Classify {
        /// The classes.
        classifier: Classifier<'a>,
        /// The frozen part of their texts.
        text: ClassParts,
        /// How scores are judged.
        balance: Balance,
    },
    /// A loss over pairs.
    Match {
        /// Position `i` of the training examples is pair `i`.
        pairs: &'a PairSet,
        /// How they are judged.
        loss: PairLoss,
    },
}

/// The images of one step as a loss sees them.
pub(crate) struct Images<'a> {
    /// Features through the adapter, `[images, dim]`; with [`TextSide::Met`] what their meeting with the texts gave.
    pub(crate) adapted: Tensor<2>,
    /// Features of the frozen backbone, where they are known.
    pub(crate) frozen: Option<Tensor<2>>,
    /// Which training examples they are.
    pub(crate) examples: &'a [usize],
}

/// The texts of a contrastive step.
pub(crate) type Texts = Option<(Pairs, Vec<Vec<u32>>)>;

/// The text side of a step as a loss sees it.
pub(crate) enum TextSide<'a> {
    /// The classes, still to be run through their tower.
    Classes,
    /// What the shards of the classes gave.
    Shards(Vec<Tensor<2>>),
    /// The texts of pairs, as token rows.
    Pairs(&'a Pairs, &'a [Vec<u32>]),
    /// Nothing more: in place of features, the images have what [`Objective::cross`] gave.
    Met(Option<&'a Pairs>),
}

impl Objective<'_> {
    /// The parts of the classes that shards of a step run through the text tower: none where they are not touched there, are
    /// few, or depend on images that are not there before the step.
    pub(crate) fn text_shards(&self, sites: &dyn Sites) -> &[ClassPart] {
        let known = !sites.conditions_text() || sites.entry(Tower::Image) == Entry::Never;
        match self {
            Self::Classify { text, classifier, .. }
                if known && !classifier.crosses() && sites.entry(Tower::Text) < Entry::Feature =>
            {
                match text.parts() {
                    [_] => &[],
                    parts => parts,
                }
            }
            _ => &[],
        }
    }

    /// What images that meet texts before there is a score give there, a row for each; `shard` says which images of the step they
    /// are.
    pub(crate) fn cross(
        &self,
        backbone: &Backbone,
        image: &Tensor<2>,
        texts: Option<&(Pairs, Vec<Vec<u32>>)>,
        shard: (Range<usize>, Seed),
        sites: &dyn Sites,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        match (self, texts) {
            (Self::Classify { classifier, .. }, _) => classifier.pairs(image, sites, pass),
            (Self::Match { .. }, Some((pairs, rows))) => {
                crossing::columns(backbone, image, (pairs, rows), shard, sites, pass)
            }
            (Self::Match { .. }, None) => unreachable!("pairs always have texts"),
        }
    }

    /// Tokens of texts that each image of a step of so many meets; 0 where it meets none before there is a score.
    pub(crate) fn tokens_met(&self, backbone: &Backbone, batch: usize) -> usize {
        let Some(crossing) = &backbone.spec().crossing else { return 0 };
        let (texts, tokens) = match self {
            Self::Classify { classifier, .. } => (classifier.rows().len(), classifier.padded_tokens()),
            // Captions are seldom as long as the context; half of it is not far from the truth.
            Self::Match { .. } => {
                let texts = if crossing.matches { batch } else { 1 };
                (texts, texts * backbone.spec().text.context.div_ceil(2))
            }
        };
        match crossing.meeting {
            Meeting::Attention => tokens,
            Meeting::Stream => tokens + texts * backbone.spec().image.tokens(),
        }
    }

    /// Texts of a step that a tower runs, their tokens when each part ends at its longest, and those that run.
    pub(crate) fn text_tokens(&self, adapter: &Adapter, mode: Mode) -> [usize; 3] {
        match self {
            Self::Classify { text, .. } => text.tokens(adapter.sites(), mode),
            Self::Match { .. } => [0; 3],
        }
    }

    /// The texts of a step over pairs: pairs and token rows.
    pub(crate) fn texts(&self, backbone: &Backbone, examples: &[usize], draw: Seed) -> Result<Texts> {
        let Self::Match { pairs: set, .. } = self else { return Ok(None) };
        let pairs = Pairs::new(examples.iter().map(|index| set.caption(*index, draw)));
        let rows = backbone.tokenize(&pairs.texts)?;
        Ok(Some((pairs, rows)))
    }

    /// The loss of a step; `of_step` takes the place of the method's own where there are classes.
    #[expect(clippy::too_many_arguments, reason = "everything a step knows meets here, and only here")]
    pub(crate) fn loss_by(
        &self,
        backbone: &Backbone,
        adapter: &Adapter,
        images: Images<'_>,
        texts: TextSide<'_>,
        train: &[Example],
        pass: &Pass<'_>,
        of_step: &dyn Fn(&Step<'_>) -> Loss,
    ) -> Loss {
        let sites = adapter.sites();
        let Images { adapted: image, frozen, examples } = images;
        match (self, texts) {
            (Self::Classify { balance, .. }, TextSide::Met(_)) => {
                let labels: Vec<usize> = examples.iter().map(|index| train[*index].label).collect();
                let truth = balance.truth(train, examples);
                let [_, classes] = image.dims();
                of_step(&Step {
                    image: image.clone(),
                    text: Tensor::zeros([classes, backbone.spec().dim], backbone.device()),
                    prompts: None,
                    logits: image,
                    labels: &labels,
                    judgement: balance.judgement(&truth),
                    scale: backbone.logit_scale(),
                    frozen_image: frozen,
                    prior: None,
                    described: None,
                })
            }
            (Self::Classify { classifier, text, balance }, texts) => {
                let condition = sites.conditions_text().then(|| normalise(image.clone()));
                let pass = Pass { condition: condition.as_ref(), ..*pass };
                let outputs = match texts {
                    TextSide::Shards(outputs) => outputs,
                    _ => text.parts().iter().map(|part| part.output(backbone, sites, &pass)).collect(),
                };
                let text = classifier.join(text, outputs, sites, &pass);
                let logits = classifier.logits(&image, &text.features, sites, &pass);
                let labels: Vec<usize> = examples.iter().map(|index| train[*index].label).collect();
                let truth = balance.truth(train, examples);
                of_step(&Step {
                    image,
                    text: text.features,
                    prompts: text.prompts,
                    logits,
                    labels: &labels,
                    judgement: balance.judgement(&truth),
                    scale: backbone.logit_scale(),
                    frozen_image: frozen,
                    prior: classifier.prior(),
                    described: classifier.described(),
                })
            }
            (Self::Match { loss, .. }, TextSide::Pairs(pairs, rows)) => {
                let partial = backbone.start_text(rows, sites.entry(Tower::Text));
                let text = normalise(backbone.finish(Tower::Text, partial, sites, pass));
                let (image, scale) = (normalise(image), backbone.logit_scale());
                let number = |value: f32| Tensor::from_data([value], backbone.device());
                Loss::plain(match loss {
                    PairLoss::Softmax => pairs.loss(image, text, number(scale), 0.0),
                    PairLoss::Sigmoid => {
                        // Matches of one batch and of another are told apart by one threshold, which a backbone that was
                        // trained by softmax does not have.
                        let found = || pairs.likeliest_bias(image.clone(), text.clone(), scale);
                        let bias = number(backbone.logit_bias().unwrap_or_else(found));
                        pairs.sigmoid_loss(image, text, number(scale), bias)
                    }
                })
            }
            (Self::Match { .. }, TextSide::Met(Some(pairs))) => Loss::plain(crossing::loss(backbone, image, pairs)),
            (Self::Match { .. }, _) => unreachable!("pairs always have texts"),
        }
    }
}
