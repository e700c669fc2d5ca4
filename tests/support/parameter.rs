//! Random values that depend on names alone, and the gradients of a module by path.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::values;

/// Normal draws of some shape; the same name gives the same values.
pub(crate) fn draws<const D: usize>(name: &str, shape: [usize; D], deviation: f32, device: &Device) -> Tensor<D> {
    let values = Seed::new(7).split(name).normals(shape.iter().product(), deviation);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Random values to be trained.
pub(crate) fn learned<const D: usize>(
    name: &str,
    shape: [usize; D],
    deviation: f32,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::from_tensor(draws(name, shape, deviation, device))
}

struct Randomise<'a> {
    path: Vec<String>,
    deviation: f32,
    device: &'a Device,
}

impl ModuleMapper for Randomise<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        learned(&self.path.join("."), param.val().dims(), self.deviation, self.device)
    }
}

/// A module with random non-zero values in place of its fresh ones.
pub(crate) fn randomised<M: Module>(module: M, deviation: f32, device: &Device) -> M {
    module.map(&mut Randomise { path: Vec::new(), deviation, device })
}

/// The gradient of one parameter.
#[derive(Debug)]
pub(crate) struct Gradient {
    /// The parameter's path.
    pub(crate) name: String,
    /// The greatest magnitude; `None` when nothing arrived.
    pub(crate) greatest: Option<f32>,
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Vec<Gradient>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let greatest = param.val().grad(self.gradients).map(|gradient| values(gradient.abs().max())[0]);
        self.found.push(Gradient { name: self.path.join("."), greatest });
    }
}

/// Runs the loss backward and reads the gradient of every parameter of a module.
pub(crate) fn gradients<M: Module>(module: &M, loss: &Tensor<1>) -> Vec<Gradient> {
    let gradients = loss.backward();
    let mut collect = Collect { path: Vec::new(), gradients: &gradients, found: Vec::new() };
    module.visit(&mut collect);
    collect.found
}
