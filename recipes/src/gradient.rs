//! Gradients between the backward pass and the optimizer: corrected by a guide, grouped by learning rate, averaged over
//! epochs.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};
use inarch_core::backbone::{HostTensor, values};
use inarch_peft::{Adapter, Learner, Parameters};

/// Takes out of each parameter's gradient the part that works against the guide's gradient (ProGrad: Zhu et al., 2023,
/// arXiv 2205.14865): `t - strength * (t . g / |g|^2) g` where `t . g < 0`.
pub(crate) fn guided(
    adapter: &Adapter,
    task: GradientsParams,
    guide: GradientsParams,
    strength: f64,
) -> GradientsParams {
    let mut correct = Correct { task, guide, strength, whole: None };
    adapter.visit(&mut correct);
    correct.task
}

/// As [`guided`], with one product for all parameters together (A-GEM: Chaudhry et al., 2019, arXiv 1812.00420).
pub(crate) fn guided_as_one(
    adapter: &Adapter,
    task: GradientsParams,
    guide: GradientsParams,
    strength: f64,
) -> GradientsParams {
    let mut product = Product { task, guide, dot: 0.0, square: 0.0 };
    adapter.visit(&mut product);
    let Product { task, guide, dot, square } = product;
    let mut correct = Correct { task, guide, strength, whole: Some((dot, square)) };
    adapter.visit(&mut correct);
    correct.task
}

/// The products of two gradients over all parameters; both are given back.
struct Product {
    task: GradientsParams,
    guide: GradientsParams,
    dot: f64,
    square: f64,
}

impl ModuleVisitor for Product {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(guide) = self.guide.remove::<D>(param.id) else { return };
        self.square += f64::from(values((guide.clone() * guide.clone()).sum())[0]);
        if let Some(task) = self.task.remove::<D>(param.id) {
            self.dot += f64::from(values((task.clone() * guide.clone()).sum())[0]);
            self.task.register(param.id, task);
        }
        self.guide.register(param.id, guide);
    }
}

/// Gradients by the parameters' paths, on the host.
pub(crate) fn host_gradients(adapter: &Adapter, gradients: &Gradients) -> Parameters {
    let mut collect = Collect { path: Vec::new(), gradients, found: Parameters::new() };
    adapter.visit_parameters(&mut collect);
    collect.found
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Parameters,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), host(gradient, &self.path));
        }
    }
}

fn host<const D: usize>(tensor: Tensor<D>, path: &[String]) -> HostTensor {
    HostTensor { shape: tensor.dims().to_vec(), data: values(tensor), origin: path.join(".") }
}

/// A copy of the gradients on the host, and the gradients.
pub(crate) fn copied(adapter: &Adapter, gradients: GradientsParams) -> (Parameters, GradientsParams) {
    let mut copy = Copy { path: Vec::new(), gradients, found: Parameters::new() };
    adapter.visit_parameters(&mut copy);
    (copy.found, copy.gradients)
}

struct Copy {
    path: Vec<String>,
    gradients: GradientsParams,
    found: Parameters,
}

impl ModuleVisitor for Copy {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
        self.found.insert(self.path.join("."), host(gradient.clone(), &self.path));
        self.gradients.register(param.id, gradient);
    }
}

struct Correct {
    task: GradientsParams,
    guide: GradientsParams,
    strength: f64,
    /// The products over all parameters, where they count as one.
    whole: Option<(f64, f64)>,
}

impl ModuleVisitor for Correct {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(guide) = self.guide.remove::<D>(param.id) else { return };
        let Some(task) = self.task.remove::<D>(param.id) else { return };
        let (dot, square) = self.whole.unwrap_or_else(|| {
            let dot = f64::from(values((task.clone() * guide.clone()).sum())[0]);
            (dot, f64::from(values((guide.clone() * guide.clone()).sum())[0]))
        });
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
