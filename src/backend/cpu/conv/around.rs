//! What goes with the sums of a correlation: what they begin with, and what is done with them before they are stored.

use super::Stencil;
use super::row_sums::RowSums;
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::simd::{LANES, Lanes};

/// What a sum begins with and what happens to it before it is stored.
#[derive(Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// A map whose values the sums begin with.
    pub(super) start: Option<(&'a [f32], Grid)>,
    /// Factor and summand of each output channel, at the end.
    pub(super) affine: Option<&'a [(f32, f32)]>,
    /// A map to add after that.
    pub(super) residual: Option<(&'a [f32], Grid)>,
    /// And max(0, .) of it all.
    pub(super) relu: bool,
    /// What is to be known of the results.
    pub(super) rows: Option<RowSums<'a>>,
}

/// The end of [`Around`], for a tile of one output channel.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    affine: (f32, f32),
    /// The tile's first pixel in the residual, or null.
    residual: *const f32,
    residual_row: usize,
    relu: bool,
}

/// What output (row, col) of a channel has in another map of the output's shape, and the steps to its neighbours there.
pub(super) fn pixel(
    (values, grid): (&[f32], Grid),
    stencil: &Stencil,
    channel: usize,
    row: usize,
    col: usize,
) -> (*const f32, [usize; 2]) {
    let step = stencil.step_in(grid);
    let at = channel * grid.plane + grid.pixel(0, 0) + row * step[0] + col * step[1];
    (values[at..].as_ptr(), step)
}

impl Around<'_> {
    pub(super) fn of_block(&self, block: usize) -> Self {
        let [start, residual] = [self.start, self.residual]
            .map(|map| map.map(|(values, grid)| (&values[block * grid.block..][..grid.block], grid)));
        Around { start, residual, rows: self.rows.map(|rows| rows.of_block(block)), ..*self }
    }

    /// What follows the sums of an output channel, at the tile that begins at this pixel.
    pub(super) fn finish(&self, stencil: &Stencil, output: usize, row: usize, col: usize) -> Option<Finish> {
        let residual = self.residual.map(|map| pixel(map, stencil, output, row, col));
        self.affine.map(|affine| Finish {
            affine: affine[output],
            residual: residual.map_or(std::ptr::null(), |(at, _)| at),
            residual_row: residual.map_or(0, |(_, step)| step[0]),
            relu: self.relu,
        })
    }
}

impl Finish {
    /// # Safety
    /// As for [`Lanes`]; the pixel is inside the residual.
    #[inline(always)]
    pub(super) unsafe fn apply<L: Lanes>(&self, sum: L, row: usize, col: usize) -> L {
        // SAFETY: the caller's.
        unsafe {
            let mut y = sum.fma(L::splat(self.affine.0), L::splat(self.affine.1));
            if !self.residual.is_null() {
                y = y.add(L::load(self.residual.add(row * self.residual_row + col * LANES)));
            }
            if self.relu { L::splat(0.0).max(y) } else { y }
        }
    }
}
