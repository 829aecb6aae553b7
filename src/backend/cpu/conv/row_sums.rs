//! Sums over the rows of a convolution's result, taken while its tiles are in registers: what batch statistics are made of.

use std::marker::PhantomData;

use crate::backend::cpu::memory::Line;
use crate::backend::cpu::simd::{LANES, Lanes};

/// Sums over every row of y, lane by lane: of y minus the channel's shift, and of its square.
#[derive(Clone, Copy)]
pub(super) struct RowSums<'a> {
    shifts: &'a [f32],
    /// By block, channel and row; a task begins at its block.
    sums: *mut [Line; 2],
    rows: usize,
    lifetime: PhantomData<&'a mut [[Line; 2]]>,
}

// SAFETY: every row of a channel belongs to one task.
unsafe impl Send for RowSums<'_> {}
// SAFETY: as above.
unsafe impl Sync for RowSums<'_> {}

/// [`RowSums`] of a few rows of one channel.
#[derive(Clone, Copy)]
pub(super) struct Tally {
    shift: f32,
    sums: *mut f32,
    /// Nothing of these rows is in the sums yet.
    first: bool,
}

impl<'a> RowSums<'a> {
    /// Of a result with so many rows; `shifts` and `sums` have a place for each channel, and each block, channel and row.
    pub(super) fn new(shifts: &'a [f32], sums: &'a mut [[Line; 2]], rows: usize) -> Self {
        assert!(sums.len().is_multiple_of(shifts.len() * rows));
        RowSums { shifts, sums: sums.as_mut_ptr(), rows, lifetime: PhantomData }
    }

    pub(super) fn of_block(&self, block: usize) -> Self {
        // SAFETY: one place a block, channel and row.
        RowSums { sums: unsafe { self.sums.add(block * self.shifts.len() * self.rows) }, ..*self }
    }

    pub(super) fn tally(&self, output: usize, row: usize, col: usize) -> Tally {
        // SAFETY: the sums are those of this block.
        let sums = unsafe { self.sums.add(output * self.rows + row) }.cast();
        Tally { shift: self.shifts[output], sums, first: col == 0 }
    }
}

impl Tally {
    /// Adds pixels of a row, which come from left to right.
    ///
    /// # Safety
    /// As for [`Lanes`]; the row is one of the block, and nobody else's.
    #[inline(always)]
    pub(super) unsafe fn add<L: Lanes>(&self, row: usize, pixels: &[L]) {
        // SAFETY: the caller's.
        unsafe {
            let at = self.sums.add(row * 2 * LANES);
            let [mut sum, mut squares] = match self.first {
                true => [L::splat(0.0); 2],
                false => [L::load(at), L::load(at.add(LANES))],
            };
            for pixel in pixels {
                let d = pixel.sub(L::splat(self.shift));
                sum = sum.add(d);
                squares = d.fma(d, squares);
            }
            sum.store(at);
            squares.store(at.add(LANES));
        }
    }
}
