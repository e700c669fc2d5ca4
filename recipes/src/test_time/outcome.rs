//! What is known about an image after its adaptation.

use serde::Serialize;

use super::confidence::softmax;
use super::episode::Admission;
use super::guard::FallBack;

/// What is known about one image after its adaptation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The image.
    pub id: String,
    /// Its number in the stream, from 0.
    pub position: u64,
    /// The scores to go by; their softmax are the probabilities.
    pub scores: Vec<f32>,
    /// The scores without adaptation.
    pub unadapted: Vec<f32>,
    /// Why the first are the second.
    pub fell_back: Option<FallBack>,
    /// Whether the answer is too unsure to be given.
    pub abstained: bool,
    /// What the method's memory took in.
    pub admitted: Vec<Admission>,
}

/// One line of the audit trail: an image that a memory took in.
#[derive(Debug, Clone, Serialize)]
pub struct AuditLine {
    /// The image's number in the stream.
    pub position: u64,
    /// The image.
    pub image: String,
    /// What happened.
    #[serde(flatten)]
    pub admission: Admission,
}

impl Outcome {
    /// The probabilities of the classes.
    pub fn probabilities(&self) -> Vec<f32> {
        softmax(&self.scores)
    }

    /// What the memory took in, line by line.
    pub fn audit(&self) -> impl Iterator<Item = AuditLine> + '_ {
        let line = |admission: &Admission| AuditLine {
            position: self.position,
            image: self.id.clone(),
            admission: admission.clone(),
        };
        self.admitted.iter().map(line)
    }
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TestTimeTiming {
    /// Making views.
    pub views: f64,
    /// The frozen image tower.
    pub encode: f64,
    /// The method.
    pub adapt: f64,
}
