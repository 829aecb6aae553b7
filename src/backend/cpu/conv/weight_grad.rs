//! Weight gradients: each weight is the dot product of an output channel's gradient with a shifted input channel.
//!
//! Both kernels walk over tiles of pixels and add up a weight's products in the same order, in vectors whose lanes are folded after
//! [`FOLD`] tiles, or at the end of a block of images that has as many: which one runs never changes a bit. A task is one fold of some
//! output channels, so that wide maps are read from memory once; the folds are then added in their order, however many tasks there were.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::operand::Operand;
use super::sparse::{Entry, Index};
use super::tiles::pieces;
use super::{Stencil, Tap};
use crate::backend::Weight;
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::memory::Line;
use crate::backend::cpu::simd::{LANES, Lanes, Level, dispatch, sum_lanes};
use crate::shape::Shape;

/// Rows and columns of a tile.
const TILE: usize = 4;
/// Tiles whose products are summed in vectors before the lanes are folded: folding costs little, and long f32 sums are bounded.
const FOLD: usize = 64;
/// Whether every block of images has folds of its own, so that a strip of x is read by one task only: what is to be formed for one task
/// is formed once.
pub(super) fn folds_within_blocks(shape: Shape) -> bool {
    shape.h.div_ceil(TILE) * shape.w.div_ceil(TILE) >= FOLD
}

/// Tiles that the dense kernel treats together: their gradients stay in L1 over all inputs.
const DENSE_TILES: usize = 4;
/// Tiles that the sparse kernel treats together: their gradients stay in L2 over all blocks of inputs, and the sums of a block over the
/// tiles.
const SPARSE_TILES: usize = 8;
/// Bytes of sums that the dense kernel keeps at once: in L2, most of them.
const DENSE_SUMS: usize = 2 << 20;
/// Tasks of a weight gradient, at least, where there are outputs enough.
const TASKS: usize = 8;

/// A few pixels of one block of images.
#[derive(Clone, Copy)]
struct Tile {
    block: usize,
    /// The first row of outputs.
    row: usize,
    /// Offset of its first pixel in an output channel of dy.
    dy: usize,
    /// Offset, in its strip of x, of what an output at the first pixel sees through a tap of offset 0.
    x: usize,
    rows: usize,
    cols: usize,
}

impl Tile {
    fn same_strip(&self, other: &Tile) -> bool {
        (self.block, self.row) == (other.block, other.row)
    }
}

/// What both kernels walk over: tiles of dy, and x a strip at a time.
#[derive(Clone, Copy)]
struct Walk<'a> {
    level: Level,
    x: Operand<'a>,
    /// Input rows between outputs.
    stride: usize,
    x_step: [usize; 2],
    dy: &'a [f32],
    dy_plane: usize,
    dy_row: usize,
}

impl<'a> Walk<'a> {
    fn new(level: Level, stencil: &Stencil, x: Operand<'a>, (dy, gy): (&'a [f32], Grid)) -> Self {
        assert!(dy.len() == gy.len());
        let stride = stencil.x_step[0] / x.grid().row;
        Walk { level, x, stride, x_step: stencil.x_step, dy, dy_plane: gy.plane, dy_row: gy.row }
    }

    /// Hands `visit` the tiles, at most so many at once, and the values of x that their offsets count in.
    fn for_each_group(&self, tiles: &[Tile], most: usize, mut visit: impl FnMut(&[f32], &[Tile])) {
        let Some(x) = self.x.stored_values() else {
            for strip in tiles.chunk_by(Tile::same_strip) {
                self.x.with_strip(self.level, strip[0].block, strip[0].row * self.stride, |x| {
                    strip.chunks(most).for_each(|tiles| visit(x, tiles));
                });
            }
            return;
        };
        tiles.chunks(most).for_each(|tiles| visit(x, tiles));
    }
}

