//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{BatchNorm, Map, Sink, Span};

impl Cuda {
    pub(super) fn normalise(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn normalise_by_running(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        todo!()
    }

    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()> {
        todo!()
    }

    pub(super) fn sum_channels(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        todo!()
    }
}
