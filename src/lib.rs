//! Sparse neural networks that know when they don't know.

pub mod error;
pub mod rng;
pub mod sparse;

pub use error::{Error, Result};
