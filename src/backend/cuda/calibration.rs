//! The reliability histogram of a batch.

use super::Cuda;
use super::kernels::{self, Each, Longs, Words};
use crate::Result;
use crate::backend::Map;
use crate::calibration::{Histogram, WORDS};

/// Threads that work on a row.
const WARP: u32 = 32;

impl Cuda {
    pub(super) fn tally(&mut self, logits: Map, labels: &[u32]) -> Result<Histogram> {
        Histogram::check(logits.shape.len(), labels, logits.shape.c)?;
        let logits = self.tensor(logits);
        let mut words = [0u64; WORDS];
        let at = self.scratch(size_of_val(&words) + size_of_val(labels))?;
        let labels_at = at.plus(size_of_val(&words));
        let on = self.driver();
        on.write(at, bytemuck::bytes_of(&words))?;
        on.write(labels_at, bytemuck::cast_slice(labels))?;
        kernels::calibration_histogram(on, Each(logits.n * WARP), logits, Words(labels_at), Longs(at))?;
        on.read(at, bytemuck::bytes_of_mut(&mut words))?;
        Ok(Histogram::from_words(&words))
    }
}
