//! Pooling.

use super::{Io, Op, Reads};
use crate::backend::{Backend, Conv};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// The maximum of each window; dx goes to the first maximum in row order.
#[derive(Debug)]
pub(crate) struct MaxPool {
    pub(crate) window: usize,
    pub(crate) conv: Conv,
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        let (x, k, Conv { stride, padding }) = (args[0], self.window, self.conv);
        if k == 0 || stride == 0 || 2 * padding > k || x.h + 2 * padding < k || x.w + 2 * padding < k {
            return Err(Error::shape(
                "max_pool",
                format!(
                    "window {k}, stride {stride}, padding {padding} on {x}: needs padding of at most half the window, and a window that fits"
                ),
            ));
        }
        let pixels = |size: usize| (size + 2 * padding - k) / stride + 1;
        Ok(Shape::images(x.n, x.c, pixels(x.h), pixels(x.w)))
    }

    fn reads(&self) -> Reads {
        Reads { args: true, out: false }
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.max_pool(io.arg(0), self.window, self.conv, io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.max_pool_grad(io.arg(0), io.grad_out(), self.window, self.conv, dx),
            None => Ok(()),
        }
    }
}

/// Global average pooling: `y[n, c] = mean_{i, j} x[n, c, i, j]`; `dx = dy / (H W)`.
#[derive(Debug)]
pub(crate) struct AveragePool;

impl Op for AveragePool {
    fn name(&self) -> &'static str {
        "average_pool"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        Ok(Shape::features(args[0].n, args[0].c))
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.average_pool(io.arg(0), io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.average_pool_grad(io.grad_out(), dx),
            None => Ok(()),
        }
    }
}
