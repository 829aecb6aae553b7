//! Sparse neural networks that know when they don't know.
//!
//! This crate trains networks in which 80 to 99 % of the weights are zero from the first step to the last, and measures
//! how far their confidence can be trusted. Its centre is CigL (Lei, Zhang, Xu and Mallick, "Calibrating the Rigged Lottery:
//! Making All Tickets Reliable", ICLR 2023, arXiv 2302.09369): RigL, which moves the nonzero weights to where they help most,
//! with two masks instead of one and an average over the last epochs. The dense, static, SET, SNFS, GMP and lottery-ticket
//! baselines are here too.
//!
//! The program `cigl` is one user of this library. A program of your own can be as short as this:
//!
//! ```
//! use cigl::backend::cpu::Cpu;
//! use cigl::config::{Assignment, Config};
//! use cigl::nn::Mlp;
//! use cigl::train::Trainer;
//!
//! // An experiment is data: a preset, here on the embedded handwritten digits, and what is to be different from it.
//! let config = Config::resolve(Some("digits"), None, &[Assignment::parse("train.epochs=4")?])?;
//! let digits = config.data.dataset.load(None, config.limits())?.split(config.limits())?;
//!
//! // CigL at 90 % sparsity, the preset's method, for any network: this one has a hidden layer of 64.
//! let network = Box::new(Mlp { hidden: vec![64] });
//! let mut trainer = Trainer::start(&config, network, &digits.train, Box::new(Cpu::new()))?;
//! while !trainer.is_done() {
//!     trainer.step()?;
//! }
//! trainer.finish(&mut |_| {})?;
//!
//! let metrics = trainer.evaluate(&digits.test)?.metrics;
//! println!("accuracy {:.3}, ECE {:.3}", metrics.accuracy, metrics.ece);
//! assert!(metrics.accuracy > 0.85);
//! // 4,096 + 640 weights, of which a tenth are not 0: the nearest whole number to it, layer by layer.
//! assert!((trainer.model().density()? - 0.1).abs() < 0.5 * 2.0 / 4736.0 + 1e-12);
//! # Ok::<(), cigl::Error>(())
//! ```
//!
//! # The rooms
//! Each calls only what stands below it.
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`] | the program: what can be typed, and one file a subcommand |
//! | [`reproduce`] | the paper's experiments: trainings, tables, figures |
//! | [`runs`] | run folders read back: found, grouped over seeds, shown on a page |
//! | [`export`] | a trained network as other programs read it: torchvision, ONNX, sparse files |
//! | [`train`] | the loop, mask updates, averaging, evaluation, checkpoints, run folders |
//! | [`report`] | tables, plots, pages |
//! | [`config`] | an experiment as data: presets, files, keys |
//! | [`data`] | the embedded sets, IDX, CIFAR, image folders; splits, augmentation, batches |
//! | [`calibration`] | metrics, reliability, intervals, recalibration, files of predictions: needs no network |
//! | [`sparse`] | densities, schedules, operation counts |
//! | [`model`] | a network on a device: parameters, masks, plans |
//! | [`nn`] | layers and networks, recorded on a graph |
//! | [`graph`], [`plan`] | a network as nodes; its steps and its memory, settled before the first one runs |
//! | [`backend`] | what a device does: one trait, one method a kernel; the CPU |
//! | [`bitmask`], [`rng`], [`shape`], [`error`] | masks as bits, counter-based random numbers, shapes, the error type |
//!
//! A training step is recorded once, planned once and replayed many times: a [`nn::Network`] puts nodes on a
//! [`graph::Graph`], a [`plan::Plan`] gives every value and gradient its place, and a [`backend::Backend`] runs the list.
//!
//! # Numbers
//! The same seed gives the same bits on the same device, on any number of threads. Everything random is a function of the seed
//! and of what it is for ([`rng`]), so a run continued from a checkpoint is the run that was never interrupted. What is stored in
//! f32 and what may be in bf16 is said at [`backend::Precision`].

pub mod backend;
pub mod bitmask;
pub mod calibration;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod export;
pub mod graph;
pub mod inference;
pub mod model;
pub mod nn;
mod op;
pub mod plan;
pub mod report;
pub mod reproduce;
pub mod rng;
pub mod runs;
pub mod shape;
pub mod sparse;
pub mod train;

pub use error::{Error, Result};
pub use shape::Shape;
