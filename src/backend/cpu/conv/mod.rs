//! Direct convolutions in the blocked layout: no im2col, no borders to treat.
//!
//! Forward and input gradient are the same thing, a [`Stencil`]: each output pixel is a weighted sum of input pixels at fixed
//! offsets. [`dense`] runs it with every weight, [`sparse`] with those of an index, both also on a [`single`] image.

mod dense;
mod single;
mod sparse;
mod tiles;
mod weight_grad;

pub(super) use dense::PackedWeights;
pub(super) use sparse::SparseIndex;

use rayon::prelude::*;

use super::Cpu;
use super::grid::Grid;
use super::masks::Layer;
use super::memory::Place;
use super::simd::{LANES, Lanes, Level};
use crate::backend::{BatchNorm, Conv, Extent, Map, Sink, Weight};

/// Below this density of M a layer runs on its index, above on the dense kernels.
///
/// Measured by `cigl bench kernels` on a Zen 5 machine, over the layers of both networks: where the three passes together take equally
/// long. They hardly depend on the layer: kernels of 3x3 and 1x1 and both strides agree to .1. A nonzero of the sparse kernel costs about
/// 1.5x a weight of the dense one on AVX-512 and 1.2x on AVX2; without vector registers to tile it is never slower. Which kernel runs never
/// changes a bit.
pub fn sparse_below(level: Level) -> f64 {
    match level {
        Level::Avx512 => 0.65,
        Level::Avx2 => 0.8,
        Level::Portable => f64::INFINITY,
    }
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

/// What a sum begins with and what happens to it before it is stored.
#[derive(Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// A map whose values the sums begin with.
    start: Option<(&'a [f32], Grid)>,
    /// Factor and summand of each output channel, at the end.
    affine: Option<&'a [(f32, f32)]>,
    /// A map to add after that.
    residual: Option<(&'a [f32], Grid)>,
    /// And max(0, .) of it all.
    relu: bool,
}

/// The end of [`Around`], for a tile of one output channel.
#[derive(Clone, Copy)]
struct Finish {
    affine: (f32, f32),
    /// The tile's first pixel in the residual, or null.
    residual: *const f32,
    residual_row: usize,
    relu: bool,
}

/// What output (row, col) of a channel has in another map of the output's shape, and the steps to its neighbours there.
fn pixel(
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
    fn of_block(&self, block: usize) -> Self {
        let [start, residual] = [self.start, self.residual]
            .map(|map| map.map(|(values, grid)| (&values[block * grid.block..][..grid.block], grid)));
        Around { start, residual, ..*self }
    }

    /// What follows the sums of an output channel, at the tile that begins at this pixel.
    fn finish(&self, stencil: &Stencil, output: usize, row: usize, col: usize) -> Option<Finish> {
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
    unsafe fn apply<L: Lanes>(&self, sum: L, row: usize, col: usize) -> L {
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

/// A block of images of a correlation's input, and what goes with it.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    around: Around<'a>,
}

/// Divides a correlation into tasks, at least eight where the channels allow it, by the shape alone: `compute` gets a block of images of
/// x, the first of its output channels, and their planes of y. Halos are cleared behind it unless it adds.
fn each_task(
    (x, gx): (&[f32], Grid),
    (y, gy): (&mut [f32], Grid),
    add: bool,
    around: Around,
    compute: impl Fn(Input, usize, &mut [f32]) + Sync,
) {
    let channels = gy.shape.c.div_ceil(8usize.div_ceil(gy.blocks)).next_multiple_of(4);
    y.par_chunks_mut(gy.block).zip(x.par_chunks(gx.block)).enumerate().for_each(|(block, (y, x))| {
        let input = Input { x, around: around.of_block(block) };
        y.par_chunks_mut(channels * gy.plane).enumerate().for_each(|(task, y)| {
            compute(input, task * channels, y);
            if !add {
                y.chunks_mut(gy.plane).for_each(|plane| gy.clear_halo(plane));
            }
        });
    });
}

/// Both kernels add a sum's products in one order, that of inputs and taps: which one runs never changes a bit.
#[allow(clippy::too_many_arguments)]
fn correlate(
    level: Level,
    layer: &mut Layer,
    x: (&[f32], Grid),
    view: View,
    stencils: &[Stencil],
    around: Around,
    y: (&mut [f32], Grid),
    add: bool,
) {
    if layer.runs_sparse(level) {
        sparse::correlate(level, layer, view, x, stencils, around, y, add);
    } else {
        let packed = layer.packed.get(view, stencils, &layer.effective);
        dense::correlate(level, packed, x, stencils, around, y, add);
    }
}

impl Cpu {
    /// y = conv(x, w) + start.
    pub(super) fn convolve(&mut self, x: Map, w: Weight, conv: Conv, start: Option<Map>, y: Map) {
        let view = View { weight: w, direction: Direction::Forward };
        let [from, to, start_at] = [x.range(), y.range(), start.map_or(0..0, |map| map.range())];
        let [from, to, values] = self.memory.apart([from, to, start_at]);
        let around = Around { start: start.map(|map| (&*values, Grid::of(map))), ..Around::default() };
        let (layer, level) = (&mut self.layers[w.layer], self.level);
        let (x, y) = ((&*from, Grid::of(x)), (to, Grid::of(y)));
        let (x, stencil) = single::seen(x, y.1, w.kernel, conv, &mut self.copies);
        correlate(level, layer, x, view, &[stencil], around, y, false);
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
        let view = View { weight: w, direction: Direction::Forward };
        let residual = bn.residual.map_or(0..0, |map| map.range());
        let [from, to, values] = self.memory.apart([x.range(), y.range(), residual]);
        let residual = bn.residual.map(|map| (&*values, Grid::of(map)));
        let around = Around { affine: Some(affine), residual, relu: bn.relu, start: None };
        let (layer, level) = (&mut self.layers[w.layer], self.level);
        let (x, y) = ((&*from, Grid::of(x)), (to, Grid::of(y)));
        let (x, stencil) = single::seen(x, y.1, w.kernel, conv, &mut self.copies);
        correlate(level, layer, x, view, &[stencil], around, y, false);
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) {
        let (gy, gx) = (Grid::of(dy), Grid::of(dx.to));
        let stencils = Stencil::input_gradient(gy, gx, w.kernel, conv);
        let view = View { weight: w, direction: Direction::Transposed };
        let [from, to] = self.memory.apart([dy.range(), dx.to.range()]);
        let (layer, level) = (&mut self.layers[w.layer], self.level);
        correlate(level, layer, (from, gy), view, &stencils, Around::default(), (to, gx), dx.add);
    }

    pub(super) fn convolve_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) {
        let (gx, gy, level) = (Grid::of(x), Grid::of(dy), self.level);
        let stencil = Stencil::forward(gx, gy, w.kernel, conv);
        let layer = &mut self.layers[w.layer];
        let [x, dy, dw] = self.memory.apart([x.range(), dy.range(), w.grad.range()]);
        if self.step.extent == Extent::Active && layer.runs_sparse(level) {
            let view = View { weight: w, direction: Direction::Forward };
            let index = layer.index.index(view, gx, std::slice::from_ref(&stencil), &layer.mask);
            weight_grad::active(level, index, &stencil, (x, gx), (dy, gy), dw, add);
        } else {
            weight_grad::dense(level, w, &stencil, (x, gx), (dy, gy), dw, add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::memory::Line;
    use crate::backend::{Effective, Precision, Span};
    use crate::bitmask::BitMask;
    use crate::rng::{Domain, Stream};
    use crate::shape::Shape;

    fn noise(len: usize, seed: u64) -> Vec<Line> {
        let mut draws = Stream::new(seed, Domain::Weights, 0, 0);
        (0..len.div_ceil(LANES)).map(|_| Line(std::array::from_fn(|_| draws.normal() as f32))).collect()
    }

    /// A map of noise, zeros around it.
    fn map(grid: Grid, seed: u64) -> Vec<Line> {
        let mut lines = noise(grid.len(), seed);
        bytemuck::cast_slice_mut(&mut lines).chunks_mut(grid.plane).for_each(|plane| grid.clear_halo(plane));
        lines
    }

    /// What either kernel makes of a layer: y, dx and dw, after something that was there before.
    fn passes(level: Level, sparse: bool, [c, o, k, side, stride]: [usize; 5]) -> [Vec<f32>; 3] {
        let conv = Conv { stride, padding: k / 2 };
        let gx = Grid::new(Shape::images(20, c, side, side + 1), k / 2);
        let size = |size: usize| (size + 2 * conv.padding - k) / stride + 1;
        let gy = Grid::new(Shape::images(20, o, size(side), size(side + 1)), k / 2);
        let len = o * k * k * c;
        let weight = Weight {
            layer: 0,
            value: Span::default(),
            grad: Span { at: 0, len },
            out_channels: o,
            in_channels: c,
            kernel: [k, k],
        };
        let weight = Weight { value: Span { at: 0, len }, ..weight };
        let mut layer = Layer::new(weight);
        let mut draws = Stream::new(3, Domain::InitialMask, 0, 0);
        layer.set_mask(BitMask::from_fn(len, |_| draws.uniform() < 0.3));
        let values: Vec<f32> = bytemuck::cast_slice(&noise(len, 4))[..len].to_vec();
        layer.apply(Effective::Deterministic, &values, None, Precision::F32, level);
        let (x, dy) = (map(gx, 1), map(gy, 2));
        let [x, dy] = [&x, &dy].map(|lines| bytemuck::cast_slice::<_, f32>(lines));
        let [mut y, mut dx] = [map(gy, 5), map(gx, 6)];
        let mut dw = vec![0.5; len];

        let forward = Stencil::forward(gx, gy, [k, k], conv);
        let stencils = [std::slice::from_ref(&forward).to_vec(), Stencil::input_gradient(gy, gx, [k, k], conv)];
        for (direction, (from, gf), stencils, (to, gt)) in [
            (Direction::Forward, (x, gx), &stencils[0], (&mut y, gy)),
            (Direction::Transposed, (dy, gy), &stencils[1], (&mut dx, gx)),
        ] {
            let (view, to) = (View { weight, direction }, (bytemuck::cast_slice_mut(to), gt));
            if sparse {
                sparse::correlate(level, &mut layer, view, (from, gf), stencils, Around::default(), to, true);
            } else {
                let packed = layer.packed.get(view, stencils, &layer.effective);
                dense::correlate(level, packed, (from, gf), stencils, Around::default(), to, true);
            }
        }
        if sparse {
            let view = View { weight, direction: Direction::Forward };
            let index = layer.index.index(view, gx, std::slice::from_ref(&forward), &layer.mask);
            weight_grad::active(level, index, &forward, (x, gx), (dy, gy), &mut dw, true);
        } else {
            weight_grad::dense(level, weight, &forward, (x, gx), (dy, gy), &mut dw, true);
        }
        let inside = (0..len).filter(|&i| layer.mask.get(i)).map(|i| dw[i]).collect();
        [bytemuck::cast_slice(&y).to_vec(), bytemuck::cast_slice(&dx).to_vec(), inside]
    }

    #[test]
    fn the_sparse_and_the_dense_kernels_give_the_same_bits_on_every_instruction_set_with_fma() {
        for shape in
            [[3, 5, 3, 7, 1], [33, 20, 3, 8, 1], [8, 9, 3, 9, 2], [17, 6, 1, 5, 1], [6, 18, 1, 8, 2], [2, 3, 5, 11, 3]]
        {
            let bits = |level, sparse| {
                passes(level, sparse, shape).map(|of| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            let mut with_fma = None;
            for level in Level::available() {
                let [sparse, dense] = [true, false].map(|sparse| bits(level, sparse));
                assert!(sparse == dense, "{shape:?}, {level:?}: the kernels differ");
                if level != Level::Portable {
                    assert!(*with_fma.get_or_insert(sparse.clone()) == sparse, "{shape:?}: {level:?} differs");
                }
            }
        }
    }
}
