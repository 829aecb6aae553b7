//! Sparse neural networks that know when they don't know.

pub mod cli;
pub mod config;
pub mod error;
pub mod rng;
pub mod sparse;
pub mod train;

pub use error::{Error, Result};
