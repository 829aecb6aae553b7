//! The sparse stencil: only the weights inside M, in an order that keeps their inputs in L1.
//!
//! A tile of output pixels stays in registers; each nonzero is one broadcast and one multiply-add a pixel, wherever it is. Input
//! channels go in blocks, so that what the tile sees of one block is read from L1 over all output channels. The index is built when M
//! changes; the random mask only changes which values are taken along.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::around::{Finish, pixel};
use super::row_sums::Tally;
use super::strips::Strip;
use super::tiles::pieces;
use super::{Direction, Stencil, View};
use crate::backend::cpu::effective::EffectiveWeights;
use crate::backend::cpu::grid::{Grid, Write};
use crate::backend::cpu::simd::{LANES, Lanes, Level, dispatch};
use crate::bitmask::BitMask;

/// What a tile's inputs may take of L1, the rest being for weights and sums.
const INPUT_BYTES: usize = 36 * 1024;
/// So many weights of a block and output channel are worth loading and storing the tile's sums for.
const WORTH_A_BLOCK: f64 = 15.0;

/// One weight of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// From the start of an input block to the pixel that output (0, 0) sees.
    pub(super) offset: u32,
    /// Its element in (O, kH, kW, I) order.
    pub(super) element: u32,
}

impl Entry {
    pub(super) fn new(offset: usize, element: usize) -> Self {
        let offset = u32::try_from(offset).expect("sixteen images of one layer take less than 16 GiB");
        Entry { offset, element: element as u32 }
    }
}

/// The weights of one class by (input block, output): those of block k and output o are `first[k outputs + o] ..`.
#[derive(Debug)]
struct ClassIndex {
    first: Vec<u32>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Index {
    outputs: usize,
    pub(super) blocks: usize,
    classes: Vec<ClassIndex>,
}

impl Index {
    /// The weights of one input block, for each of some outputs; of an index with a single class.
    pub(super) fn of_block(&self, block: usize, outputs: Range<usize>) -> impl Iterator<Item = &[Entry]> {
        let (class, at) = (&self.classes[0], block * self.outputs);
        outputs.map(move |o| &class.entries[class.first[at + o] as usize..class.first[at + o + 1] as usize])
    }

    /// The weights of some outputs, by block and output.
    pub(super) fn entries(&self, outputs: Range<usize>) -> impl Iterator<Item = &Entry> {
        (0..self.blocks).flat_map(move |block| self.of_block(block, outputs.clone())).flatten()
    }
}

/// What an index depends on besides M: the direction and the input's strides.
type Geometry = (Direction, usize, usize, usize, Vec<usize>);

/// The weights of one layer as the kernels take them, for each direction and geometry they are used in.
#[derive(Default)]
pub(in crate::backend::cpu) struct SparseIndex {
    built: Vec<Built>,
}

/// The blocks of each class.
pub(super) type Gathered = Arc<Vec<Vec<Block>>>;

struct Built {
    geometry: Geometry,
    /// Follows from M.
    index: Arc<Index>,
    /// Follows from the effective weights: a list for each class.
    gathered: Option<Gathered>,
}

impl SparseIndex {
    /// Forgets what an old M gave.
    pub(in crate::backend::cpu) fn clear(&mut self) {
        self.built.clear();
    }

    /// Forgets old effective weights.
    pub(in crate::backend::cpu) fn clear_values(&mut self) {
        self.built.iter_mut().for_each(|built| built.gathered = None);
    }

    fn at(&mut self, level: Level, view: View, x: Grid, stencils: &[Stencil], mask: &BitMask) -> &mut Built {
        let offsets = stencils.iter().flat_map(|s| s.taps.iter().map(|t| t.offset)).collect();
        let geometry = (view.direction, x.plane, x.row, x.halo, offsets);
        let at = self.built.iter().position(|built| built.geometry == geometry).unwrap_or_else(|| {
            let index = Arc::new(build(level, view, x, stencils, mask));
            self.built.push(Built { geometry, index, gathered: None });
            self.built.len() - 1
        });
        &mut self.built[at]
    }

