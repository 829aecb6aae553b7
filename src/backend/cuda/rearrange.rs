//! Flattening and dropout.

use super::Cuda;
use super::kernels::{self, Each};
use crate::Result;
use crate::backend::{Map, Sink};

/// Pixels that a thread of `dropout` treats: RUN.
const RUN: u32 = 4;

impl Cuda {
    pub(super) fn drop_values(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()> {
        let (x, to, step) = (self.tensor(x), self.tensor(y.to), self.step());
        // p < 1, so that p 2^32 is at most 2^32 - 2^8.
        let (limit, scale) = ((f64::from(p) * 4294967296.0) as u32, 1.0 / (1.0 - p));
        let work = Each(x.n * (x.h * x.w).div_ceil(RUN) * x.groups);
        kernels::dropout(self.driver(), work, x, limit, scale, site, step, to, y.add.into())
    }

    pub(super) fn flatten_images(&mut self, x: Map, y: Map) -> Result<()> {
        let (x, y) = (self.tensor(x), self.tensor(y));
        kernels::flatten(self.driver(), Each(y.vectors()), x, y)
    }

    pub(super) fn unflatten_rows(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        let (dy, to) = (self.tensor(dy), self.tensor(dx.to));
        kernels::flatten_grad(self.driver(), Each(to.vectors()), dy, to, dx.add.into())
    }
}
