//! Batch normalisation (Ioffe & Szegedy 2015), with the residual addition and the ReLU that may follow in the same pass.

use super::{Io, Op, Reads};
use crate::backend::{Backend, BatchNorm, Product};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// `y = gamma x^ + beta` with `x^ = (x - mean) / sqrt(var + eps)` per channel; mean and biased variance are the batch's, or the
/// running ones when evaluating. With `residual`, the second argument is added; with `relu`, `y = max(0, .)` of that.
///
/// With m pixels a channel: `dbeta = sum dy`, `dgamma = sum dy x^`, `dx = gamma / sqrt(var + eps) (dy - dbeta / m - x^ dgamma / m)`,
/// `dresidual = dy`, where under `relu` dy counts only where y > 0.
#[derive(Debug)]
pub(crate) struct BatchNormalise {
    /// Normalise by the running statistics, not the batch's.
    pub(crate) inference: bool,
    pub(crate) epsilon: f32,
    /// Add the second argument, a residual block's shortcut.
    pub(crate) residual: bool,
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
            residual: self.residual.then(|| io.arg(1)),
            relu: self.relu,
        }
    }
}

impl Op for BatchNormalise {
    fn name(&self) -> &'static str {
        match (self.residual, self.relu) {
            (false, false) => "batch_norm",
            (false, true) => "batch_norm_relu",
            (true, false) => "batch_norm_add",
            (true, true) => "batch_norm_add_relu",
        }
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        let x = args[0];
        if !self.inference && x.n * x.pixels() < 2 {
            return Err(Error::shape("batch_norm", format!("needs more than one value a channel to train, got {x}")));
        }
        if self.residual && args[1] != x {
            return Err(Error::shape(
                "batch_norm",
                format!("takes a residual of its input's shape {x}, got {}", args[1]),
            ));
        }
        Ok(x)
    }

    fn reads(&self) -> Reads {
        Reads { args: true, out: false }
    }

    fn workspace(&self, args: &[Shape]) -> usize {
        if self.inference { 0 } else { 2 * args[0].c }
    }

    fn normalises_by_batch(&self) -> bool {
        !self.inference
    }

    // The result outlives most residuals: the next block reads it.
    fn by_result(&self) -> bool {
        self.residual && self.relu && !self.inference
    }

    fn batch_norm(&self, io: &Io) -> Option<BatchNorm> {
        (!self.inference).then(|| self.describe(io))
    }

    fn absorbs(&self, arg: usize) -> bool {
        self.inference && arg == 0
    }

    fn forward_of(&self, on: &mut dyn Backend, io: &Io, product: &Product, _arg: usize) -> Result<()> {
        on.conv2d_batch_norm(product.x.map(), product.weight, product.conv, &self.describe(io), io.out)
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        let bn = self.describe(io);
        match (io.fusion.has_statistics, io.fusion.formed_later) {
            _ if self.inference => on.batch_norm_inference(&bn, io.out),
            (false, false) => on.batch_norm(&bn, io.out),
            (true, false) => on.batch_norm_by_batch(&bn, io.out),
            (false, true) => on.batch_statistics(&bn),
            (true, true) => Ok(()),
        }
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        let dresidual = if self.residual { io.grad(1) } else { None };
        let (dscale, dshift) = (io.parameter_grad(0), io.parameter_grad(1));
        let bn = self.describe(io);
        if io.fusion.by_result {
            return on.batch_norm_grad_by_result(&bn, io.out, io.grad_out(), io.grad(0), dresidual, [dscale, dshift]);
        }
        on.batch_norm_grad(&bn, io.grad_out(), io.grad(0), dresidual, dscale, dshift)
    }
}
