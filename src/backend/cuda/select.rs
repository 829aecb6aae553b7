//! Stub.

use super::Cuda;
use crate::Result;
use crate::backend::{PruneAndGrow, Span, Weight};

impl Cuda {
    pub(super) fn update_masks(&mut self, jobs: &[PruneAndGrow]) -> Result<()> {
        todo!()
    }

    pub(super) fn keep_largest(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()> {
        todo!()
    }

    pub(super) fn mean_inside(&mut self, weight: Weight, of: Span) -> Result<f64> {
        todo!()
    }
}
