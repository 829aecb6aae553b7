//! Sparse neural networks that know when they don't know.

pub mod calibration;
pub mod error;
pub mod report;
pub mod rng;

pub use error::{Error, Result};
