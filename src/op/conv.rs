//! Masked convolution; a masked linear layer is one over single pixels.

use super::{Io, Op, Reads};
use crate::backend::{Backend, Conv};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// Cross-correlation with the effective weights: `y[n, o, i, j] = sum_{c, k, l} w[o, k, l, c] x[n, c, s i + k - p, s j + l - p]`.
///
/// `dx` is the correlation of dy, spread by the stride, with the flipped weights; `dw[o, k, l, c] = sum_{n, i, j} dy[n, o, i, j] x[n, c, s i + k - p, s j + l - p]`.
#[derive(Debug)]
pub(crate) struct Convolve {
    pub(crate) out_channels: usize,
    pub(crate) in_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) conv: Conv,
}

impl Op for Convolve {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        let (x, k, Conv { stride, padding }) = (args[0], self.kernel, self.conv);
        if k == 0 || stride == 0 || self.out_channels == 0 || padding >= k.max(1) {
            return Err(Error::shape(
                "conv2d",
                format!(
                    "kernel {k}, stride {stride}, padding {padding}, {} channels: needs kernel > padding, stride and channels of at least 1",
                    self.out_channels
                ),
            ));
        }
        if x.c != self.in_channels || x.h + 2 * padding < k || x.w + 2 * padding < k {
            return Err(Error::shape(
                "conv2d",
                format!(
                    "takes {} channels of at least {k}x{k} pixels with padding {padding}, got {x}",
                    self.in_channels
                ),
            ));
        }
        let pixels = |size: usize| (size + 2 * padding - k) / stride + 1;
        Ok(Shape::images(x.n, self.out_channels, pixels(x.h), pixels(x.w)))
    }

    fn reads(&self) -> Reads {
        Reads { args: true, out: false }
    }

    fn halo(&self) -> usize {
        self.conv.padding
    }

    // dx at pixel i sums dy at (i + p - k) / s over the kernel: that reaches (k - 1 - p) / s before the first row of dy, and past
    // the last as far as pixel h - 1 lies past the last window's centre.
    fn grad_halo(&self, args: &[Shape]) -> usize {
        let (k, Conv { stride, padding }) = (self.kernel, self.conv);
        let past = |size: usize| (size - 1 + padding) / stride - (size + 2 * padding - k) / stride;
        (k - 1 - padding).div_ceil(stride).max(past(args[0].h)).max(past(args[0].w))
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.conv2d(io.arg(0), io.weight(0), self.conv, io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.conv2d_grad_weight(io.arg(0), io.grad_out(), io.weight(0), self.conv, io.add_grad[0])?;
        match io.grad(0) {
            Some(dx) => on.conv2d_grad_input(io.grad_out(), io.weight(0), self.conv, dx),
            None => Ok(()),
        }
    }
}
