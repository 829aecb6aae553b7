//! The dense stencil: four output channels by a few pixels in registers.
//!
//! Each (input channel, tap) loads its pixels once and multiplies them with four broadcast weights: on AVX-512 16 multiply-adds for
//! 8 loads, so the kernel is bound by arithmetic as long as inputs come from L2. Input rows are reused over all output channels
//! before the next row.

use std::sync::Arc;

use rayon::prelude::*;

use super::around::{Finish, pixel};
use super::row_sums::Tally;
use super::strips::Strip;
use super::{Direction, Stencil, View};
use crate::backend::cpu::effective::EffectiveWeights;
use crate::backend::cpu::grid::Write;
use crate::backend::cpu::simd::{LANES, Lanes, Level, dispatch};

/// Output channels in registers.
const OUT: usize = 4;

/// Weights in the order of use: [class][output / 4][input][tap][4], missing outputs 0.
pub(super) struct Packed {
    inputs: usize,
    classes: Vec<Vec<[f32; OUT]>>,
}

/// The packed weights of one layer, for each direction and stencils they are used in, until they change.
#[derive(Default)]
pub(in crate::backend::cpu) struct PackedWeights(Vec<(Direction, Vec<Vec<usize>>, Arc<Packed>)>);

impl PackedWeights {
    /// Forgets old effective weights.
    pub(in crate::backend::cpu) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn get(&mut self, view: View, stencils: &[Stencil], values: &EffectiveWeights) -> Arc<Packed> {
        let positions = |stencil: &Stencil| stencil.taps.iter().map(|tap| tap.position).collect();
        let positions: Vec<Vec<usize>> = stencils.iter().map(positions).collect();
        let known = |(direction, taps, _): &(Direction, Vec<Vec<usize>>, Arc<Packed>)| {
            *direction == view.direction && *taps == positions
        };
        let at = self.0.iter().position(known).unwrap_or_else(|| {
            let packed = pack(view, stencils, &values.to_dense(view.weight.len()));
            self.0.push((view.direction, positions, Arc::new(packed)));
            self.0.len() - 1
        });
        self.0[at].2.clone()
    }
}

fn pack(view: View, stencils: &[Stencil], values: &[f32]) -> Packed {
    let pack_class = |stencil: &Stencil| {
        let per_group = view.inputs() * stencil.taps.len();
        let mut packed = vec![[0.0; OUT]; view.outputs().div_ceil(OUT) * per_group];
        if per_group == 0 {
            return packed;
        }
        packed.par_chunks_mut(per_group).enumerate().for_each(|(group, to)| {
            for (at, four) in to.iter_mut().enumerate() {
                let (input, tap) = (at / stencil.taps.len(), stencil.taps[at % stencil.taps.len()]);
                for (o, value) in four.iter_mut().enumerate().take(view.outputs() - group * OUT) {
                    *value = values[view.element(group * OUT + o, input, tap.position)];
                }
            }
        });
        packed
    };
    Packed { inputs: view.inputs(), classes: stencils.iter().map(pack_class).collect() }
}

/// The sums of one strip.
pub(super) fn compute(
    level: Level,
    stencils: &[Stencil],
    packed: &Packed,
    strip: &Strip,
    [x_plane, y_plane]: [usize; 2],
    write: Write,
) {
    for (stencil, weights) in stencils.iter().zip(&packed.classes) {
        let per_group = packed.inputs * stencil.taps.len();
        let weights = &weights[strip.outputs.start / OUT * per_group..];
        assert!(weights.len() >= strip.outputs.len().div_ceil(OUT) * per_group);
        dispatch!(level, run(
            stencil: &Stencil = stencil,
            inputs: usize = packed.inputs,
            weights: &[[f32; OUT]] = weights,
            strip: &Strip<'_> = strip,
            x_plane: usize = x_plane,
            y_plane: usize = y_plane,
            write: Write = write,
        ));
    }
}

