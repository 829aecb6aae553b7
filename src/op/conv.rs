//! Masked convolution; a masked linear layer is one over single pixels.

use super::{Demand, Io, Op, Reads};
use crate::backend::{Backend, Conv, Product};
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

impl Convolve {
    fn product(&self, io: &Io) -> Product {
        let (x, weight, statistics) = (io.operand(), io.weight(0), io.fusion.statistics);
        Product { x, weight, conv: self.conv, residual: None, statistics }
    }
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

    fn demand(&self) -> Demand {
        Demand::Backends
    }

    // dx at pixel i sums dy at (i + p - k) / s over the kernel. That reaches (k - 1 - p) / s before the first row of dy; past the
    // last it reaches floor((h - 1 + p) / s) - floor((h + 2 p - k) / s), which is no more.
    fn grad_halo(&self) -> usize {
        (self.kernel - 1 - self.conv.padding).div_ceil(self.conv.stride)
    }

    fn convolution(&self) -> Option<Conv> {
        Some(self.conv)
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        if on.fuses_batch_norm() {
            return on.fused_conv2d(&self.product(io), io.out);
        }
        on.conv2d(io.arg(0), io.weight(0), self.conv, io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        if on.fuses_batch_norm() {
            return on.fused_conv2d_grad(&self.product(io), io.grad_out(), io.add_grad[0], io.grad(0));
        }
        on.conv2d_grad_weight(io.arg(0), io.grad_out(), io.weight(0), self.conv, io.add_grad[0])?;
        match io.grad(0) {
            Some(dx) => on.conv2d_grad_input(io.grad_out(), io.weight(0), self.conv, dx),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halo_of_the_gradient_covers_every_tap_of_every_pixel_and_no_more() {
        for (kernel, stride) in (1..8).flat_map(|k| (1..4).map(move |s| (k, s))) {
            for padding in 0..kernel {
                let op = Convolve { out_channels: 1, in_channels: 1, kernel, conv: Conv { stride, padding } };
                let mut widest = 0;
                for size in kernel.saturating_sub(2 * padding).max(1)..12 {
                    let out = op.shape(&[Shape::images(1, 1, size, size)]).unwrap().h as isize;
                    for (i, k) in (0..size).flat_map(|i| (0..kernel).map(move |k| (i, k))) {
                        let seen = (i + padding) as isize - k as isize;
                        if seen % stride as isize == 0 {
                            let at = seen / stride as isize;
                            widest = widest.max(-at).max(at - out + 1);
                        }
                    }
                }
                let halo = op.grad_halo() as isize;
                assert!(widest <= halo && halo <= widest + 1, "{op:?}: {widest} pixels outside, halo {halo}");
            }
        }
    }

    #[test]
    fn a_kernel_that_does_not_fit_or_padding_as_wide_as_it_is_refused() {
        let op = |kernel, padding| {
            let conv = Conv { stride: 1, padding };
            Convolve { out_channels: 2, in_channels: 3, kernel, conv }.shape(&[Shape::images(1, 3, 4, 2)])
        };
        assert_eq!(op(3, 1).unwrap(), Shape::images(1, 2, 4, 2));
        for (kernel, padding) in [(3, 0), (3, 3), (0, 0)] {
            assert!(op(kernel, padding).is_err(), "kernel {kernel}, padding {padding}");
        }
    }
}
