//! Dropout of activations (Srivastava et al. 2014). Not the random mask Z, which drops weights.

use super::{Io, Op, Reads};
use crate::backend::{Backend, Sink};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// `y = x / (1 - p)` with probability 1 - p, else 0; the same elements pass the gradient, with the same factor.
///
/// Element i in (N, C, H, W) order is kept by its own draw of (seed, step, site), so nothing is stored for backward.
#[derive(Debug)]
pub(crate) struct Dropout {
    pub(crate) p: f32,
    pub(crate) site: u32,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn shape(&self, args: &[Shape]) -> Result<Shape> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::shape("dropout", format!("probability {} is not in [0, 1)", self.p)));
        }
        Ok(args[0])
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        on.dropout(io.arg(0), self.p, self.site, Sink { to: io.out, add: false })
    }

    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()> {
        match io.grad(0) {
            Some(dx) => on.dropout(io.grad_out(), self.p, self.site, dx),
            None => Ok(()),
        }
    }
}
