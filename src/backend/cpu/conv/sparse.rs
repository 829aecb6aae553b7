//! The sparse stencil: only the weights inside M, in an order that keeps their inputs in L1.
//!
//! A strip of output pixels stays in registers; each nonzero is one broadcast and one multiply-add a pixel, wherever it is. Input
//! channels go in blocks, so that the strip's inputs are read from L1 over all output channels. The index is built when M
//! changes; the random mask only changes values.

use super::{Direction, Stencil, View, each_task};
use crate::backend::cpu::grid::Grid;
use crate::backend::cpu::simd::{Lanes, Level, dispatch};
use crate::bitmask::BitMask;

/// One weight of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// From the start of the input block to the pixel that output (0, 0) sees.
    pub(super) offset: u32,
    /// Its element in (O, kH, kW, I) order.
    pub(super) element: u32,
}

/// The weights of one class by (input block, output): those of block k and output o are `first[k outputs + o] ..`.
#[derive(Debug)]
pub(super) struct ClassIndex {
    pub(super) first: Vec<u32>,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Index {
    view_outputs: usize,
    pub(super) blocks: usize,
    pub(super) classes: Vec<ClassIndex>,
}

impl Index {
    /// The weights of one input block and output, of an index with a single class.
    pub(super) fn entries(&self, block: usize, output: usize) -> &[Entry] {
        let (class, at) = (&self.classes[0], block * self.view_outputs + output);
        &class.entries[class.first[at] as usize..class.first[at + 1] as usize]
    }
}

/// What an index depends on besides M: the direction and the input's strides.
type Geometry = (Direction, usize, usize, usize, Vec<usize>);

/// The indices of one layer, built at first use after M changed.
#[derive(Default, Debug)]
pub(in crate::backend::cpu) struct SparseIndex {
    built: Vec<(Geometry, Index)>,
}

impl SparseIndex {
    /// Forgets what an old M gave.
    pub(in crate::backend::cpu) fn clear(&mut self) {
        self.built.clear();
    }

    pub(super) fn get(&mut self, view: View, x: Grid, stencils: &[Stencil], mask: &BitMask) -> &Index {
        let offsets = stencils.iter().flat_map(|s| s.taps.iter().map(|t| t.offset)).collect();
        let geometry = (view.direction, x.plane, x.row, x.halo, offsets);
        let at = self.built.iter().position(|(g, _)| *g == geometry).unwrap_or_else(|| {
            self.built.push((geometry, build(view, x, stencils, mask)));
            self.built.len() - 1
        });
        &self.built[at].1
    }
}

/// Input channels a block: about 15 nonzeros a block and output, as few as keep the loop's overhead small.
fn channels_per_block(view: View, density: f64) -> usize {
    let per_channel = (density * (view.weight.kernel[0] * view.weight.kernel[1]) as f64).max(1e-3);
    ((15.0 / per_channel) as usize).clamp(8, view.inputs().max(8))
}

fn build(view: View, x: Grid, stencils: &[Stencil], mask: &BitMask) -> Index {
    let (inputs, outputs) = (view.inputs(), view.outputs());
    let width = channels_per_block(view, mask.count() as f64 / mask.len() as f64);
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
                            let offset = u32::try_from(input * x.plane + tap.offset);
                            let offset = offset.expect("sixteen images of one layer take less than 16 GiB");
                            entries.push(Entry { offset, element: element as u32 });
                        }
                    }
                }
            }
        }
        first.push(entries.len() as u32);
        ClassIndex { first, entries }
    };
    Index { view_outputs: outputs, blocks, classes: stencils.iter().map(class).collect() }
}

