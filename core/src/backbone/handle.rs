//! A backbone that is borrowed for a run, or shared by all that outlives it.

use std::ops::Deref;
use std::sync::Arc;

use super::frozen::Backbone;

/// Either way of holding a [`Backbone`]; it dereferences to one.
#[derive(Debug, Clone)]
pub enum BackboneHandle<'a> {
    /// For as long as a run lasts.
    Borrowed(&'a Backbone),
    /// For as long as anyone needs it, as in a server.
    Shared(Arc<Backbone>),
}

impl Deref for BackboneHandle<'_> {
    type Target = Backbone;

    fn deref(&self) -> &Backbone {
        match self {
            Self::Borrowed(backbone) => backbone,
            Self::Shared(backbone) => backbone,
        }
    }
}

impl<'a> From<&'a Backbone> for BackboneHandle<'a> {
    fn from(backbone: &'a Backbone) -> Self {
        Self::Borrowed(backbone)
    }
}

impl From<Arc<Backbone>> for BackboneHandle<'_> {
    fn from(backbone: Arc<Backbone>) -> Self {
        Self::Shared(backbone)
    }
}

impl From<&Arc<Backbone>> for BackboneHandle<'_> {
    fn from(backbone: &Arc<Backbone>) -> Self {
        Self::Shared(backbone.clone())
    }
}
