//! Pooling.

use super::Cuda;
use super::kernels::{self, Each};
use crate::Result;
use crate::backend::{Conv, Map, Sink};

impl Cuda {
    pub(super) fn pool_max(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()> {
        let (x, y) = (self.tensor(x), self.tensor(y));
        let [size, stride, padding] = [window, conv.stride, conv.padding].map(|n| n as u32);
        kernels::max_pool(self.driver(), Each(y.vectors()), x, size, stride, padding, y)
    }

    pub(super) fn pool_max_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()> {
        let (x, dy, to) = (self.tensor(x), self.tensor(dy), self.tensor(dx.to));
        let [size, stride, padding] = [window, conv.stride, conv.padding].map(|n| n as u32);
        kernels::max_pool_grad(self.driver(), Each(to.vectors()), x, dy, size, stride, padding, to, dx.add.into())
    }

    pub(super) fn pool_average(&mut self, x: Map, y: Map) -> Result<()> {
        let scale = 1.0 / x.shape.pixels() as f32;
        let (x, y) = (self.tensor(x), self.tensor(y));
        kernels::average_pool(self.driver(), [x.n, x.tile_columns(), 1], x, scale, y)
    }

    pub(super) fn pool_average_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        let scale = 1.0 / dx.to.shape.pixels() as f32;
        let (dy, to) = (self.tensor(dy), self.tensor(dx.to));
        kernels::average_pool_grad(self.driver(), Each(to.vectors()), dy, scale, to, dx.add.into())
    }
}
