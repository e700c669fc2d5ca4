//! Gradients between the backward pass and the optimizer: corrected by a guide, grouped by learning rate, averaged over
//! epochs.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use inarch_core::backbone::values;
use inarch_peft::{Adapter, Learner, Parameters};

/// Takes out of each parameter's gradient the part that works against the guide's gradient (ProGrad: Zhu et al., 2023,
/// arXiv 2205.14865): `t - strength * (t . g / |g|^2) g` where `t . g < 0`.
pub(crate) fn guided(
    adapter: &Adapter,
    task: GradientsParams,
    guide: GradientsParams,
    strength: f64,
) -> GradientsParams {
    let mut correct = Correct { task, guide, strength };
    adapter.visit(&mut correct);
    correct.task
}

struct Correct {
    task: GradientsParams,
    guide: GradientsParams,
    strength: f64,
}

impl ModuleVisitor for Correct {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(guide) = self.guide.remove::<D>(param.id) else { return };
        let Some(task) = self.task.remove::<D>(param.id) else { return };
        let dot = f64::from(values((task.clone() * guide.clone()).sum())[0]);
        let square = f64::from(values((guide.clone() * guide.clone()).sum())[0]);
        let task = if dot < 0.0 && square > 0.0 { task - guide * (self.strength * dot / square) } else { task };
        self.task.register(param.id, task);
    }
}

/// The gradients of the parameters of each learning-rate factor.
pub(crate) fn by_rate(adapter: &Adapter, gradients: GradientsParams) -> Vec<(f64, GradientsParams)> {
    let mut group = Group { learner: adapter.learner(), path: Vec::new(), rest: gradients, groups: Vec::new() };
    adapter.visit_parameters(&mut group);
    group.groups
}

struct Group<'a> {
    learner: &'a dyn Learner,
    path: Vec<String>,
    rest: GradientsParams,
    groups: Vec<(f64, GradientsParams)>,
}

impl ModuleVisitor for Group<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.rest.remove::<D>(param.id) else { return };
        let rate = self.learner.rate(&self.path.join("."));
        if rate == 0.0 {
            return;
        }
        let at = match self.groups.iter().position(|(known, _)| *known == rate) {
            Some(at) => at,
            None => {
                self.groups.push((rate, GradientsParams::new()));
                self.groups.len() - 1
            }
        };
        self.groups[at].1.register(param.id, gradient);
    }
}

/// Adds `weight * parameters` to a running sum.
pub(crate) fn accumulate(sum: &mut Parameters, parameters: &Parameters, weight: f64) {
    for (name, tensor) in parameters {
        match sum.get_mut(name) {
            Some(sum) => {
                for (sum, value) in sum.data.iter_mut().zip(&tensor.data) {
                    *sum += weight as f32 * value;
                }
            }
            None => {
                let mut tensor = tensor.clone();
                tensor.data.iter_mut().for_each(|value| *value *= weight as f32);
                sum.insert(name.clone(), tensor);
            }
        }
    }
}
