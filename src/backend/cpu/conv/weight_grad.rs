//! Weight gradients: each weight is the dot product of an output channel's gradient with a shifted input channel.
//!
//! A group of weights of one output channel (dense: of a few) shares the loads of dy. Partial sums stay in vectors over a patch of
//! pixels and are folded at its end. A task owns some output channels, so nothing is reduced across tasks.

use std::ops::Range;

use rayon::prelude::*;

use super::Stencil;
use super::sparse::Index;
use crate::backend::Weight;
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::simd::{LANES, Lanes, Level, dispatch, sum_lanes};

/// Pixels of a patch on the dense path: the fold of lanes costs little, and long f32 sums are bounded.
const DENSE_PATCH: usize = 1024;
/// Pixels of a patch on the sparse path: the inputs of one block of channels stay in L2 over all output channels of a task.
const SPARSE_PATCH: usize = 256;

/// The output pixels of some blocks of images and some rows, summed in vectors before the lanes are folded.
#[derive(Clone)]
struct Patch {
    blocks: Range<usize>,
    rows: Range<usize>,
}

/// What both kernels walk over.
#[derive(Clone, Copy)]
struct Walk<'a> {
    stencil: &'a Stencil,
    x: &'a [f32],
    x_block: usize,
    dy: &'a [f32],
    dy_block: usize,
    dy_plane: usize,
    blocks: usize,
}

impl<'a> Walk<'a> {
    fn new(stencil: &'a Stencil, (x, gx): (&'a [f32], Grid), (dy, gy): (&'a [f32], Grid)) -> Self {
        assert!(x.len() == gx.len() && dy.len() == gy.len());
        Walk { stencil, x, x_block: gx.block, dy, dy_block: gy.block, dy_plane: gy.plane, blocks: gx.blocks }
    }

    /// Patches of about so many pixels: a few rows of one block of images, or a few blocks of small images.
    fn patches(&self, pixels: usize) -> impl Iterator<Item = Patch> + use<> {
        let (rows, cols, blocks) = (self.stencil.rows, self.stencil.cols, self.blocks);
        let (row_step, block_step) = ((pixels / cols).clamp(1, rows), (pixels / (rows * cols)).max(1));
        (0..blocks).step_by(block_step).flat_map(move |block| {
            (0..rows).step_by(row_step).map(move |row| Patch {
                blocks: block..(block + block_step).min(blocks),
                rows: row..(row + row_step).min(rows),
            })
        })
    }

    /// Sums `OUT` x `TAPS` products over a patch; `offsets` from the start of an input block, `outputs` channels of dy.
    ///
    /// # Safety
    /// As for [`Lanes`]; the patch is one of this walk's, and the offsets name pixels inside an input block for every output of the
    /// stencil.
    #[inline(always)]
    unsafe fn products<L: Lanes, const OUT: usize, const TAPS: usize>(
        &self,
        patch: &Patch,
        outputs: [usize; OUT],
        offsets: [usize; TAPS],
    ) -> [[f32; TAPS]; OUT] {
        let mut total = [[0.0; TAPS]; OUT];
        // SAFETY: blocks, rows and columns are those of the maps that `new` checked; the rest is the caller's.
        unsafe {
            let mut sum = [[L::splat(0.0); TAPS]; OUT];
            for block in patch.blocks.clone() {
                for row in patch.rows.clone() {
                    let x = self.x.as_ptr().add(block * self.x_block + row * self.stencil.x_step[0]);
                    let dy = block * self.dy_block + self.stencil.y_at + row * self.stencil.y_step[0];
                    let dy = self.dy.as_ptr().add(dy);
                    let taps: [*const f32; TAPS] = std::array::from_fn(|t| x.add(offsets[t]));
                    let grads: [*const f32; OUT] = std::array::from_fn(|o| dy.add(outputs[o] * self.dy_plane));
                    for col in 0..self.stencil.cols {
                        let g: [L; OUT] = std::array::from_fn(|o| L::load(grads[o].add(col * LANES)));
                        for t in 0..TAPS {
                            let pixel = L::load(taps[t].add(col * self.stencil.x_step[1]));
                            for o in 0..OUT {
                                sum[o][t] = pixel.fma(g[o], sum[o][t]);
                            }
                        }
                    }
                }
            }
            for o in 0..OUT {
                for t in 0..TAPS {
                    let mut lanes = [0.0; LANES];
                    sum[o][t].store(lanes.as_mut_ptr());
                    total[o][t] = sum_lanes(&lanes);
                }
            }
        }
        total
    }
}

/// The gradient of every weight.
pub(super) fn dense(
    level: Level,
    weight: Weight,
    stencil: &Stencil,
    x: (&[f32], Grid),
    dy: (&[f32], Grid),
    dw: &mut [f32],
    add: bool,
) {
    let walk = Walk::new(stencil, x, dy);
    let per_output = weight.len() / weight.out_channels;
    // Two times three products fill the sixteen registers of AVX2, four times six the 32 of AVX-512.
    let outputs = if level == Level::Avx512 { 4 } else { 2 };
    dw.par_chunks_mut(outputs * per_output).enumerate().for_each(|(task, dw)| {
        dispatch!(level, dense_outputs(
            walk: Walk<'_> = walk,
            x_plane: usize = x.1.plane,
            in_channels: usize = weight.in_channels,
            first: usize = task * outputs,
            dw: &mut [f32] = dw,
            add: bool = add,
        ));
    });
}

