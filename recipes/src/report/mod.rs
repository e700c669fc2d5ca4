//! A run as one page that people read: a single HTML file that loads nothing.
//!
//! In flows a [`Page`], plain data; out flows a string. Equal pages give equal bytes, on every machine: no fonts, no
//! clock, no locale.

mod confusion;
mod error;
mod heat;
mod html;
mod page;
mod plot;

pub use error::ReportError;
pub use html::render;
pub use page::{Body, Confusion, Curves, Gallery, GalleryItem, Heat, Page, Point, Section, Series, Table};
