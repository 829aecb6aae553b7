//! What can be typed after `cigl bench`.

use clap::{Args, ValueEnum};

use super::{Machine, method, precision, preset_name, sparsity};
use crate::Result;
use crate::backend::Precision;
use crate::config::{Assignment, Config, Method, Settings};

/// More than a median needs.
const MAX_ROUNDS: i64 = 100_000;

/// Options of `cigl bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to look at
    #[arg(value_enum)]
    pub what: Bench,
    /// The experiment whose network it is
    #[arg(long, value_name = "NAME", default_value = "cifar10-wrn22-2", value_parser = preset_name())]
    pub preset: String,
    /// The method whose steps are timed
    #[arg(long, value_name = "METHOD", default_value = "cigl", value_parser = method())]
    pub method: Method,
    /// Fraction of the weights that are zero, from 0 to below 1; default: the preset's
    #[arg(long, value_name = "S", value_parser = sparsity)]
    pub sparsity: Option<f64>,
    /// Set one key of the configuration; may be repeated, the last one wins
    #[arg(long, value_name = "KEY=VALUE", value_parser = Assignment::parse)]
    pub set: Vec<Assignment>,
    /// Images of a step; default: the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Option<u32>,
    /// Times that each of the two is measured
    #[arg(long, value_name = "R", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=MAX_ROUNDS))]
    pub rounds: u32,
    /// Where the work is done
    #[command(flatten)]
    pub machine: Machine,
    /// How activations, their gradients and effective weights are stored
    #[arg(long, value_name = "PRECISION", value_parser = precision())]
    pub precision: Option<Precision>,
    /// With kernels: run nothing and estimate, with the rates of this GPU
    #[arg(long, value_enum)]
    pub model: Option<GpuModel>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `cigl bench` can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// Training steps, sparse and dense
    Step,
    /// The kernels of a training step
    Kernels,
    /// Predictions on the CPU, sparse and dense
    Inference,
}

/// A GPU whose rates are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GpuModel {
    /// NVIDIA H100 SXM
    H100,
    /// NVIDIA H200 SXM
    H200,
}

impl BenchArgs {
    /// The configuration to measure, for a run long enough for any number of steps.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn config(&self, method: Method) -> Result<Config> {
        let mut settings = Settings::new(Some(&self.preset), None, &self.set)?;
        settings.set(Assignment::new("method", method.name())?);
        settings.set(Assignment::new("data.validation", 0)?);
        settings.set(Assignment::new("train.epochs", 1_000_000)?);
        if let Some(sparsity) = self.sparsity {
            settings.set(Assignment::new("sparsity", sparsity)?);
        }
        if let Some(batch) = self.batch {
            settings.set(Assignment::new("train.batch_size", i64::from(batch))?);
        }
        if let Some(device) = self.machine.device {
            settings.set(Assignment::new("device", device.to_string())?);
        }
        if let Some(precision) = self.precision {
            settings.set(Assignment::new("precision", precision.name())?);
        }
        settings.resolve()
    }
}
