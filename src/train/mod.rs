//! The training of a network.

pub mod schedule;
