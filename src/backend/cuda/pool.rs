//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{Conv, Map, Sink};

impl Cuda {
    pub(super) fn pool_max(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn pool_max_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()> {
        todo!()
    }

    pub(super) fn pool_average(&mut self, x: Map, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn pool_average_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        todo!()
    }
}
