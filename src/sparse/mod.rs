//! Which weights a sparse network has: densities, schedules and what they cost.

pub mod density;
pub mod flops;
pub mod schedule;
pub mod snfs;