    /// Where the weights inside M look, built at first use after M changed.
    pub(super) fn index(
        &mut self,
        level: Level,
        view: View,
        x: Grid,
        stencils: &[Stencil],
        mask: &BitMask,
    ) -> Arc<Index> {
        self.at(level, view, x, stencils, mask).index.clone()
    }

    /// The effective weights that are not zero, gathered at first use after they changed.
    pub(super) fn weights(
        &mut self,
        level: Level,
        view: View,
        x: Grid,
        stencils: &[Stencil],
        mask: &BitMask,
        values: &EffectiveWeights,
    ) -> Gathered {
        let Built { index, gathered, .. } = self.at(level, view, x, stencils, mask);
        let gather = |class: &ClassIndex, block: usize| {
            dispatch!(level, gather(
                index: &Index = index,
                class: &ClassIndex = class,
                block: usize = block,
                values: &EffectiveWeights = values,
            ) -> Block)
        };
        let blocks = |class: &ClassIndex| -> Vec<Block> {
            (0..index.blocks).into_par_iter().map(|block| gather(class, block)).collect()
        };
        gathered.get_or_insert_with(|| Arc::new(index.classes.iter().map(blocks).collect())).clone()
    }
}

/// Input channels a block: as many as leave the tile's inputs in L1, or so many that a block is worth its overhead.
///
/// Sums do not depend on it: their order is that of the inputs, whatever is kept in registers in between.
fn channels_per_block(level: Level, view: View, stencils: &[Stencil], x: Grid, density: f64) -> usize {
    let taps = stencils.iter().map(|s| s.taps.len()).max().unwrap_or(1);
    let per_channel = (density * taps as f64).max(1e-3);
    let bytes = match x.lanes {
        1 => stencils[0].bytes_seen(),
        _ => {
            let steps = [stencils[0].x_step[0] / x.row, stencils[0].x_step[1] / LANES];
            let seen = |i: usize| (level.sparse_tile()[i] - 1) * steps[i] + view.weight.kernel[i];
            seen(0) * seen(1) * LANES * size_of::<f32>()
        }
    };
    ((WORTH_A_BLOCK / per_channel) as usize).max(INPUT_BYTES / bytes).clamp(1, view.inputs())
}

fn build(level: Level, view: View, x: Grid, stencils: &[Stencil], mask: &BitMask) -> Index {
    let (inputs, outputs) = (view.inputs(), view.outputs());
    let width = channels_per_block(level, view, stencils, x, mask.count() as f64 / mask.len() as f64);
    let blocks = inputs.div_ceil(width);
    let class = |stencil: &Stencil| {
        let (mut first, mut entries) = (Vec::with_capacity(blocks * outputs + 1), Vec::new());
        for block in 0..blocks {
            for output in 0..outputs {
                first.push(entries.len() as u32);
                for input in block * width..((block + 1) * width).min(inputs) {
                    for tap in &stencil.taps {
                        let element = view.element(output, input, tap.position);
                        if mask.get(element) {
                            entries.push(Entry::new(input * x.plane + tap.offset, element));
                        }
                    }
                }
            }
        }
        first.push(entries.len() as u32);
        ClassIndex { first, entries }
    };
    Index { outputs, blocks, classes: stencils.iter().map(class).collect() }
}

/// A weight that is not zero, and where it looks.
#[derive(Clone, Copy)]
struct Nonzero {
    offset: u32,
    value: f32,
}

/// One block of a class: the weights of output o are `weights[first[o]..first[o + 1]]`.
pub(super) struct Block {
    first: Vec<u32>,
    weights: Vec<Nonzero>,
}

/// Takes along what `values` has of a block of the index; what the random mask drops is not worth multiplying with.
#[inline(always)]
unsafe fn gather<L: Lanes>(index: &Index, class: &ClassIndex, block: usize, values: &EffectiveWeights) -> Block {
    match values {
        EffectiveWeights::Dense(values) => Block::of(index, class, block, |element| values[element]),
        EffectiveWeights::Inside(values) => Block::of(index, class, block, |element| values.get(element)),
    }
}

impl Block {
    #[inline(always)]
    fn of(index: &Index, class: &ClassIndex, block: usize, value_of: impl Fn(usize) -> f32) -> Block {
        let rows = &class.first[block * index.outputs..=(block + 1) * index.outputs];
        let mut first = Vec::with_capacity(rows.len());
        let mut weights = vec![Nonzero { offset: 0, value: 0.0 }; (rows[rows.len() - 1] - rows[0]) as usize];
        let mut end = 0;
        for row in rows.windows(2) {
            first.push(end as u32);
            for entry in &class.entries[row[0] as usize..row[1] as usize] {
                let value = value_of(entry.element as usize);
                weights[end] = Nonzero { offset: entry.offset, value };
                end += usize::from(value != 0.0);
            }
        }
        first.push(end as u32);
        Block { first, weights }
    }
}

/// The sums of one strip; `gathered` has the blocks of each stencil.
pub(super) fn compute(
    level: Level,
    stencils: &[Stencil],
    gathered: &[Vec<Block>],
    strip: &Strip,
    y_plane: usize,
    write: Write,
) {
    for (stencil, blocks) in stencils.iter().zip(gathered) {
        dispatch!(level, run(
            stencil: &Stencil = stencil,
            blocks: &[Block] = blocks,
            strip: &Strip<'_> = strip,
            y_plane: usize = y_plane,
            write: Write = write,
        ));
    }
}

/// # Safety
/// As for [`Lanes`]; the blocks were built for the planes of the strip's input, and its planes of y lie `y_plane` apart.
#[inline(always)]
unsafe fn run<L: Lanes>(stencil: &Stencil, blocks: &[Block], strip: &Strip<'_>, y_plane: usize, write: Write) {
    let [rows, cols] = L::SPARSE_TILE;
    let of_class = strip.rows_of(stencil);
    let around = strip.around;
    for (down, rows) in pieces(of_class.len(), rows) {
        let row = of_class.start + down;
        for (col, cols) in pieces(stencil.cols, cols) {
            for (b, block) in blocks.iter().enumerate() {
                let add = write.adds() || b > 0;
                let last = b + 1 == blocks.len();
                let ends = last && around.affine.is_some();
                let begins = if b == 0 { around.start } else { None };
                for (o, output) in strip.outputs.clone().enumerate() {
                    let [from, to] = [output, output + 1].map(|o| block.first[o] as usize);
                    if from == to && add && !ends && !(last && around.rows.is_some()) {
                        continue;
                    }
                    // SAFETY: the offsets name pixels of the input block, the tile lies in the output's plane; the
                    // instruction set is the caller's.
                    unsafe {
                        let at = o * y_plane + stencil.y_at + row * stencil.y_step[0] + col * stencil.y_step[1];
                        let mut tile = Tile {
                            weights: block.weights.get_unchecked(from..to),
                            x: strip.x.as_ptr().add(down * stencil.x_step[0] + col * stencil.x_step[1]),
                            x_step: stencil.x_step,
                            y: strip.y.add(at),
                            y_step: stencil.y_step,
                            start: None,
                            tally: around.rows.filter(|_| last).map(|rows| rows.tally(output, row, col)),
                            stream: last && write == Write::Stream && !ends,
                        };
                        tile.start = match begins {
                            Some(map) => Some(pixel(map, stencil, output, row, col)),
                            None => add.then_some((tile.y.cast_const(), stencil.y_step)),
                        };
                        match stencil.x_step[1] / LANES {
                            1 => tile.compute::<L, 1>(rows, cols),
                            2 => tile.compute::<L, 2>(rows, cols),
                            _ => tile.compute::<L, 0>(rows, cols),
                        }
                        if let Some(finish) = around.finish(stencil, output, row, col).filter(|_| last) {
                            tile.finish::<L>(finish, rows, cols);
                        }
                    }
                }
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { L::fence() }
}

/// A few pixels of one output channel, and the weights of one block that they see.
struct Tile<'a> {
    weights: &'a [Nonzero],
    x: *const f32,
    x_step: [usize; 2],
    y: *mut f32,
    y_step: [usize; 2],
    /// What the sums begin with and the steps between its pixels; zeros where there is nothing.
    start: Option<(*const f32, [usize; 2])>,
    tally: Option<Tally>,
    stream: bool,
}

impl Tile<'_> {
    /// `STEP`: input pixels between outputs, 0 where only `x_step` knows.
    #[inline(always)]
    unsafe fn compute<L: Lanes, const STEP: usize>(&self, rows: usize, cols: usize) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => self.sums_of_rows::<L, STEP, 1>(cols),
                2 => self.sums_of_rows::<L, STEP, 2>(cols),
                _ if L::SPARSE_TILE[0] < 3 => unreachable!("tiles of this instruction set have no more rows"),
                3 => self.sums_of_rows::<L, STEP, 3>(cols),
                _ => self.sums_of_rows::<L, STEP, 4>(cols),
            }
        }
    }

    #[inline(always)]
    unsafe fn sums_of_rows<L: Lanes, const STEP: usize, const ROWS: usize>(&self, cols: usize) {
        // SAFETY: the caller's.
        unsafe {
            match cols {
                1 => self.sum::<L, STEP, ROWS, 1>(),
                2 => self.sum::<L, STEP, ROWS, 2>(),
                3 => self.sum::<L, STEP, ROWS, 3>(),
                _ if L::SPARSE_TILE[1] < 4 => unreachable!("tiles of this instruction set have no more columns"),
                4 => self.sum::<L, STEP, ROWS, 4>(),
                5 => self.sum::<L, STEP, ROWS, 5>(),
                6 => self.sum::<L, STEP, ROWS, 6>(),
                _ => self.sum::<L, STEP, ROWS, 7>(),
            }
        }
    }

    /// What follows the sums. They come back from L1, which costs less than registers would in the loops above.
    #[inline(always)]
    unsafe fn finish<L: Lanes>(&self, finish: Finish, rows: usize, cols: usize) {
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            // SAFETY: see `run`.
            unsafe {
                let at = self.y.add(row * self.y_step[0] + col * self.y_step[1]);
                finish.apply(L::load(at), row, col).store(at);
            }
        }
    }

    #[inline(always)]
    unsafe fn sum<L: Lanes, const STEP: usize, const ROWS: usize, const COLS: usize>(&self) {
        let right = if STEP == 0 { self.x_step[1] } else { STEP * LANES };
        // SAFETY: see `run`.
        unsafe {
            let at = |r: usize, c: usize| self.y.add(r * self.y_step[0] + c * self.y_step[1]);
            let mut sum: [[L; COLS]; ROWS] = match self.start {
                Some((from, [down, right])) => {
                    std::array::from_fn(|r| std::array::from_fn(|c| L::load(from.add(r * down + c * right))))
                }
                None => [[L::splat(0.0); COLS]; ROWS],
            };
            for weight in self.weights {
                let from = self.x.add(weight.offset as usize);
                let value = L::splat(weight.value);
                for (r, sums) in sum.iter_mut().enumerate() {
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(from.add(r * self.x_step[0] + c * right)).fma(value, *sum);
                    }
                }
            }
            if let Some(tally) = self.tally {
                for (r, sums) in sum.iter().enumerate() {
                    tally.add(r, sums);
                }
            }
            for (r, sums) in sum.into_iter().enumerate() {
                for (c, sum) in sums.into_iter().enumerate() {
                    if self.stream { sum.stream(at(r, c)) } else { sum.store(at(r, c)) }
                }
            }
        }
    }
}