/// The tiles of all images in order, and how many a block has.
fn tiles(stencil: &Stencil, x: Operand, gy: Grid) -> (Vec<Tile>, usize) {
    let of_block = |block: usize| {
        pieces(stencil.rows, TILE).flat_map(move |(row, rows)| {
            pieces(stencil.cols, TILE).map(move |(col, cols)| Tile {
                block,
                row,
                dy: block * gy.block + stencil.y_at + row * stencil.y_step[0] + col * stencil.y_step[1],
                x: match x.stored_values() {
                    Some(_) => block * x.grid().block + row * stencil.x_step[0] + col * stencil.x_step[1],
                    None => col * stencil.x_step[1],
                },
                rows,
                cols,
            })
        })
    };
    let all: Vec<Tile> = (0..gy.blocks).flat_map(of_block).collect();
    let per_block = all.len() / gy.blocks.max(1);
    (all, per_block)
}

/// The gradient of a layer's weights, in tasks: every fold of every chunk of outputs.
pub(super) struct WeightGrad<'a> {
    walk: Walk<'a>,
    weight: Weight,
    weights: Weights,
    tiles: Vec<Tile>,
    folds: Vec<Range<usize>>,
    /// Outputs of a chunk, but the last.
    outputs: usize,
    chunks: usize,
    blocks: usize,
}

/// Which weights get one.
enum Weights {
    /// Those of an index; other elements are left as they are.
    Active(Arc<Index>),
    /// All, in the order of (input, tap): neighbouring taps of one channel share their cache lines.
    All(Vec<Entry>),
}

/// What a thread does next.
enum Task {
    WeightGrad(usize),
    Beside(usize),
}

