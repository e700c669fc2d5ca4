//! What the allowed names of a pickle give when they are called, and what its references to stored numbers mean.

use super::super::globals::Global;
use super::{DISORDER, Id, Machine, Node};

impl Machine<'_> {
    /// What a call of an allowed name gives.
    pub(super) fn call(&self, callable: Id, arguments: Id) -> Result<Node, String> {
        let Node::List(arguments) = &self.nodes[arguments] else { return Err(DISORDER.into()) };
        let argument = |at: usize| arguments.get(at).map(|id| &self.nodes[*id]).ok_or(DISORDER);
        match &self.nodes[callable] {
            Node::Global(Global::OrderedDict) => match arguments.first().map(|id| &self.nodes[*id]) {
                None => Ok(Node::Dict(Vec::new())),
                Some(Node::List(pairs)) => {
                    let pair = |id: &Id| match &self.nodes[*id] {
                        Node::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
                        _ => Err(DISORDER.to_string()),
                    };
                    Ok(Node::Dict(pairs.iter().map(pair).collect::<Result<_, _>>()?))
                }
                Some(_) => Err(DISORDER.into()),
            },
            Node::Global(Global::Parameter | Global::Size) => Ok(argument(0)?.clone()),
            Node::Global(Global::Text(kind)) => match arguments.first().map(|id| &self.nodes[*id]) {
                Some(Node::Text(text)) => Ok(Node::Text(text.clone())),
                _ => Ok(Node::Text(kind.clone())),
            },
            Node::Global(Global::Tensor) => {
                let storage = *arguments.first().ok_or(DISORDER)?;
                let [shape, strides] = [self.sizes(argument(2)?)?, self.sizes(argument(3)?)?];
                if !matches!(self.nodes[storage], Node::Storage { .. }) || shape.len() != strides.len() {
                    return Err(DISORDER.into());
                }
                Ok(Node::Tensor { storage, offset: size(argument(1)?)?, shape, strides })
            }
            Node::Global(Global::Inert(name)) => Ok(Node::Object(name.clone())),
            _ => Err(DISORDER.into()),
        }
    }

    fn sizes(&self, node: &Node) -> Result<Vec<usize>, String> {
        match node {
            Node::List(items) if items.len() <= 16 => items.iter().map(|id| size(&self.nodes[*id])).collect(),
            _ => Err(DISORDER.into()),
        }
    }

    /// `("storage", type, key, device, count)`, in old files with a sixth part for a view of another storage.
    pub(super) fn storage(&self, id: Id) -> Result<Node, String> {
        let Node::List(parts) = &self.nodes[id] else { return Err(DISORDER.into()) };
        let parts: Vec<&Node> = parts.iter().map(|id| &self.nodes[*id]).collect();
        match parts[..] {
            [Node::Text(kind), Node::Global(Global::Storage(element)), key, _, count]
            | [Node::Text(kind), Node::Global(Global::Storage(element)), key, _, count, Node::None]
                if kind == "storage" =>
            {
                let key = match key {
                    Node::Text(key) => key.clone(),
                    Node::Int(key) => key.to_string(),
                    _ => return Err(DISORDER.into()),
                };
                Ok(Node::Storage { key, element: *element, count: size(count)? })
            }
            _ => Err(
                "it refers to stored numbers in a way that is not known (a view of another storage, or a type without \
                      plain numbers)"
                    .into(),
            ),
        }
    }
}

fn size(node: &Node) -> Result<usize, String> {
    match node {
        Node::Int(value) => usize::try_from(*value).map_err(|_| DISORDER.into()),
        _ => Err(DISORDER.into()),
    }
}
