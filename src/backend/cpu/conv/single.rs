//! Convolutions of a single image: a vector is sixteen pixels that follow each other in memory, not one pixel of sixteen images.
//!
//! Where a row of the input is as long as one of the output and the stride is 1, a tap is a plain offset for all pixels as they lie.
//! Otherwise what each column of the kernel sees is copied first, a plane for each, in rows as long as the output's. Both run on the
//! kernels of sixteen images and add the same products in the same order.

use rayon::prelude::*;

use super::operand::Operand;
use super::{Stencil, Tap};
use crate::backend::Conv;
use crate::backend::cpu::grid::{Grid, spread};
use crate::backend::cpu::simd::LANES;

/// The input as a forward convolution's stencil looks at it, and the stencil; `copies` is where copies may lie.
pub(super) fn seen<'a>(
    operand: Operand<'a>,
    gy: Grid,
    kernel: [usize; 2],
    conv: Conv,
    copies: &'a mut Vec<f32>,
) -> (Operand<'a>, Stencil) {
    let gx = operand.grid();
    let Some(x) = operand.stored_values().filter(|_| gy.lanes == 1) else {
        return (operand, Stencil::forward(gx, gy, kernel, conv));
    };
    if conv.stride == 1 && gx.row == gy.row && gx.halo >= conv.padding {
        let margin = gx.halo - conv.padding;
        let offset = |row: usize, col: usize| (margin + row) * gx.row + margin + col;
        return (operand, Stencil::single(gy, kernel, offset));
    }
    let copy = Copy::new(gy, kernel, conv);
    let grid = Grid { halo: 0, row: gy.row, plane: copy.channel(), block: gx.shape.c * copy.channel(), ..gx };
    if copies.len() < grid.block {
        copies.resize(grid.block, 0.0);
    }
    let channels = copies[..grid.block].par_chunks_mut(grid.plane).with_min_len(gx.planes_per_task());
    channels.zip(x.par_chunks(gx.plane)).for_each(|(to, x)| copy.fill((x, gx), to));
    (Operand::stored(&copies[..grid.block], grid), Stencil::single(gy, kernel, |row, col| copy.offset(row, col)))
}

/// Planes of one input channel, one for each residue of the kernel's rows by the stride and each of its columns.
struct Copy {
    to: Grid,
    kernel: [usize; 2],
    conv: Conv,
    /// From one plane to the next.
    plane: usize,
}

impl Copy {
    fn new(to: Grid, kernel: [usize; 2], conv: Conv) -> Copy {
        let [rows, cols] = to.folded();
        let seen_below = (kernel[0] - 1) / conv.stride * to.row;
        Copy { to, kernel, conv, plane: spread(seen_below.div_ceil(LANES) + rows * cols) * LANES }
    }

    /// Floats of a channel.
    fn channel(&self) -> usize {
        self.conv.stride.min(self.kernel[0]) * self.kernel[1] * self.plane
    }

    /// Where output (0, 0) sees the input through a position of the kernel.
    fn offset(&self, row: usize, col: usize) -> usize {
        (row % self.conv.stride * self.kernel[1] + col) * self.plane + row / self.conv.stride * self.to.row
    }

    /// Copies one channel. What lies between the rows is left as it is: no pixel of the output looks there.
    fn fill(&self, (x, gx): (&[f32], Grid), to: &mut [f32]) {
        let Conv { stride, padding } = self.conv;
        let (height, width) = (gx.shape.h, gx.shape.w);
        for (at, plane) in to.chunks_mut(self.plane).enumerate() {
            let (residue, col) = (at / self.kernel[1], at % self.kernel[1]);
            // Columns of the output for which this one of the kernel is inside the input.
            let first = padding.saturating_sub(col).div_ceil(stride).min(self.to.shape.w);
            let end = (width + padding).saturating_sub(col).div_ceil(stride).clamp(first, self.to.shape.w);
            let rows = self.to.shape.h + (self.kernel[0] - 1 - residue) / stride;
            for (i, row) in plane.chunks_mut(self.to.row).take(rows).enumerate() {
                let row = &mut row[..self.to.shape.w];
                let y = stride * i + residue;
                if y < padding || y >= height + padding || first == end {
                    row.fill(0.0);
                    continue;
                }
                row[..first].fill(0.0);
                row[end..].fill(0.0);
                let (from, to) = (&x[gx.pixel(y - padding, stride * first + col - padding)..], &mut row[first..end]);
                match stride {
                    1 => to.copy_from_slice(&from[..to.len()]),
                    // Pairs are what the compiler makes vectors of; the zeros below an image fill up the last one.
                    2 => to.iter_mut().zip(from.chunks_exact(2)).for_each(|(to, pair)| *to = pair[0]),
                    _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, &x)| *to = x),
                }
            }
        }
    }
}

impl Stencil {
    /// All outputs of a single image in one row of vectors, given what output (0, 0) sees through each position of the kernel.
    fn single(y: Grid, kernel: [usize; 2], offset: impl Fn(usize, usize) -> usize) -> Stencil {
        let (rows, cols) = y.runs();
        let tap = |position: usize| Tap { position, offset: offset(position / kernel[1], position % kernel[1]) };
        Stencil {
            taps: (0..kernel[0] * kernel[1]).map(tap).collect(),
            rows,
            cols,
            x_step: [0, LANES],
            y_at: y.pixel(0, 0),
            y_step: [0, LANES],
        }
    }

    /// The same in rows of a few vectors, for tiles of several rows.
    pub(super) fn folded(&self, y: Grid) -> Stencil {
        let [rows, cols] = y.folded();
        let step = [cols * LANES, LANES];
        Stencil { rows, cols, x_step: step, y_step: step, ..self.clone() }
    }

    /// What a tile of four rows sees of one channel of a single image, in bytes.
    pub(super) fn bytes_seen(&self) -> usize {
        let tile = 4.min(self.rows) * self.cols;
        let mut lines: Vec<usize> =
            self.taps.iter().flat_map(|tap| (0..=tile).map(|line| tap.offset / LANES + line)).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.len() * LANES * size_of::<f32>()
    }
}