pub(super) fn correlate(
    level: Level,
    index: &Index,
    values: &[f32],
    (x, gx): (&[f32], Grid),
    stencils: &[Stencil],
    (y, gy): (&mut [f32], Grid),
    add: bool,
) {
    let gather =
        |class: &ClassIndex| -> Vec<f32> { class.entries.iter().map(|e| values[e.element as usize]).collect() };
    let gathered: Vec<Vec<f32>> = index.classes.iter().map(gather).collect();
    each_task((x, gx), (y, gy), add, |x, first_output, y| {
        for ((stencil, class), values) in stencils.iter().zip(&index.classes).zip(&gathered) {
            assert_eq!(values.len(), class.entries.len());
            dispatch!(level, run(
                stencil: &Stencil = stencil,
                index: &Index = index,
                class: &ClassIndex = class,
                values: &[f32] = values,
                first_output: usize = first_output,
                x: &[f32] = x,
                y: &mut [f32] = &mut *y,
                y_plane: usize = gy.plane,
                add: bool = add,
            ));
        }
    });
}

/// # Safety
/// As for [`Lanes`]; the index was built for the planes of `x`, and `y` holds whole planes from `first_output` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn run<L: Lanes>(
    stencil: &Stencil,
    index: &Index,
    class: &ClassIndex,
    values: &[f32],
    first_output: usize,
    x: &[f32],
    y: &mut [f32],
    y_plane: usize,
    add: bool,
) {
    let outputs = y.len() / y_plane;
    for row in 0..stencil.rows {
        let mut col = 0;
        while col < stencil.cols {
            let left = stencil.cols - col;
            // As many pixels as registers: 16 of 32 on AVX-512, 6 pairs of 16 on AVX2.
            let width = if L::TILE >= 4 {
                [16, 8, 4, 2].into_iter().find(|&w| w <= left).unwrap_or(1)
            } else {
                [6, 4, 2].into_iter().find(|&w| w <= left).unwrap_or(1)
            };
            for block in 0..index.blocks {
                for o in 0..outputs {
                    let at = block * index.view_outputs + first_output + o;
                    let (from, to) = (class.first[at] as usize, class.first[at + 1] as usize);
                    if from == to && block > 0 {
                        continue;
                    }
                    // SAFETY: the offsets name pixels of the input block, the output lies in its plane; the instruction
                    // set is the caller's.
                    unsafe {
                        let x = x.as_ptr().add(row * stencil.x_step[0] + col * stencil.x_step[1]);
                        let at = o * y_plane + stencil.y_at + row * stencil.y_step[0] + col * stencil.y_step[1];
                        let y = y.as_mut_ptr().add(at);
                        let (entries, values) = (class.entries.get_unchecked(from..to), values.get_unchecked(from..to));
                        let add = add || block > 0;
                        let steps = [stencil.x_step[1], stencil.y_step[1]];
                        match width {
                            16 => strip::<L, 16>(entries, values, x, y, steps, add),
                            8 => strip::<L, 8>(entries, values, x, y, steps, add),
                            6 => strip::<L, 6>(entries, values, x, y, steps, add),
                            4 => strip::<L, 4>(entries, values, x, y, steps, add),
                            2 => strip::<L, 2>(entries, values, x, y, steps, add),
                            _ => strip::<L, 1>(entries, values, x, y, steps, add),
                        }
                    }
                }
            }
            col += width;
        }
    }
}

#[inline(always)]
unsafe fn strip<L: Lanes, const P: usize>(
    entries: &[Entry],
    values: &[f32],
    x: *const f32,
    y: *mut f32,
    [x_step, y_step]: [usize; 2],
    add: bool,
) {
    // SAFETY: see `run`.
    unsafe {
        let mut sum: [L; P] =
            if add { std::array::from_fn(|p| L::load(y.add(p * y_step))) } else { [L::splat(0.0); P] };
        for (entry, &value) in entries.iter().zip(values) {
            let from = x.add(entry.offset as usize);
            let value = L::splat(value);
            for (p, sum) in sum.iter_mut().enumerate() {
                *sum = L::load(from.add(p * x_step)).fma(value, *sum);
            }
        }
        for (p, sum) in sum.into_iter().enumerate() {
            sum.store(y.add(p * y_step));
        }
    }
}
