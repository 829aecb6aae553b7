//! Bias.

use super::{Io, Op, Reads};
use crate::backend::Backend;
use crate::error::Result;
use crate::shape::Shape;

/// Adds a bias to every channel: `y[n, c, i, j] = x[n, c, i, j] + b[c]`.
///
/// The gradients are `dx = dy` and `db[c] = sum_{n, i, j} dy[n, c, i, j]`.
#[derive(Debug)]
pub(crate) struct AddBias;

impl Op for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        Ok(args[0])
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.add_bias(io.arg(0), io.value(0), io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.bias_grad(io.grad_out(), io.parameter_grad(0))?;
        match io.grad(0) {
            Some(dx) => on.copy(io.grad_out(), dx),
            None => Ok(()),
        }
    }
}