#[inline(always)]
unsafe fn dense_outputs<L: Lanes>(
    walk: Walk<'_>,
    x_plane: usize,
    in_channels: usize,
    first: usize,
    dw: &mut [f32],
    add: bool,
) {
    let per_output = in_channels * walk.stencil.taps.len();
    // SAFETY: the taps and channels are those of the maps; the instruction set is the caller's.
    unsafe {
        match (L::TILE >= 4, dw.len() / per_output) {
            (true, 4) => outputs::<L, 4, 6>(walk, x_plane, in_channels, first, dw, add),
            (true, 3) => outputs::<L, 3, 6>(walk, x_plane, in_channels, first, dw, add),
            (true, 2) => outputs::<L, 2, 6>(walk, x_plane, in_channels, first, dw, add),
            (true, _) => outputs::<L, 1, 6>(walk, x_plane, in_channels, first, dw, add),
            (false, 2) => outputs::<L, 2, 3>(walk, x_plane, in_channels, first, dw, add),
            (false, _) => outputs::<L, 1, 3>(walk, x_plane, in_channels, first, dw, add),
        }
    }
}

#[inline(always)]
unsafe fn outputs<L: Lanes, const OUT: usize, const TAPS: usize>(
    walk: Walk<'_>,
    x_plane: usize,
    in_channels: usize,
    first: usize,
    dw: &mut [f32],
    add: bool,
) {
    let taps = &walk.stencil.taps;
    let per_output = in_channels * taps.len();
    // Neighbouring taps of one channel share their cache lines; a last short group repeats its last tap.
    for group in (0..per_output).step_by(TAPS) {
        let at = |t: usize| (group + t).min(per_output - 1);
        let offsets = std::array::from_fn(|t| at(t) / taps.len() * x_plane + taps[at(t) % taps.len()].offset);
        let mut total = [[0.0; TAPS]; OUT];
        for patch in walk.patches(DENSE_PATCH) {
            // SAFETY: the caller's.
            let products =
                unsafe { walk.products::<L, OUT, TAPS>(&patch, std::array::from_fn(|o| first + o), offsets) };
            total.iter_mut().flatten().zip(products.into_iter().flatten()).for_each(|(t, p)| *t += p);
        }
        for t in 0..TAPS.min(per_output - group) {
            let (channel, tap) = (at(t) / taps.len(), taps[at(t) % taps.len()]);
            for (o, total) in total.iter().enumerate() {
                let to = &mut dw[o * per_output + tap.position * in_channels + channel];
                *to = if add { *to + total[t] } else { total[t] };
            }
        }
    }
}

/// The gradient of the weights in the index; other elements of `dw` are left as they are.
pub(super) fn active(
    level: Level,
    index: &Index,
    stencil: &Stencil,
    x: (&[f32], Grid),
    dy: (&[f32], Grid),
    dw: &mut [f32],
    add: bool,
) {
    let walk = Walk::new(stencil, x, dy);
    let outputs = dy.1.shape.c;
    let per_output = dw.len() / outputs;
    // Eight tasks: enough to share, few enough that the input is not read from memory for every output channel anew.
    let per_task = outputs.div_ceil(8);
    dw.par_chunks_mut(per_task * per_output).enumerate().for_each(|(task, dw)| {
        dispatch!(level, active_outputs(
            walk: Walk<'_> = walk,
            index: &Index = index,
            outputs: Range<usize> = task * per_task..task * per_task + dw.len() / per_output,
            dw: &mut [f32] = dw,
            add: bool = add,
        ));
    });
}

#[inline(always)]
unsafe fn active_outputs<L: Lanes>(walk: Walk<'_>, index: &Index, outputs: Range<usize>, dw: &mut [f32], add: bool) {
    let first = outputs.start * (dw.len() / outputs.len());
    if !add {
        for (block, output) in (0..index.blocks).flat_map(|block| outputs.clone().map(move |output| (block, output))) {
            index.entries(block, output).iter().for_each(|entry| dw[entry.element as usize - first] = 0.0);
        }
    }
    for patch in walk.patches(SPARSE_PATCH) {
        for block in 0..index.blocks {
            for output in outputs.clone() {
                let mut rest = index.entries(block, output);
                while !rest.is_empty() {
                    // SAFETY: the index was built for these maps; the instruction set is the caller's.
                    let done = unsafe {
                        match (L::TILE >= 4, rest.len()) {
                            (true, 16..) => group::<L, 16>(walk, &patch, rest, output, dw, first),
                            (true, 8..) => group::<L, 8>(walk, &patch, rest, output, dw, first),
                            (false, 6..) => group::<L, 6>(walk, &patch, rest, output, dw, first),
                            (_, 4..) => group::<L, 4>(walk, &patch, rest, output, dw, first),
                            (_, 2..) => group::<L, 2>(walk, &patch, rest, output, dw, first),
                            _ => group::<L, 1>(walk, &patch, rest, output, dw, first),
                        }
                    };
                    rest = &rest[done..];
                }
            }
        }
    }
}

/// Adds a patch's part of the gradients of the first `TAPS` entries; returns their number.
#[inline(always)]
unsafe fn group<L: Lanes, const TAPS: usize>(
    walk: Walk<'_>,
    patch: &Patch,
    entries: &[super::sparse::Entry],
    output: usize,
    dw: &mut [f32],
    first: usize,
) -> usize {
    let offsets = std::array::from_fn(|t| entries[t].offset as usize);
    // SAFETY: the caller's.
    let [products] = unsafe { walk.products::<L, 1, TAPS>(patch, [output], offsets) };
    for (entry, product) in entries.iter().zip(products) {
        dw[entry.element as usize - first] += product;
    }
    TAPS
}
