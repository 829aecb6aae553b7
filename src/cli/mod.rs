//! The command line: one file a subcommand, each parses, calls the library and prints.

pub mod args;
mod bench;
mod calibrate;
mod eval;
mod export;
mod help;
mod info;
mod kernels;
mod machine;
mod metrics;
mod output;
mod predict;
mod predictions;
mod progress;
mod report;
mod reproduce;
mod train;

use std::process::ExitCode;

use clap::Parser;

use crate::backend::cpu::Level;
use crate::error::Error;
use args::{Cli, Command};

/// Runs the program and says how it ended: 0 well, 1 failed, 2 asked for something that cannot be, 130 and 143 stopped by Ctrl-C and
/// SIGTERM.
pub fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    let result = Level::asked_for().and_then(|_| match command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Bench(args) => bench::run(&args),
    });
    let Err(error) = result else { return ExitCode::SUCCESS };
    output::tell(format_args!("error: {}", error.chain()));
    ExitCode::from(match error {
        Error::Usage(_) => 2,
        Error::Interrupted { signal } => 128 + signal as u8,
        _ => 1,
    })
}
