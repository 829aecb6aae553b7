//! The built program from end to end, as a user meets it: runs, interruptions, mistakes, every method and every key.
//!
//! All runs are on a few hundred of the embedded digits, some tenths of a second each.

mod averaging;
mod bench;
mod calibrate;
mod determinism;
mod divergence;
mod errors;
mod evolution;
mod export;
mod keys;
mod methods;
mod output;
mod predictions;
mod program;
mod random_mask;
mod report;
mod reproduce;
mod resume;
mod run_files;
mod softmax_regression;
mod tensorboard;
