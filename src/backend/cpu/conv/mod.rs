//! Direct convolutions in the blocked layout: no im2col, no borders to treat.
//!
//! Forward and input gradient are the same thing, a [`Stencil`]: each output pixel is a weighted sum of input pixels at fixed
//! offsets. [`dense`] runs it with every weight, [`sparse`] with those of an index.

mod dense;
mod sparse;
mod tiles;
mod weight_grad;

pub(super) use sparse::SparseIndex;

use rayon::prelude::*;

use super::Cpu;
use super::grid::Grid;
use super::memory::Place;
use super::simd::LANES;
use crate::backend::{Conv, Extent, Map, Sink, Weight};

/// Below this density of M a layer runs on its index, above on the dense kernel.
///
/// A nonzero of the sparse kernel costs about 1.4x a weight of the dense one.
const SPARSE_BELOW: f64 = 0.65;

/// A position of the kernel and where it looks.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// kernel row * kernel columns + kernel column
    position: usize,
    /// From the start of an input channel's plane to the pixel that output (0, 0) of the class sees.
    offset: usize,
}

/// One class of output pixels that see the input through the same taps: all of them forward, those of one residue of the stride
/// in an input gradient.
#[derive(Clone, Debug)]
struct Stencil {
    taps: Vec<Tap>,
    rows: usize,
    cols: usize,
    /// Input floats between neighbouring outputs, down and right.
    x_step: [usize; 2],
    /// From the start of an output channel's plane to output (0, 0) of the class, and the steps between outputs.
    y_at: usize,
    y_step: [usize; 2],
}

impl Stencil {
    fn forward(x: Grid, y: Grid, kernel: [usize; 2], conv: Conv) -> Stencil {
        let margin = x.halo - conv.padding;
        let tap = |position: usize| Tap {
            position,
            offset: (margin + position / kernel[1]) * x.row + (margin + position % kernel[1]) * LANES,
        };
        Stencil {
            taps: (0..kernel[0] * kernel[1]).map(tap).collect(),
            rows: y.shape.h,
            cols: y.shape.w,
            x_step: [conv.stride * x.row, conv.stride * LANES],
            y_at: y.pixel(0, 0),
            y_step: [y.row, LANES],
        }
    }

    /// One stencil a residue of the stride: pixel s q + r of dx sees dy at q + (r + p - k) / s for the k that divide.
    fn input_gradient(dy: Grid, dx: Grid, kernel: [usize; 2], conv: Conv) -> Vec<Stencil> {
        let (s, p) = (conv.stride, conv.padding);
        let reach = |r: usize, k: usize| {
            let d = (r + p) as isize - k as isize;
            (d.rem_euclid(s as isize) == 0).then(|| (dy.halo as isize + d.div_euclid(s as isize)) as usize)
        };
        let class = |ry: usize, rx: usize| Stencil {
            taps: (0..kernel[0] * kernel[1])
                .filter_map(|position| {
                    let (i, j) = (reach(ry, position / kernel[1])?, reach(rx, position % kernel[1])?);
                    Some(Tap { position, offset: i * dy.row + j * LANES })
                })
                // A flipped kernel looks backwards; memory is read forwards.
                .rev()
                .collect(),
            rows: dx.shape.h.saturating_sub(ry).div_ceil(s),
            cols: dx.shape.w.saturating_sub(rx).div_ceil(s),
            x_step: [dy.row, LANES],
            y_at: dx.pixel(ry, rx),
            y_step: [s * dx.row, s * LANES],
        };
        (0..s * s).map(|r| class(r / s, r % s)).collect()
    }
}

/// Which way a weight is looked at: as (output, input) forward, transposed for the input gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Transposed,
}

/// A weight as one of the two directions sees it.
#[derive(Clone, Copy, Debug)]
struct View {
    weight: Weight,
    direction: Direction,
}

impl View {
    fn outputs(&self) -> usize {
        match self.direction {
            Direction::Forward => self.weight.out_channels,
            Direction::Transposed => self.weight.in_channels,
        }
    }

    fn inputs(&self) -> usize {
        match self.direction {
            Direction::Forward => self.weight.in_channels,
            Direction::Transposed => self.weight.out_channels,
        }
    }

    /// The element of (output, input, kernel position), in (O, kH, kW, I) order.
    #[inline(always)]
    fn element(&self, output: usize, input: usize, position: usize) -> usize {
        let (o, i) = match self.direction {
            Direction::Forward => (output, input),
            Direction::Transposed => (input, output),
        };
        (o * self.weight.kernel[0] * self.weight.kernel[1] + position) * self.weight.in_channels + i
    }
}

/// Divides a correlation into tasks, at least eight where the channels allow it, by the shape alone: `compute` gets a block of images of
/// x, the first of its output channels, and their planes of y. Halos are cleared behind it unless it adds.
fn each_task(
    (x, gx): (&[f32], Grid),
    (y, gy): (&mut [f32], Grid),
    add: bool,
    compute: impl Fn(&[f32], usize, &mut [f32]) + Sync,
) {
    let channels = gy.shape.c.div_ceil(8usize.div_ceil(gy.blocks)).next_multiple_of(4);
    y.par_chunks_mut(gy.block).zip(x.par_chunks(gx.block)).for_each(|(y, x)| {
        y.par_chunks_mut(channels * gy.plane).enumerate().for_each(|(task, y)| {
            compute(x, task * channels, y);
            if !add {
                y.chunks_mut(gy.plane).for_each(|plane| gy.clear_halo(plane));
            }
        });
    });
}

impl Cpu {
    pub(super) fn convolve(&mut self, x: Map, w: Weight, conv: Conv, y: Map) {
        let stencil = Stencil::forward(Grid::of(x), Grid::of(y), w.kernel, conv);
        self.correlate(x, View { weight: w, direction: Direction::Forward }, &[stencil], Sink { to: y, add: false });
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) {
        let stencils = Stencil::input_gradient(Grid::of(dy), Grid::of(dx.to), w.kernel, conv);
        self.correlate(dy, View { weight: w, direction: Direction::Transposed }, &stencils, dx);
    }

    fn correlate(&mut self, x: Map, view: View, stencils: &[Stencil], y: Sink<Map>) {
        let (gx, gy, level) = (Grid::of(x), Grid::of(y.to), self.level);
        let layer = &mut self.layers[view.weight.layer];
        let [from, to] = self.memory.apart([x.range(), y.to.range()]);
        if layer.mask_density() < SPARSE_BELOW {
            let index = layer.indices.get(view, gx, stencils, &layer.mask);
            sparse::correlate(level, index, &layer.effective, (from, gx), stencils, (to, gy), y.add);
        } else {
            let packed = dense::pack(view, stencils, &layer.effective);
            dense::correlate(level, &packed, (from, gx), stencils, (to, gy), y.add);
        }
    }

    pub(super) fn convolve_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) {
        let (gx, gy, level) = (Grid::of(x), Grid::of(dy), self.level);
        let stencil = Stencil::forward(gx, gy, w.kernel, conv);
        let layer = &mut self.layers[w.layer];
        let [x, dy, dw] = self.memory.apart([x.range(), dy.range(), w.grad.range()]);
        if self.step.extent == Extent::Active && layer.mask_density() < SPARSE_BELOW {
            let view = View { weight: w, direction: Direction::Forward };
            let index = layer.indices.get(view, gx, std::slice::from_ref(&stencil), &layer.mask);
            weight_grad::active(level, index, &stencil, (x, gx), (dy, gy), dw, add);
        } else {
            weight_grad::dense(level, w, &stencil, (x, gx), (dy, gy), dw, add);
        }
    }
}
