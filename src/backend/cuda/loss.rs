//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{Map, Sink, Span};

impl Cuda {
    pub(super) fn cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        todo!()
    }

    pub(super) fn cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        todo!()
    }
}
