//! Every name of Python that a checkpoint may mention, and what stands for it here.

/// The type of a stored number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Global {
    /// A dictionary that keeps its order.
    OrderedDict,
    /// A tensor from a storage, an offset, a shape and strides.
    Tensor,
    /// A tensor that is trained: its first argument.
    Parameter,
    /// A shape: its only argument.
    Size,
    /// Text: a device or a number type.
    Text(String),
    /// The type of a storage.
    Storage(Element),
    /// A thing that nobody needs here, kept as its name only.
    Inert(String),
}

/// The meaning of `module.name`, or `None` when it is not allowed.
pub(super) fn lookup(module: &str, name: &str) -> Option<Global> {
    let storage = |element| Some(Global::Storage(element));
    match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::Tensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Text("device".into())),
        ("torch", "DoubleStorage") => storage(Element::F64),
        ("torch", "FloatStorage") => storage(Element::F32),
        ("torch", "HalfStorage") => storage(Element::F16),
        ("torch", "BFloat16Storage") => storage(Element::BF16),
        ("torch", "LongStorage") => storage(Element::I64),
        ("torch", "IntStorage") => storage(Element::I32),
        ("torch", "ShortStorage") => storage(Element::I16),
        ("torch", "CharStorage") => storage(Element::I8),
        ("torch", "ByteStorage") => storage(Element::U8),
        ("torch", "BoolStorage") => storage(Element::Bool),
        ("torch", "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "int16" | "int8" | "uint8") => {
            Some(Global::Text(name.into()))
        }
        // Training frameworks store optimisers and schedules beside the weights. They are passed over, not rebuilt.
        ("collections", "defaultdict" | "Counter")
        | ("builtins" | "__builtin__", "dict" | "list" | "set")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("_codecs", "encode")
        | ("argparse", "Namespace") => Some(inert(module, name)),
        _ if ["torch.optim.", "dassl."].iter().any(|known| module.starts_with(known)) => Some(inert(module, name)),
        _ => None,
    }
}

fn inert(module: &str, name: &str) -> Global {
    Global::Inert(format!("{module}.{name}"))
}
