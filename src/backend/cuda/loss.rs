//! Softmax cross-entropy.

use super::Cuda;
use super::kernels::{self, Each, Floats, Words};
use crate::Result;
use crate::backend::{Map, Sink, Span};

/// Threads that work on a row.
const WARP: u32 = 32;

impl Cuda {
    pub(super) fn cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        let (logits, targets, loss) = (self.tensor(logits), self.tensor(targets), self.floats(loss));
        let rows = logits.n as usize * size_of::<f32>();
        let at = self.scratch(2 * rows)?;
        let (costs, right) = (Floats(at), Words(at.plus(rows)));
        let on = self.driver();
        kernels::softmax_cross_entropy_rows(on, Each(logits.n * WARP), logits, targets, costs, right)?;
        kernels::softmax_cross_entropy(on, 1, costs, right, logits.n, loss)
    }

    pub(super) fn cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        let (logits, targets, to) = (self.tensor(logits), self.tensor(targets), self.tensor(dlogits.to));
        let work = Each(logits.n * WARP);
        kernels::softmax_cross_entropy_grad(self.driver(), work, logits, targets, to, dlogits.add.into())
    }
}
