//! `cigl bench`: what this machine does in a second, and what a GPU could at most.

mod inference;
mod kernels;
mod roofline;
mod step;
mod timing;

use super::args::{Bench, BenchArgs};
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
