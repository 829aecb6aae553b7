//! Ops without parameters that keep the element count: ReLU, residual addition, flattening.

use super::{Io, Op, Reads};
use crate::backend::{Backend, Product};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// `y = max(0, x)`; `dx = dy` where y > 0, else 0.
#[derive(Debug)]
pub(crate) struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        Ok(args[0])
    }

    fn reads(&self) -> Reads {
        Reads { args: false, out: true }
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.relu(io.arg(0), io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.relu_grad(io.out, io.grad_out(), dx),
            None => Ok(()),
        }
    }
}

/// Residual addition: `y = a + b`; `da = db = dy`.
#[derive(Debug)]
pub(crate) struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        if args[0] != args[1] {
            return Err(Error::shape("add", format!("takes two equal shapes, got {} and {}", args[0], args[1])));
        }
        Ok(args[0])
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn hands_gradient_on(&self) -> bool {
        true
    }

    fn absorbs(&self, _arg: usize) -> bool {
        true
    }

    fn forward_of(&self, on: &mut dyn Backend, io: &Io, product: &Product, arg: usize) -> Result<()> {
        let residual = io.arg(1 - arg);
        if on.fuses_batch_norm() {
            return on.fused_conv2d(&Product { residual: Some(residual), ..*product }, io.out);
        }
        on.conv2d_add(product.x.map(), product.weight, product.conv, residual, io.out)
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.add(io.arg(0), io.arg(1), io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        for arg in 0..2 {
            if let Some(dx) = io.grad(arg) {
                on.copy(io.grad_out(), dx)?;
            }
        }
        Ok(())
    }
}

/// Images (N, C, H, W) as rows (N, C H W); dx is dy in the old shape.
#[derive(Debug)]
pub(crate) struct Flatten;

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        let x = args[0];
        Ok(Shape::features(x.n, x.c * x.pixels()))
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.flatten(io.arg(0), io.out)
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.flatten_grad(io.grad_out(), dx),
            None => Ok(()),
        }
    }
}
