//! A temperature behind an adapter, from validation images (Guo et al. 2017, arXiv 1706.04599).

use std::collections::BTreeMap;

use inarch_core::backbone::{Frozen, Sites};
use inarch_core::text::{Template, check_described};
use inarch_peft::{Adapter, Artifact, Classifier, MethodConfig, Provenance, Temperature, TemperatureConfig};

use crate::error::Result;
use crate::evaluate::scored;
use crate::session::Session;

impl Session<'_> {
    /// An adapter, or zero-shot by `templates`, with a temperature behind it, and that temperature: the one under which
    /// the labels of the validation images are likeliest. It changes probabilities and no answer.
    ///
    /// # Errors
    /// No validation image, one that cannot be read, several labels an image, a class the adapter does not know, or an
    /// adapter that nothing can be stacked on.
    pub fn calibrated(&self, artifact: Option<&Artifact>, templates: &[Template]) -> Result<(Artifact, f64)> {
        let (backbone, dataset) = (self.backbone, &self.dataset);
        if dataset.val.is_empty() {
            let reason = "it has no validation images for a temperature; add a `val` folder or a `val` split";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", dataset.name), reason).into());
        }
        dataset.need_single_labels("a temperature")?;
        let (classifier, templates) = match artifact {
            Some(artifact) => (artifact.classifier(backbone, Some(&dataset.classes))?, artifact.templates()?),
            None => {
                check_described(templates, &dataset.classes)?;
                (Classifier::zero_shot(backbone, &dataset.classes, templates)?, templates.to_vec())
            }
        };
        let sites: &dyn Sites = match artifact {
            Some(artifact) => artifact.adapter.sites(),
            None => &Frozen,
        };
        let found = scored(backbone, &classifier, sites, dataset, &dataset.val, (self.policy, self.control))?;
        let factor = found.likeliest_factor(dataset.classes.len(), &dataset.val)?;
        let provenance = Provenance {
            classes: dataset.classes.clone(),
            templates,
            data: Some(dataset.digest()),
            clips: dataset.clips.clone(),
            metrics: BTreeMap::new(),
        };
        let adapter = Adapter::Temperature(Temperature::of(factor, backbone.device()));
        let method = MethodConfig::Temperature(TemperatureConfig::default());
        let temperature = Artifact::new(adapter, method, backbone, provenance)?;
        let calibrated = match artifact {
            Some(artifact) => Artifact::stack(&[artifact.clone(), temperature], backbone)?,
            None => temperature,
        };
        Ok((calibrated, 1.0 / factor))
    }
}