/// # Safety
/// As for [`Lanes`]; the strip's input holds `inputs` planes, and `weights` a group for each four of its outputs.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn run<L: Lanes>(
    stencil: &Stencil,
    inputs: usize,
    weights: &[[f32; OUT]],
    strip: &Strip<'_>,
    x_plane: usize,
    y_plane: usize,
    write: Write,
) {
    let outputs = strip.outputs.len();
    let per_group = inputs * stencil.taps.len();
    for (down, row) in strip.rows_of(stencil).enumerate() {
        for group in 0..outputs.div_ceil(OUT) {
            let tile = Tile {
                stencil,
                inputs,
                weights: weights[group * per_group..].as_ptr(),
                x_plane,
                y_plane,
                outputs: (outputs - group * OUT).min(OUT),
                write,
            };
            let mut col = 0;
            while col < stencil.cols {
                // SAFETY: row and col name an output of the class, whose taps all lie inside the input planes and whose place
                // lies inside the output planes; the instruction set is the caller's.
                unsafe {
                    let x = strip.x.as_ptr().add(down * stencil.x_step[0] + col * stencil.x_step[1]);
                    let at = group * OUT * y_plane + stencil.y_at + row * stencil.y_step[0] + col * stencil.y_step[1];
                    let y = strip.y.add(at);
                    let left = stencil.cols - col;
                    let channel = |o: usize| strip.outputs.start + group * OUT + o;
                    let start = |o: usize| match strip.around.start {
                        Some(map) => Some((pixel(map, stencil, channel(o), row, col).0, LANES)),
                        None => (write == Write::Add).then_some((y.add(o * y_plane).cast_const(), stencil.y_step[1])),
                    };
                    let finish = |o: usize| strip.around.finish(stencil, channel(o), row, col);
                    let tally = |o: usize| strip.around.rows.map(|rows| rows.tally(channel(o), row, col));
                    col += if left >= 4 && L::TILE >= 4 {
                        tile.compute::<L, 4>(x, y, start, finish, tally)
                    } else if left >= 2 && L::TILE >= 2 {
                        tile.compute::<L, 2>(x, y, start, finish, tally)
                    } else {
                        tile.compute::<L, 1>(x, y, start, finish, tally)
                    };
                }
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { L::fence() }
}

struct Tile<'a> {
    stencil: &'a Stencil,
    inputs: usize,
    weights: *const [f32; OUT],
    x_plane: usize,
    y_plane: usize,
    outputs: usize,
    write: Write,
}

impl Tile<'_> {
    /// Four output channels of `P` pixels; returns P.
    #[inline(always)]
    unsafe fn compute<L: Lanes, const P: usize>(
        &self,
        x: *const f32,
        y: *mut f32,
        start: impl Fn(usize) -> Option<(*const f32, usize)>,
        finish: impl Fn(usize) -> Option<Finish>,
        tally: impl Fn(usize) -> Option<Tally>,
    ) -> usize {
        let [x_step, y_step] = [self.stencil.x_step[1], self.stencil.y_step[1]];
        // SAFETY: see `run`.
        unsafe {
            let mut sum = [[L::splat(0.0); P]; OUT];
            for (o, sum) in sum.iter_mut().enumerate().take(self.outputs) {
                if let Some((from, step)) = start(o) {
                    *sum = std::array::from_fn(|p| L::load(from.add(p * step)));
                }
            }
            let mut weight = self.weights;
            for input in 0..self.inputs {
                let plane = x.add(input * self.x_plane);
                for tap in &self.stencil.taps {
                    let from = plane.add(tap.offset);
                    let pixels: [L; P] = std::array::from_fn(|p| L::load(from.add(p * x_step)));
                    for (sum, w) in sum.iter_mut().zip(&*weight) {
                        let w = L::splat(*w);
                        for (sum, pixel) in sum.iter_mut().zip(pixels) {
                            *sum = pixel.fma(w, *sum);
                        }
                    }
                    weight = weight.add(1);
                }
            }
            for (o, sum) in sum.into_iter().enumerate().take(self.outputs) {
                let finish = finish(o);
                if let Some(tally) = tally(o) {
                    tally.add(0, &sum);
                }
                for (p, sum) in sum.into_iter().enumerate() {
                    let sum = finish.map_or(sum, |finish| finish.apply(sum, 0, p));
                    let to = y.add(o * self.y_plane + p * y_step);
                    if self.write == Write::Stream { sum.stream(to) } else { sum.store(to) }
                }
            }
        }
        P
    }
}
