//! The training loss.

use super::{Demand, Io, Op, Reads};
use crate::backend::{Backend, Span};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// Softmax cross-entropy against target distributions: `loss = -1/N sum_n sum_k t[n, k] log softmax(x[n])_k`.
///
/// Label smoothing and mixup are in the targets, whose rows sum to 1; then `dx = (softmax(x) - t) / N`. The result holds the
/// mean loss and, beside it, the number of images whose largest logit lies at the largest target.
#[derive(Debug)]
pub(crate) struct SoftmaxCrossEntropy;

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        if args[0] != args[1] || args[0].pixels() != 1 {
            return Err(Error::shape(
                "softmax_cross_entropy",
                format!("takes logits and targets of one shape (N, classes), got {} and {}", args[0], args[1]),
            ));
        }
        Ok(Shape::features(1, 2))
    }

    fn reads(&self) -> Reads {
        Reads { args: true, out: false }
    }

    // Calibration is measured on the logits, which 8 significant bits would blur.
    fn demand(&self) -> Demand {
        Demand::Exact
    }

    fn workspace(&self, _args: &[Shape]) -> usize {
        2
    }

    fn differentiable(&self, arg: usize) -> bool {
        arg == 0
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.softmax_cross_entropy(io.arg(0), io.arg(1), loss_span(io))
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.softmax_cross_entropy_grad(io.arg(0), io.arg(1), dx),
            None => Ok(()),
        }
    }
}

/// The loss is two plain floats, not an image: they live in the workspace.
fn loss_span(io: &Io) -> Span {
    io.workspace
}