impl<'a> WeightGrad<'a> {
    /// Of the weights of `index`, or of all.
    pub(super) fn new(
        level: Level,
        weight: Weight,
        index: Option<Arc<Index>>,
        stencil: &Stencil,
        x: Operand<'a>,
        dy: (&'a [f32], Grid),
    ) -> Self {
        let (tiles, per_block) = tiles(stencil, x, dy.1);
        let run = if per_block < FOLD { tiles.len().max(1) } else { per_block };
        let folds: Vec<_> = (0..tiles.len())
            .step_by(run)
            .flat_map(|start| {
                let end = (start + run).min(tiles.len());
                (start..end).step_by(FOLD).map(move |at| at..(at + FOLD).min(end))
            })
            .collect();
        let (weights, group) = match index {
            Some(index) => (Weights::Active(index), 1),
            None => {
                let plane = x.grid().plane;
                let of_channel = |channel| {
                    let entry = move |tap: &Tap| {
                        Entry::new(channel * plane + tap.offset, tap.position * weight.in_channels + channel)
                    };
                    stencil.taps.iter().map(entry)
                };
                let [group, _] = products_at_once(level == Level::Avx512);
                (Weights::All((0..weight.in_channels).flat_map(of_channel).collect()), group)
            }
        };
        let outputs = weight.out_channels.div_ceil(TASKS.div_ceil(folds.len().max(1))).next_multiple_of(group);
        let (walk, chunks) = (Walk::new(level, stencil, x, dy), weight.out_channels.div_ceil(outputs));
        WeightGrad { walk, weight, weights, tiles, folds, outputs, chunks, blocks: dy.1.blocks }
    }

    /// Does all tasks, and has `beside` do so many of something else for each block of images, right after those here that begin to read
    /// the block. Returns the sums of each task.
    pub(super) fn run_beside(&self, per_block: usize, beside: impl Fn(usize) + Sync) -> Vec<Vec<f32>> {
        let mut order = Vec::with_capacity(self.folds.len() * self.chunks + self.blocks * per_block);
        let mut folds = self.folds.iter().enumerate().peekable();
        for block in 0..self.blocks {
            while let Some((fold, _)) = folds.next_if(|(_, fold)| self.tiles[fold.start].block <= block) {
                order.extend((0..self.chunks).map(|chunk| Task::WeightGrad(fold * self.chunks + chunk)));
            }
            order.extend((block * per_block..(block + 1) * per_block).map(Task::Beside));
        }
        let run = |task: &Task| match *task {
            Task::WeightGrad(task) => Some(self.run(task)),
            Task::Beside(task) => {
                beside(task);
                None
            }
        };
        order.par_iter().with_max_len(1).filter_map(run).collect()
    }

    fn run(&self, task: usize) -> Vec<f32> {
        let (fold, first) = (&self.tiles[self.folds[task / self.chunks].clone()], task % self.chunks * self.outputs);
        let outputs = first..(first + self.outputs).min(self.weight.out_channels);
        match &self.weights {
            Weights::Active(index) => active_outputs(self.walk, fold, index, outputs),
            Weights::All(entries) => dense_outputs(self.walk, fold, entries, outputs),
        }
    }

    /// Adds the sums of all folds to dw, or sets it to them.
    pub(super) fn add_up(&self, sums: &[Vec<f32>], dw: &mut [f32], add: bool) {
        let per_output = self.weight.len() / self.weight.out_channels;
        dw.par_chunks_mut(self.outputs * per_output).enumerate().for_each(|(chunk, dw)| {
            let sums = sums[chunk..].iter().step_by(self.chunks);
            match &self.weights {
                Weights::Active(index) => {
                    let first = chunk * self.outputs;
                    let outputs = first..first + dw.len() / per_output;
                    let at = |entry: &Entry| entry.element as usize - first * per_output;
                    // Side by side, so that dw, which is large and mostly not asked for, is touched once.
                    let start = |entry| if add { dw[at(entry)] } else { 0.0 };
                    let mut totals: Vec<f32> = index.entries(outputs.clone()).map(start).collect();
                    for sums in sums {
                        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                    }
                    index.entries(outputs).zip(totals).for_each(|(entry, total)| dw[at(entry)] = total);
                }
                Weights::All(_) => {
                    if !add {
                        dw.fill(0.0);
                    }
                    for sums in sums {
                        dw.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                    }
                }
            }
        });
    }
}

/// Outputs and entries whose sums the dense kernel keeps in registers: two times three products fill the sixteen of AVX2, four times six
/// the 32 of AVX-512.
const fn products_at_once(wide: bool) -> [usize; 2] {
    if wide { [4, 6] } else { [2, 3] }
}

/// The sums of one fold, in element order. What the last groups of outputs and entries lack they fill up with repetitions, whose sums
/// are dropped.
fn dense_outputs(walk: Walk<'_>, fold: &[Tile], entries: &[Entry], outputs: Range<usize>) -> Vec<f32> {
    let [out, taps] = products_at_once(walk.level == Level::Avx512);
    let per_output = entries.len().div_ceil(taps) * taps;
    let at_once = out * (DENSE_SUMS / (out * per_output * size_of::<Line>())).max(1);
    let mut sums = Vec::new();
    let mut folded = vec![0.0; outputs.len() * entries.len()];
    for (i, to) in folded.chunks_mut(at_once * entries.len()).enumerate() {
        let first = outputs.start + i * at_once;
        sums.clear();
        sums.resize((to.len() / entries.len()).next_multiple_of(out) * per_output, Line::default());
        walk.for_each_group(fold, DENSE_TILES, |x, tiles| {
            dispatch!(walk.level, add_groups(
                walk: Walk<'_> = walk,
                x: &[f32] = x,
                tiles: &[Tile] = tiles,
                entries: &[Entry] = entries,
                outputs: Range<usize> = first..outputs.end,
                sums: &mut [Line] = &mut sums,
            ));
        });
        for (o, to) in to.chunks_mut(entries.len()).enumerate() {
            for (t, entry) in entries.iter().enumerate() {
                let group = o / out * per_output * out + t / taps * taps * out;
                to[entry.element as usize] = sum_lanes(&sums[group + o % out * taps + t % taps].0);
            }
        }
    }
    folded
}

/// Adds the products of some tiles to the sums, which lie by (group of outputs, group of entries, output, entry).
#[inline(always)]
unsafe fn add_groups<L: Lanes>(
    walk: Walk<'_>,
    x: &[f32],
    tiles: &[Tile],
    entries: &[Entry],
    outputs: Range<usize>,
    sums: &mut [Line],
) {
    const WIDE: [usize; 2] = products_at_once(true);
    const NARROW: [usize; 2] = products_at_once(false);
    // SAFETY: the taps and channels are those of the maps; the instruction set is the caller's.
    unsafe {
        if L::REGISTERS >= 32 {
            add_groups_of::<L, { WIDE[0] }, { WIDE[1] }>(walk, x, tiles, entries, outputs, sums);
        } else {
            add_groups_of::<L, { NARROW[0] }, { NARROW[1] }>(walk, x, tiles, entries, outputs, sums);
        }
    }
}

#[inline(always)]
unsafe fn add_groups_of<L: Lanes, const OUT: usize, const TAPS: usize>(
    walk: Walk<'_>,
    x: &[f32],
    tiles: &[Tile],
    entries: &[Entry],
    outputs: Range<usize>,
    sums: &mut [Line],
) {
    let groups = entries.len().div_ceil(TAPS);
    for (i, sums) in sums.chunks_mut(groups * TAPS * OUT).enumerate() {
        let channels = std::array::from_fn(|o| (outputs.start + i * OUT + o).min(outputs.end - 1) * walk.dy_plane);
        for (sums, entries) in sums.chunks_mut(TAPS * OUT).zip(entries.chunks(TAPS)) {
            let offsets = std::array::from_fn(|t| entries[t.min(entries.len() - 1)].offset as usize);
            // SAFETY: the caller's.
            unsafe { add_products::<L, OUT, TAPS>(walk, x, tiles, channels, offsets, sums) };
        }
    }
}

/// Adds the products of dy in `OUT` channels with x at `TAPS` offsets, over some tiles.
///
/// # Safety
/// As for [`Lanes`]; the channels are planes of an output block, and the offsets name pixels inside an input block for every output of
/// the stencil.
#[inline(always)]
unsafe fn add_products<L: Lanes, const OUT: usize, const TAPS: usize>(
    walk: Walk<'_>,
    x: &[f32],
    tiles: &[Tile],
    channels: [usize; OUT],
    offsets: [usize; TAPS],
    sums: &mut [Line],
) {
    // SAFETY: tiles are those of the walk; the rest is the caller's.
    unsafe {
        let mut sum: [[L; TAPS]; OUT] =
            std::array::from_fn(|o| std::array::from_fn(|t| L::load(sums[o * TAPS + t].0.as_ptr())));
        for tile in tiles {
            for row in 0..tile.rows {
                let mut x = x.as_ptr().add(tile.x + row * walk.x_step[0]);
                let mut dy = walk.dy.as_ptr().add(tile.dy + row * walk.dy_row);
                for _ in 0..tile.cols {
                    let g: [L; OUT] = std::array::from_fn(|o| L::load(dy.add(channels[o])));
                    for t in 0..TAPS {
                        let pixel = L::load(x.add(offsets[t]));
                        for o in 0..OUT {
                            sum[o][t] = pixel.fma(g[o], sum[o][t]);
                        }
                    }
                    x = x.add(walk.x_step[1]);
                    dy = dy.add(LANES);
                }
            }
        }
        sums.iter_mut().zip(sum.as_flattened()).for_each(|(to, sum)| sum.store(to.0.as_mut_ptr()));
    }
}

/// The sums of one fold, in the order of the index.
fn active_outputs(walk: Walk<'_>, fold: &[Tile], index: &Index, outputs: Range<usize>) -> Vec<f32> {
    let mut sums = vec![Line::default(); index.entries(outputs.clone()).count()];
    walk.for_each_group(fold, SPARSE_TILES, |x, tiles| {
        dispatch!(walk.level, add_tiles(
            walk: Walk<'_> = walk,
            x: &[f32] = x,
            tiles: &[Tile] = tiles,
            index: &Index = index,
            outputs: Range<usize> = outputs.clone(),
            sums: &mut [Line] = &mut sums,
        ));
    });
    let mut folded = vec![0.0; sums.len()];
    dispatch!(walk.level, fold_lanes(sums: &[Line] = &sums, to: &mut [f32] = &mut folded));
    folded
}

#[inline(always)]
unsafe fn fold_lanes<L: Lanes>(sums: &[Line], to: &mut [f32]) {
    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum_lanes(&sum.0));
}

