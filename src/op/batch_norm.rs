//! Batch normalisation (Ioffe & Szegedy 2015), with the ReLU that usually follows in the same pass.

use super::{Io, Op, Reads};
use crate::backend::{Backend, BatchNorm};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// `y = gamma x^ + beta` with `x^ = (x - mean) / sqrt(var + eps)` per channel; mean and biased variance are the batch's, or the
/// running ones when evaluating. With `relu`, `y = max(0, .)` of that.
///
/// With m pixels a channel: `dbeta = sum dy`, `dgamma = sum dy x^`, `dx = gamma / sqrt(var + eps) (dy - dbeta / m - x^ dgamma / m)`,
/// where under `relu` dy counts only where y > 0.
#[derive(Debug)]
pub(crate) struct BatchNormalise {
    /// Normalise by the running statistics, not the batch's.
    pub(crate) inference: bool,
    pub(crate) epsilon: f32,
    pub(crate) relu: bool,
}

impl BatchNormalise {
    fn describe(&self, io: &Io) -> BatchNorm {
        BatchNorm {
            x: io.arg(0),
            scale: io.value(0),
            shift: io.value(1),
            running_mean: io.value(2),
            running_variance: io.value(3),
            batch: io.workspace,
            epsilon: self.epsilon,
            relu: self.relu,
        }
    }
}

impl Op for BatchNormalise {
    fn name(&self) -> &'static str {
        if self.relu { "batch_norm_relu" } else { "batch_norm" }
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        let x = args[0];
        if !self.inference && x.n * x.pixels() < 2 {
            return Err(Error::shape("batch_norm", format!("needs more than one value a channel to train, got {x}")));
        }
        Ok(x)
    }

    fn reads(&self) -> Reads {
        Reads { args: true, out: false }
    }

    fn workspace(&self, args: &[Shape]) -> usize {
        if self.inference { 0 } else { 2 * args[0].c }
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        if self.inference {
            on.batch_norm_inference(&self.describe(io), io.out)
        } else {
            on.batch_norm(&self.describe(io), io.out)
        }
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.batch_norm_grad(&self.describe(io), io.grad_out(), io.grad(0), io.parameter_grad(0), io.parameter_grad(1))
    }
}
