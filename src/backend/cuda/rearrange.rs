//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{Map, Sink};

impl Cuda {
    pub(super) fn drop_values(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()> {
        todo!()
    }

    pub(super) fn flatten_images(&mut self, x: Map, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn unflatten_rows(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        todo!()
    }
}