#[inline(always)]
unsafe fn add_tiles<L: Lanes>(
    walk: Walk<'_>,
    x: &[f32],
    tiles: &[Tile],
    index: &Index,
    outputs: Range<usize>,
    sums: &mut [Line],
) {
    let mut rest = sums;
    for block in 0..index.blocks {
        let count = index.of_block(block, outputs.clone()).map(<[Entry]>::len).sum();
        let (of_block, others) = rest.split_at_mut(count);
        rest = others;
        for tile in tiles {
            let mut sums = &mut *of_block;
            for (output, entries) in outputs.clone().zip(index.of_block(block, outputs.clone())) {
                let (of_output, others) = sums.split_at_mut(entries.len());
                sums = others;
                // SAFETY: the index was built for these maps; the instruction set is the caller's.
                unsafe { add_tile::<L>(walk, x, tile, output, entries, of_output) };
            }
        }
    }
}

/// Adds a tile's products of one output channel, for each entry to its sum.
#[inline(always)]
unsafe fn add_tile<L: Lanes>(
    walk: Walk<'_>,
    x: &[f32],
    tile: &Tile,
    output: usize,
    entries: &[Entry],
    sums: &mut [Line],
) {
    if entries.is_empty() {
        return;
    }
    // SAFETY: the tile is one of the walk's.
    unsafe {
        let x = x.as_ptr().add(tile.x);
        let dy = walk.dy.as_ptr().add(output * walk.dy_plane + tile.dy);
        if L::REGISTERS >= 32 {
            match tile.rows {
                1 => add_rows::<L, 1>(walk, tile.cols, x, dy, entries, sums),
                2 => add_rows::<L, 2>(walk, tile.cols, x, dy, entries, sums),
                3 => add_rows::<L, 3>(walk, tile.cols, x, dy, entries, sums),
                _ => add_rows::<L, 4>(walk, tile.cols, x, dy, entries, sums),
            }
        } else {
            for row in 0..tile.rows {
                let (x, dy) = (x.add(row * walk.x_step[0]), dy.add(row * walk.dy_row));
                add_rows::<L, 1>(walk, tile.cols, x, dy, entries, sums);
            }
        }
    }
}

