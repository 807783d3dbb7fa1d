//! The rules of the house that a machine can check: layers, a pure core, import cycles, sizes,
//! words.

mod import_graph;
mod layers;
mod limits;
mod links;
mod source;
mod words;
