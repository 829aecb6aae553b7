//! The training of a network: the loop, what it reads and writes, and what its result is worth.
//!
//! [`run::run`] is a whole run in a folder, as the program makes it. [`Trainer`] is the loop alone, one batch a call: what to
//! use in a program of your own, and with a network of your own.

pub mod checkpoint;
pub mod evaluate;
pub mod evolution;
mod mask_update;
pub mod masked_weight;
pub mod run;
pub mod run_folder;
pub mod schedule;
mod snapshot;
pub mod start;
pub mod summary;
pub mod tensorboard;
pub mod trained;
pub mod trainer;
pub mod tuning;
pub mod variational;

pub use trainer::Trainer;
