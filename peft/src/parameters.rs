//! The learned tensors of an adapter by name, to be saved, loaded and identified.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{HostTensor, values};

use crate::adapter::Adapter;
use crate::fixed::is_fixed;

/// Learned tensors by name, in burn's layout (a matrix is `[d_input, d_output]`).
pub type Parameters = BTreeMap<String, HostTensor>;

/// A stack of module names; enum variants are left out by [`Adapter::visit_parameters`].
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn name(&self) -> String {
        self.0.join(".")
    }
}

#[derive(Default)]
struct Collect {
    path: Path,
    found: Parameters,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let name = self.path.name();
        let shape = tensor.dims().to_vec();
        self.found.insert(name.clone(), HostTensor { shape, data: values(tensor), origin: name });
    }
}

struct Assign<'a> {
    path: Path,
    source: &'a mut Parameters,
    device: &'a Device,
    faults: Vec<String>,
}

impl ModuleMapper for Assign<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let expected = param.val().dims();
        match self.source.remove(&name) {
            Some(tensor) if tensor.shape == expected => {
                if let Some(at) = tensor.data.iter().position(|value| !value.is_finite()) {
                    self.faults.push(format!("`{name}` holds {} at element {at}", tensor.data[at]));
                }
                let value = Tensor::from_data(TensorData::new(tensor.data, expected), self.device);
                let (id, _, _) = param.consume();
                with_id(id, value, !is_fixed(&name))
            }
            Some(tensor) => {
                self.faults.push(format!("`{name}`: expected shape {expected:?}, found {:?}", tensor.shape));
                param
            }
            None => {
                self.faults.push(format!("`{name}` is missing"));
                param
            }
        }
    }
}

struct Identify {
    path: Path,
}

impl ModuleMapper for Identify {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let id = ParamId::from(Seed::new(0).hash(&name));
        with_id(id, param.val(), !is_fixed(&name))
    }
}

fn with_id<const D: usize>(id: ParamId, value: Tensor<D>, trained: bool) -> Param<Tensor<D>> {
    // `from_tensor` marks the value as trainable, which a bare `initialized` would not.
    let (_, value, mapper) = Param::from_tensor(value.detach()).consume();
    Param::from_mapped_value(id, value, mapper).set_require_grad(trained)
}

/// Gives every parameter of a module an identity made from its path, so that optimizer state saved by one process is
/// found by another.
#[must_use]
pub fn identified<M: Module>(module: M) -> M {
    module.map(&mut Identify { path: Path::default() })
}

impl Adapter {
    /// The learned tensors.
    pub fn parameters(&self) -> Parameters {
        let mut collect = Collect::default();
        self.visit_parameters(&mut collect);
        collect.found
    }

    /// Replaces the learned tensors; `Err` lists everything that does not fit.
    ///
    /// # Errors
    /// A description of every tensor that is missing, superfluous, mis-shaped or not finite.
    pub fn with_parameters(self, mut source: Parameters, device: &Device) -> Result<Self, String> {
        let mut assign = Assign { path: Path::default(), source: &mut source, device, faults: Vec::new() };
        let adapter = self.map_parameters(&mut assign);
        let mut faults = assign.faults;
        faults.extend(source.keys().map(|name| format!("`{name}` is not a parameter of this method")));
        if faults.is_empty() { Ok(adapter) } else { Err(faults.join("; ")) }
    }

    /// The tensors of `old` in the place of this fresh adapter's, where the number of classes has grown from `before` to
    /// `after`: rows of known classes are kept, those of new classes stay fresh.
    ///
    /// # Errors
    /// The tensor that has neither the same shape nor rows for classes.
    pub fn grown_from(self, old: &Parameters, before: usize, after: usize, device: &Device) -> Result<Self, String> {
        let mut merged = self.parameters();
        for (name, fresh) in &mut merged {
            let Some(kept) = old.get(name) else { return Err(format!("`{name}` is missing")) };
            let rows = |shape: &[usize], classes: usize| (shape.first().copied().unwrap_or(1), classes.max(1));
            let ((new_rows, after), (old_rows, before)) = (rows(&fresh.shape, after), rows(&kept.shape, before));
            let by_class = new_rows % after == 0 && old_rows % before == 0 && new_rows / after == old_rows / before;
            if fresh.shape == kept.shape {
                fresh.data.clone_from(&kept.data);
            } else if by_class && fresh.shape.get(1..) == kept.shape.get(1..) && old_rows <= new_rows {
                fresh.data[..kept.data.len()].copy_from_slice(&kept.data);
            } else {
                return Err(format!("`{name}`: shape {:?} does not grow into {:?}", kept.shape, fresh.shape));
            }
        }
        self.with_parameters(merged, device)
    }

    /// The same adapter as plain values, for inference.
    #[must_use]
    pub fn without_autodiff(self) -> Self {
        self.valid()
    }

    /// Number of trained values, without those that are stored and [fixed](crate::Fixed).
    pub fn trainable(&self) -> usize {
        let trained = |(name, tensor): (&String, &HostTensor)| if is_fixed(name) { 0 } else { tensor.data.len() };
        self.parameters().iter().map(trained).sum()
    }
}