#[inline(always)]
unsafe fn add_rows<L: Lanes, const ROWS: usize>(
    walk: Walk<'_>,
    cols: usize,
    x: *const f32,
    dy: *const f32,
    entries: &[Entry],
    sums: &mut [Line],
) {
    // SAFETY: the caller's.
    unsafe {
        match (walk.x_step[1] / LANES, cols) {
            (1, 1) => add_pixels::<L, 1, ROWS, 1>(walk, x, dy, entries, sums),
            (1, 2) => add_pixels::<L, 1, ROWS, 2>(walk, x, dy, entries, sums),
            (1, 3) => add_pixels::<L, 1, ROWS, 3>(walk, x, dy, entries, sums),
            (1, _) => add_pixels::<L, 1, ROWS, 4>(walk, x, dy, entries, sums),
            (2, 4) => add_pixels::<L, 2, ROWS, 4>(walk, x, dy, entries, sums),
            (_, 1) => add_pixels::<L, 0, ROWS, 1>(walk, x, dy, entries, sums),
            (_, 2) => add_pixels::<L, 0, ROWS, 2>(walk, x, dy, entries, sums),
            (_, 3) => add_pixels::<L, 0, ROWS, 3>(walk, x, dy, entries, sums),
            (_, _) => add_pixels::<L, 0, ROWS, 4>(walk, x, dy, entries, sums),
        }
    }
}

/// The gradients of the pixels stay in registers over all entries. `STEP`: input pixels between outputs, 0 where only the walk knows.
#[inline(always)]
unsafe fn add_pixels<L: Lanes, const STEP: usize, const ROWS: usize, const COLS: usize>(
    walk: Walk<'_>,
    x: *const f32,
    dy: *const f32,
    entries: &[Entry],
    sums: &mut [Line],
) {
    let right = if STEP == 0 { walk.x_step[1] } else { STEP * LANES };
    // SAFETY: the caller's.
    unsafe {
        let grads: [[L; COLS]; ROWS] =
            std::array::from_fn(|r| std::array::from_fn(|c| L::load(dy.add(r * walk.dy_row + c * LANES))));
        for (entry, to) in entries.iter().zip(sums) {
            let from = x.add(entry.offset as usize);
            let mut sum = L::load(to.0.as_ptr());
            for (r, grads) in grads.iter().enumerate() {
                for (c, grad) in grads.iter().enumerate() {
                    sum = L::load(from.add(r * walk.x_step[0] + c * right)).fma(*grad, sum);
                }
            }
            sum.store(to.0.as_mut_ptr());
        }
    }
}
