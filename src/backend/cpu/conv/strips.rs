//! The division of a correlation into tasks: strips of rows.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

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

// SAFETY: it stands for the exclusive borrow it was made from; who writes where is settled by `each_strip`.
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

/// Divides a correlation into tasks, at least eight where rows and channels allow it, by the shape alone. Halos are cleared behind
/// `compute` unless it adds.
pub(super) fn each_strip(
    level: Level,
    x: Operand,
    stencils: &[Stencil],
    (y, gy): (&mut [f32], Grid),
    add: bool,
    around: Around,
    compute: impl Fn(&Strip) + Sync,
) {
    assert!(y.len() == gy.len());
    let y = Shared::new(y);
    let rows = stencils.iter().map(|s| s.rows).max().unwrap_or(0);
    // What is behind the rows of a single image can be cleared when all of it is there.
    let strips: Vec<_> = pieces(rows, if gy.lanes == 1 { rows.max(1) } else { STRIP }).collect();
    let channels = gy.shape.c.div_ceil(8usize.div_ceil(gy.blocks * strips.len().max(1))).next_multiple_of(4);
    let groups = gy.shape.c.div_ceil(channels);
    let [down, _] = stencils[0].x_step;
    // Neighbouring rows of y that belong to different classes belong to one strip.
    let spread = stencils[0].y_step[0] / gy.row;
    (0..gy.blocks * strips.len() * groups).into_par_iter().for_each(|task| {
        let (block, (first, count)) = (task / groups / strips.len(), strips[task / groups % strips.len()]);
        let outputs = task % groups * channels..(task % groups * channels + channels).min(gy.shape.c);
        let row = first * down / x.grid().row;
        x.with_strip(level, block, row, |x| {
            let y = y.from(block * gy.block + outputs.start * gy.plane);
            let strip =
                Strip { x, rows: first..first + count, outputs: outputs.clone(), y, around: around.of_block(block) };
            compute(&strip);
            if !add {
                let rows = match gy.lanes {
                    1 => 0..gy.shape.h,
                    _ => first * spread..((first + count) * spread).min(gy.shape.h),
                };
                // SAFETY: the planes and rows are this task's.
                (0..outputs.len()).for_each(|o| unsafe { gy.clear_halo_of_rows(y.add(o * gy.plane), rows.clone()) });
            }
        });
    });
}
