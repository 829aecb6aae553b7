//! Direct convolutions in the blocked layout: no im2col, no borders to treat.
//!
//! Forward and input gradient are the same thing, a [`Stencil`]: each output pixel is a weighted sum of input pixels at fixed
//! offsets. [`dense`] runs it with every weight, [`sparse`] with those of an index, both also on a [`single`] image.

mod around;
mod correlation;
mod crossover;
mod dense;
mod operand;
mod row_sums;
mod single;
mod sparse;
mod strips;
#[cfg(test)]
mod tests;
mod tiles;
mod weight_grad;

pub(super) use crossover::sparse_below;
pub use crossover::{Crossover, crossovers};
pub(super) use dense::PackedWeights;
pub(super) use sparse::SparseIndex;

use rayon::prelude::*;

use super::Cpu;
use super::batch_norm::{Affine, Moments};
use super::grid::Grid;
use super::masks::Layer;
use super::memory::{Line, Place};
use super::simd::{LANES, Level};
use crate::backend::{self, BatchNorm, Conv, Extent, Map, Product, Sink, Weight};
use crate::shape::Shape;
use around::Around;
use correlation::Correlation;
use operand::{Operand, STRIP};
use row_sums::RowSums;
use weight_grad::WeightGrad;

/// Whether products of stride 1 form normalised operands of this shape rather than read stored ones: maps that no cache holds.
pub(super) fn forms_operands(shape: Shape) -> bool {
    weight_grad::folds_within_blocks(shape)
}

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

    /// From one output to the next, down and right, in another map of the output's shape.
    fn step_in(&self, grid: Grid) -> [usize; 2] {
        if grid.lanes == 1 { self.y_step } else { [grid.row, LANES] }
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
    /// Of the layer, whichever way it is looked at.
    stride: usize,
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

/// An operand as the kernels of a layer read it.
fn operand<'a>(
    x: backend::Operand,
    values: &'a [f32],
    channels: &'a [Affine],
    weight: Weight,
    conv: Conv,
) -> Operand<'a> {
    let grid = Grid::of(x.map());
    match x {
        backend::Operand::Stored(_) => Operand::stored(values, grid),
        backend::Operand::Normalised(_) => {
            let rows = conv.stride * (STRIP - 1) + weight.kernel[0];
            Operand::formed(values, grid, channels, conv.padding, rows)
        }
    }
}

/// The first pixel of the first image, of every output.
fn first_pixel(level: Level, layer: &mut Layer, x: Operand, view: View, stencil: &Stencil, around: Around) -> Vec<f32> {
    let pixel = Grid::new(Shape::images(1, view.outputs(), 1, 1), 0);
    let stencil = Stencil { rows: 1, cols: 1, y_at: 0, y_step: [LANES, LANES], ..stencil.clone() };
    let mut values = vec![Line::default(); view.outputs()];
    let to = (bytemuck::cast_slice_mut(&mut values), pixel);
    Correlation::new(level, layer, x, view, &[stencil], around, to, false).run_all();
    values.iter().map(|images| images.0[0]).collect()
}

impl Cpu {
    /// What batch norm does to each channel of an operand that is to be formed.
    fn affine_of(&self, x: backend::Operand) -> Vec<Affine> {
        match x {
            backend::Operand::Stored(_) => vec![],
            backend::Operand::Normalised(bn) => self.batch_affine(&bn),
        }
    }

    /// y = conv(x, w) + residual, and the statistics of y.
    pub(super) fn convolve(&mut self, product: &Product, y: Map) {
        let &Product { x, weight, conv, residual, .. } = product;
        let (affine, gy) = (self.affine_of(x), Grid::of(y));
        let ranges = [x.map().range(), y.range(), residual.map_or(0..0, |map| map.range())];
        let [from, to, values] = self.memory.apart(ranges);
        let x = operand(x, from, &affine, weight, conv);
        let (x, stencil) = single::seen(x, gy, weight.kernel, conv, &mut self.copies);
        let view = View { weight, stride: conv.stride, direction: Direction::Forward };
        let around = Around { start: residual.map(|map| (&*values, Grid::of(map))), ..Around::default() };
        let (layer, level) = (&mut self.layers[weight.layer], self.level);
        let Some(bn) = product.statistics else {
            Correlation::new(level, layer, x, view, &[stencil], around, (to, gy), false).run_all();
            return;
        };
        let shifts = first_pixel(level, layer, x, view, &stencil, around);
        let mut sums = vec![[Line::default(); 2]; gy.blocks * gy.shape.c * gy.shape.h];
        let rows = RowSums::new(&shifts, &mut sums, gy.shape.h);
        let around = Around { rows: Some(rows), ..around };
        Correlation::new(level, layer, x, view, &[stencil], around, (to, gy), false).run_all();
        let of_channel = |c: usize| {
            let rows_of = |b: usize| &sums[(b * gy.shape.c + c) * gy.shape.h..][..gy.shape.h];
            Moments::of_rows(shifts[c], gy, rows_of)
        };
        let moments: Vec<_> = (0..gy.shape.c).into_par_iter().map(of_channel).collect();
        self.record_statistics(&bn, &moments);
    }

