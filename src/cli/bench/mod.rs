//! `cigl bench`: what this machine does in a second, and what a GPU could at most.

mod inference;
mod kernels;
mod roofline;
mod step;
mod timing;

use serde_json::{Value, json};

use super::args::{Bench, BenchArgs};
use crate::config::Config;
use crate::error::Result;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    match args.what {
        Bench::Step => step::run(args),
        Bench::Inference => inference::run(args),
        Bench::Kernels => match args.model {
            Some(model) => roofline::run(args, model),
            None => kernels::run(args),
        },
    }
}

/// What was measured, on what: the keys that every JSON object of a whole network begins with.
fn about(args: &BenchArgs, config: &Config, device: &str, precision: &str) -> Value {
    json!({
        "preset": args.preset,
        "method": config.method.name(),
        "sparsity": config.sparsity,
        "batch": config.train.batch_size,
        "threads": rayon::current_num_threads(),
        "device": device,
        "precision": precision,
        "rounds": args.rounds,
    })
}
