//! The division of a correlation into tasks: strips of rows.

use std::marker::PhantomData;
use std::ops::Range;

use super::Stencil;
use super::around::Around;
use super::operand::{Operand, STRIP};
use super::tiles::pieces;
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::simd::Level;

/// A map that tasks write at the same time, each in places of its own.
#[derive(Clone, Copy)]
struct Shared<'a> {
    values: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for the exclusive borrow it was made from; who writes where is settled by [`Strips`].
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        Shared { values: values.as_mut_ptr(), len: values.len(), lifetime: PhantomData }
    }

    /// From element `at` on.
    fn from(self, at: usize) -> *mut f32 {
        assert!(at < self.len);
        // SAFETY: inside the borrow.
        unsafe { self.values.add(at) }
    }
}

/// What one task of a correlation computes: some rows of some output channels of one block of images.
pub(super) struct Strip<'a> {
    /// The planes of the input, from the row on that the first of these sees.
    pub(super) x: &'a [f32],
    pub(super) rows: Range<usize>,
    pub(super) outputs: Range<usize>,
    /// The plane of the first of these outputs. No other task writes to these rows of these channels.
    pub(super) y: *mut f32,
    pub(super) around: Around<'a>,
}

impl Strip<'_> {
    /// The rows that a class of outputs has.
    pub(super) fn rows_of(&self, stencil: &Stencil) -> Range<usize> {
        self.rows.start.min(stencil.rows)..self.rows.end.min(stencil.rows)
    }
}

/// The tasks of a correlation.
pub(super) struct Strips<'a> {
    pub(super) level: Level,
    pub(super) x: Operand<'a>,
    y: Shared<'a>,
    pub(super) gy: Grid,
    pub(super) add: bool,
    around: Around<'a>,
    /// The first row of each strip and how many it has.
    rows: Vec<(usize, usize)>,
    /// Input rows from the first that an output sees to that of the next.
    down: usize,
    /// Rows of y between rows of a class: neighbouring rows that belong to different classes belong to one strip.
    spread: usize,
    /// Output channels of a task.
    channels: usize,
}

impl<'a> Strips<'a> {
    /// Divides by the shape alone, into at least eight tasks where rows and channels allow it.
    pub(super) fn new(
        level: Level,
        x: Operand<'a>,
        stencils: &[Stencil],
        (y, gy): (&'a mut [f32], Grid),
        add: bool,
        around: Around<'a>,
    ) -> Self {
        assert!(y.len() == gy.len());
        let rows = stencils.iter().map(|s| s.rows).max().unwrap_or(0);
        // What is behind the rows of a single image can be cleared when all of it is there.
        let rows: Vec<_> = pieces(rows, if gy.lanes == 1 { rows.max(1) } else { STRIP }).collect();
        let channels = gy.shape.c.div_ceil(8usize.div_ceil(gy.blocks * rows.len().max(1))).next_multiple_of(4);
        let (down, spread) = (stencils[0].x_step[0] / x.grid().row, stencils[0].y_step[0] / gy.row);
        Strips { level, x, y: Shared::new(y), gy, add, around, rows, down, spread, channels }
    }

    /// The tasks of each block of images.
    pub(super) fn per_block(&self) -> usize {
        self.rows.len() * self.gy.shape.c.div_ceil(self.channels)
    }

    /// All tasks, the blocks in their order.
    pub(super) fn count(&self) -> usize {
        self.gy.blocks * self.per_block()
    }

    /// Has `compute` do one task. Halos are cleared behind it unless it adds.
    ///
    /// # Safety
    /// No other thread does the same task at the same time.
    pub(super) unsafe fn run(&self, task: usize, compute: impl Fn(&Strip)) {
        let (gy, groups) = (self.gy, self.gy.shape.c.div_ceil(self.channels));
        let (block, (first, count)) = (task / self.per_block(), self.rows[task / groups % self.rows.len()]);
        let outputs = task % groups * self.channels..((task % groups + 1) * self.channels).min(gy.shape.c);
        self.x.with_strip(self.level, block, first * self.down, |x| {
            let y = self.y.from(block * gy.block + outputs.start * gy.plane);
            let around = self.around.of_block(block);
            compute(&Strip { x, rows: first..first + count, outputs: outputs.clone(), y, around });
            if !self.add {
                let rows = match gy.lanes {
                    1 => 0..gy.shape.h,
                    _ => first * self.spread..((first + count) * self.spread).min(gy.shape.h),
                };
                // SAFETY: the planes and rows are this task's.
                (0..outputs.len()).for_each(|o| unsafe { gy.clear_halo_of_rows(y.add(o * gy.plane), rows.clone()) });
            }
        });
    }
}
