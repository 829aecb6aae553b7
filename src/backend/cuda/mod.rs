//! The CUDA backend.
#![allow(dead_code)] // until the backend launches the kernels

pub(crate) mod choice;
pub(crate) mod driver;
pub(crate) mod images;
pub(crate) mod ptx;
