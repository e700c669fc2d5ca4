//! Gradients between the backward pass and the optimizer: corrected by a guide, grouped by learning rate, averaged over
//! epochs.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};
use inarch_core::backbone::{HostTensor, values};
use inarch_peft::{Adapter, Correction, Learner, Parameters};

use crate::cone::cone_weights;

/// The task's gradient as its guides' gradients correct it ([`Correction`]): ProGrad (Zhu et al., 2023, arXiv 2205.14865),
/// A-GEM (Chaudhry et al., 2019, arXiv 1812.00420) and GEM (Lopez-Paz and Ranzato, 2017, arXiv 1706.08840).
pub(crate) fn corrected(
    adapter: &Adapter,
    task: GradientsParams,
    guides: &[GradientsParams],
    correction: Correction,
) -> GradientsParams {
    let dot = |left: &GradientsParams, right: &GradientsParams| {
        let mut product = Product { left, right, dot: 0.0 };
        adapter.visit(&mut product);
        product.dot
    };
    let weight = |strength: f64, dot: f64, square: f64| {
        if dot < 0.0 && square > 0.0 { -strength * dot / square } else { 0.0 }
    };
    match correction {
        Correction::Each { strength } => guides.iter().fold(task, |task, guide| {
            let own = |dot: f64, square: f64| weight(strength, dot, square);
            added(adapter, task, guide, Weight::Own(&own))
        }),
        Correction::Whole { strength } => guides.iter().fold(task, |task, guide| {
            let weight = weight(strength, dot(&task, guide), dot(guide, guide));
            added(adapter, task, guide, Weight::One(weight))
        }),
        Correction::Cone { margin } => {
            let products: Vec<f64> = guides.iter().map(|guide| dot(&task, guide)).collect();
            if products.iter().all(|product| *product >= 0.0) {
                return task;
            }
            let gram: Vec<Vec<f64>> =
                guides.iter().map(|left| guides.iter().map(|right| dot(left, right)).collect()).collect();
            let weights = cone_weights(&gram, &products, margin);
            let pairs = guides.iter().zip(weights);
            pairs.fold(task, |task, (guide, weight)| added(adapter, task, guide, Weight::One(weight)))
        }
    }
}

/// The factor on a guide's gradient.
enum Weight<'a> {
    /// Of a parameter, by its products `t . g` and `g . g`.
    Own(&'a dyn Fn(f64, f64) -> f64),
    /// Of all parameters.
    One(f64),
}

fn added(adapter: &Adapter, task: GradientsParams, guide: &GradientsParams, weight: Weight<'_>) -> GradientsParams {
    let mut add = Add { task, guide, weight };
    adapter.visit(&mut add);
    add.task
}

struct Add<'a> {
    task: GradientsParams,
    guide: &'a GradientsParams,
    weight: Weight<'a>,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(guide) = self.guide.get::<D>(param.id) else { return };
        let task = self.task.remove::<D>(param.id);
        let weight = match (&self.weight, &task) {
            (Weight::One(weight), _) => *weight,
            (Weight::Own(_), None) => 0.0,
            (Weight::Own(weight), Some(task)) => weight(product(task, &guide), product(&guide, &guide)),
        };
        let sum = match task {
            Some(task) if weight == 0.0 => task,
            Some(task) => task + guide * weight,
            None if weight == 0.0 => return,
            None => guide * weight,
        };
        self.task.register(param.id, sum);
    }
}

fn product<const D: usize>(left: &Tensor<D>, right: &Tensor<D>) -> f64 {
    f64::from(values((left.clone() * right.clone()).sum())[0])
}

/// The product of two gradients over all parameters; one that is missing is zero.
struct Product<'a> {
    left: &'a GradientsParams,
    right: &'a GradientsParams,
    dot: f64,
}

impl ModuleVisitor for Product<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(left), Some(right)) = (self.left.get::<D>(param.id), self.right.get::<D>(param.id)) {
            self.dot += product(&left, &right);
        }
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

/// The gradients of the parameters of each learning-rate factor; `beside` is a factor beside the method's own.
pub(crate) fn by_rate(
    adapter: &Adapter,
    gradients: GradientsParams,
    beside: &dyn Fn(&str) -> f64,
) -> Vec<(f64, GradientsParams)> {
    let mut group = Group { learner: adapter.learner(), beside, path: Vec::new(), rest: gradients, groups: Vec::new() };
    adapter.visit_parameters(&mut group);
    group.groups
}

struct Group<'a> {
    learner: &'a dyn Learner,
    beside: &'a dyn Fn(&str) -> f64,
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
        let path = self.path.join(".");
        let rate = self.learner.rate(&path) * (self.beside)(&path);
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
