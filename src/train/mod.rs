//! The training of a network.

pub mod checkpoint;
pub mod evaluate;
mod mask_update;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod start;
pub mod summary;
pub mod trained;
pub mod trainer;
