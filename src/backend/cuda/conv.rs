//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{Conv, Map, Sink, Weight};

impl Cuda {
    pub(super) fn convolve(&mut self, x: Map, w: Weight, conv: Conv, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()> {
        todo!()
    }

    pub(super) fn convolve_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()> {
        todo!()
    }
}
