//! Sparse neural networks that know when they don't know.

pub mod backend;
pub mod bitmask;
pub mod calibration;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod graph;
pub mod model;
pub mod nn;
mod op;
pub mod plan;
pub mod report;
pub mod rng;
pub mod shape;
pub mod sparse;
pub mod train;

pub use error::{Error, Result};
pub use shape::Shape;