    /// y = affine(conv(x, w)), with the residual and the ReLU of `bn` behind it, in one pass.
    pub(super) fn convolve_and_normalise(
        &mut self,
        x: Map,
        w: Weight,
        conv: Conv,
        affine: &[(f32, f32)],
        bn: &BatchNorm,
        y: Map,
    ) {
        let view = View { weight: w, stride: conv.stride, direction: Direction::Forward };
        let residual = bn.residual.map_or(0..0, |map| map.range());
        let [from, to, values] = self.memory.apart([x.range(), y.range(), residual]);
        let residual = bn.residual.map(|map| (&*values, Grid::of(map)));
        let around = Around { affine: Some(affine), residual, relu: bn.relu, ..Around::default() };
        let (layer, level) = (&mut self.layers[w.layer], self.level);
        let x = Operand::stored(from, Grid::of(x));
        let (x, stencil) = single::seen(x, Grid::of(y), w.kernel, conv, &mut self.copies);
        Correlation::new(level, layer, x, view, &[stencil], around, (to, Grid::of(y)), false).run_all();
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) {
        let (gy, gx) = (Grid::of(dy), Grid::of(dx.to));
        let stencils = Stencil::input_gradient(gy, gx, w.kernel, conv);
        let view = View { weight: w, stride: conv.stride, direction: Direction::Transposed };
        let [from, to] = self.memory.apart([dy.range(), dx.to.range()]);
        let (layer, level) = (&mut self.layers[w.layer], self.level);
        let dy = Operand::stored(from, gy);
        Correlation::new(level, layer, dy, view, &stencils, Around::default(), (to, gx), dx.add).run_all();
    }

    /// dw and, if it is asked for, dx. A block of images gives to both before the next one's turn: what they read of dy is in cache the
    /// second time.
    pub(super) fn convolve_grad(
        &mut self,
        x: backend::Operand,
        dy: Map,
        w: Weight,
        conv: Conv,
        add: bool,
        dx: Option<Sink<Map>>,
    ) {
        let (affine, gy, level) = (self.affine_of(x), Grid::of(dy), self.level);
        let places = [x.map().range(), dy.range(), w.grad.range(), dx.map_or(0..0, |dx| dx.to.range())];
        let [from, dy, dw, to] = self.memory.apart(places);
        let (x, dy) = (operand(x, from, &affine, w, conv), &*dy);
        let layer = &mut self.layers[w.layer];
        let forward = Stencil::forward(x.grid(), gy, w.kernel, conv);
        let view = View { weight: w, stride: conv.stride, direction: Direction::Forward };
        let dx = dx.map(|dx| {
            let gx = Grid::of(dx.to);
            let stencils = Stencil::input_gradient(gy, gx, w.kernel, conv);
            let view = View { direction: Direction::Transposed, ..view };
            let dy = Operand::stored(dy, gy);
            Correlation::new(level, layer, dy, view, &stencils, Around::default(), (to, gx), dx.add)
        });
        let index = (self.step.extent == Extent::Active && layer.runs_sparse(level, conv.stride))
            .then(|| layer.index.index(level, view, x.grid(), std::slice::from_ref(&forward), &layer.mask));
        let grad = WeightGrad::new(level, w, index, &forward, x, (dy, gy));
        let sums = match &dx {
            Some(dx) => grad.run_beside(dx.per_block(), |task| {
                // SAFETY: each is run once.
                unsafe { dx.run(task) }
            }),
            None => grad.run_beside(0, |_| ()),
        };
        grad.add_up(&sums, dw, add);
    }
}
