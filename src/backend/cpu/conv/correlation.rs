//! A correlation that is ready to run: its tasks, with whichever kernel the layer's density asks for.

use std::sync::Arc;

use rayon::prelude::*;

use super::around::Around;
use super::operand::Operand;
use super::strips::Strips;
use super::{Stencil, View, dense, sparse};
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::masks::Layer;
use crate::backend::cpu::simd::Level;

pub(super) struct Correlation<'a> {
    stencils: Vec<Stencil>,
    weights: Weights,
    strips: Strips<'a>,
}

/// Both kernels add a sum's products in one order, that of inputs and taps: which one runs never changes a bit.
enum Weights {
    Sparse(sparse::Gathered),
    Dense(Arc<dense::Packed>),
}

impl<'a> Correlation<'a> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        level: Level,
        layer: &mut Layer,
        x: Operand<'a>,
        view: View,
        stencils: &[Stencil],
        around: Around<'a>,
        (y, gy): (&'a mut [f32], Grid),
        add: bool,
    ) -> Self {
        let sparse = layer.runs_sparse(level, view.stride);
        let stencils: Vec<Stencil> = match sparse && gy.lanes == 1 {
            true => stencils.iter().map(|stencil| stencil.folded(gy)).collect(),
            false => stencils.to_vec(),
        };
        let Layer { index, packed, mask, effective, .. } = layer;
        let weights = match sparse {
            true => Weights::Sparse(index.weights(level, view, x.grid(), &stencils, mask, effective)),
            false => Weights::Dense(packed.get(view, &stencils, effective)),
        };
        let strips = Strips::new(level, x, &stencils, (y, gy), add, around);
        Correlation { stencils, weights, strips }
    }

    /// The tasks of each block of images, which lie together.
    pub(super) fn per_block(&self) -> usize {
        self.strips.per_block()
    }

    pub(super) fn count(&self) -> usize {
        self.strips.count()
    }

    /// Does one task.
    ///
    /// # Safety
    /// No other thread does the same at the same time.
    pub(super) unsafe fn run(&self, task: usize) {
        let Strips { level, x, gy, add, .. } = self.strips;
        let write = gy.write(add);
        // SAFETY: the caller's.
        unsafe {
            self.strips.run(task, |strip| match &self.weights {
                Weights::Sparse(gathered) => sparse::compute(level, &self.stencils, gathered, strip, gy.plane, write),
                Weights::Dense(packed) => {
                    dense::compute(level, &self.stencils, packed, strip, [x.grid().plane, gy.plane], write);
                }
            });
        }
    }

    /// Does all tasks.
    pub(super) fn run_all(&self) {
        // SAFETY: each once.
        (0..self.count()).into_par_iter().for_each(|task| unsafe { self.run(task) });
    }
}
