//! What scores are taken over: an adapter (or none) and a set of classes.

use std::ops::Deref;
use std::sync::Arc;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Frozen, Partial, Pass, Sites};
use inarch_core::image::Window;
use inarch_core::text::{Template, TemplateSet};
use inarch_core::{Digest, DigestBuilder};
use inarch_peft::Classifier;

use super::loaded::Loaded;
use crate::error::Result;

/// Classes as a request names them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClassSet {
    /// Their names; those of the adapter when empty.
    pub(crate) classes: Vec<String>,
    /// A template or template set for zero-shot; an adapter brings its own.
    pub(crate) template: Option<String>,
}

impl ClassSet {
    /// Identity of these classes under an adapter.
    pub(super) fn key(&self, adapter: Option<&str>) -> Digest {
        let mut key = DigestBuilder::default();
        key.piece(adapter.unwrap_or_default().as_bytes());
        key.piece(self.template.as_deref().unwrap_or_default().as_bytes());
        for class in &self.classes {
            key.piece(class.as_bytes());
        }
        key.finish()
    }
}

/// Classes under an adapter or none: a classifier with its class features, made once and used by every request. It does not
/// hold on to the adapter, which leaves memory by a limit of its own.
pub(crate) struct Classes {
    pub(crate) classifier: Classifier<'static>,
    /// The frozen part of the text side.
    pub(crate) start: Partial,
    /// Class features `[classes, dim]`, unless they depend on the image.
    pub(crate) text: Option<Tensor<2>>,
    /// Where images have several labels: the score of each class at which it is as likely as not.
    pub(crate) offsets: Option<Vec<f32>>,
    pub(super) bytes: u64,
}

impl Classes {
    pub(super) fn new(backbone: &Arc<Backbone>, adapter: Option<&Loaded>, set: &ClassSet) -> Result<Self> {
        let classifier: Classifier<'static> = match adapter {
            Some(loaded) => {
                let classes = (!set.classes.is_empty()).then_some(&set.classes[..]);
                loaded.artifact.classifier(backbone, classes)?
            }
            None => Classifier::zero_shot(backbone, &set.classes, &templates(set)?)?,
        };
        let offsets = adapter.map(|loaded| loaded.artifact.offsets(classifier.classes())).transpose()?;
        let sites: &dyn Sites = adapter.map_or(&Frozen, |loaded| loaded.sites());
        let start = classifier.start(sites);
        let text = (!sites.conditions_text()).then(|| classifier.text(start.clone(), sites, &Pass::evaluate()));
        let stream = start.values();
        let values = stream + text.as_ref().map_or(0, |text| text.dims().iter().product());
        let names: usize = classifier.classes().iter().map(String::len).sum();
        let bytes = (values * size_of::<f32>() + names) as u64;
        Ok(Self { classifier, start, text, offsets: offsets.flatten(), bytes })
    }
}

/// What the scores of one request are taken over.
pub(crate) struct Head {
    pub(crate) adapter: Option<Arc<Loaded>>,
    pub(super) classes: Arc<Classes>,
}

impl Deref for Head {
    type Target = Classes;

    fn deref(&self) -> &Classes {
        &self.classes
    }
}

impl Head {
    pub(crate) fn sites(&self) -> &dyn Sites {
        self.adapter.as_ref().map_or(&Frozen, |loaded| loaded.sites())
    }

    /// The window that its adapter saw grey values in; without one each file is shown in its own.
    pub(crate) fn window(&self) -> Option<Window> {
        self.adapter.as_ref()?.artifact.manifest.window
    }
}

fn templates(set: &ClassSet) -> Result<Vec<Template>> {
    Ok(TemplateSet::resolve(set.template.as_deref().unwrap_or("single"))?.templates().to_vec())
}
