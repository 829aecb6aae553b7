//! Batch normalisation. A task of the gradient owns a few channels: their planes are read for the sums and again, from cache, for dx.

use rayon::prelude::*;

use super::Cpu;
use super::grid::{Grid, Write};
use super::memory::{Line, Place};
use super::pointwise::{Identity, Pointwise, RectifyGrad, plane};
use super::simd::{LANES, Lanes, Level, dispatch};
use crate::backend::{BatchNorm, Map, Sink, Span};

/// What x and dy of a task may take of a cache, unless one channel takes more. Its planes are neighbours in memory: small ones by
/// themselves would be read in short runs.
const TASK_BYTES: usize = 512 * 1024;

/// y = a x + b, rectified or not; with a second map x, plus that before.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    a: f32,
    b: f32,
    relu: bool,
}

impl Pointwise<1> for Affine {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x]: [L; 1]) -> L {
        // SAFETY: the caller's.
        unsafe {
            let y = x.fma(L::splat(self.a), L::splat(self.b));
            if self.relu { L::splat(0.0).max(y) } else { y }
        }
    }
}

impl Pointwise<2> for Affine {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x, residual]: [L; 2]) -> L {
        // SAFETY: the caller's.
        unsafe {
            let y = x.fma(L::splat(self.a), L::splat(self.b)).add(residual);
            if self.relu { L::splat(0.0).max(y) } else { y }
        }
    }
}

/// (x, residual, dy) -> dy where the forward result was positive.
#[derive(Clone, Copy)]
struct ResidualGrad(Affine);

impl Pointwise<3> for ResidualGrad {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x, residual, dy]: [L; 3]) -> L {
        // SAFETY: the caller's.
        unsafe {
            let y = x.fma(L::splat(self.0.a), L::splat(self.0.b)).add(residual);
            if self.0.relu { dy.where_positive(y) } else { dy }
        }
    }
}

/// (x, dy) -> dx = slope dy' + curve x + level, dy' being dy where the forward result was positive.
#[derive(Clone, Copy)]
struct AffineGrad {
    forward: Affine,
    slope: f32,
    curve: f32,
    level: f32,
}

impl Pointwise<2> for AffineGrad {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x, dy]: [L; 2]) -> L {
        // SAFETY: the caller's.
        unsafe {
            let dy = gated(self.forward, x, dy);
            dy.fma(L::splat(self.slope), x.fma(L::splat(self.curve), L::splat(self.level)))
        }
    }
}

/// dy where relu let x pass: the forward arithmetic again, so that both agree on every value.
#[inline(always)]
unsafe fn gated<L: Lanes>(forward: Affine, x: L, dy: L) -> L {
    // SAFETY: the caller's.
    unsafe { if forward.relu { dy.where_positive(x.fma(L::splat(forward.a), L::splat(forward.b))) } else { dy } }
}

/// What tells where ReLU let a sum pass, whose gradient the shortcut gets as well.
enum Gate<'a> {
    /// The result.
    Result((&'a [f32], Grid)),
    /// The other term of the sum, which is formed again.
    Residual((&'a [f32], Grid)),
}

/// What the gradient of a batch norm is made of.
struct Gradient<'a> {
    level: Level,
    x: (&'a [f32], Grid),
    /// None where nothing was added: dy is taken as it is.
    gate: Option<Gate<'a>>,
    dy: (&'a [f32], Grid),
}

impl Gradient<'_> {
    /// dy of one block and channel, or what the gate lets pass of it, which `gated` then holds.
    fn plane<'p>(&'p self, block: usize, channel: usize, forward: Affine, gated: &'p mut Vec<f32>) -> &'p [f32] {
        let of = |(values, grid): (&'p [f32], Grid)| (grid.plane_of(values, block, channel), grid);
        let (dy, grid) = of(self.dy);
        let Some(gate) = &self.gate else { return dy };
        gated.resize(grid.plane, 0.0);
        match *gate {
            Gate::Result(y) => plane(self.level, RectifyGrad, [of(y), (dy, grid)], gated, grid, Write::Set),
            Gate::Residual(residual) => {
                let from = [of(self.x), of(residual), (dy, grid)];
                plane(self.level, ResidualGrad(forward), from, gated, grid, Write::Set);
            }
        }
        gated
    }
}

/// Two sums over one channel, in f64 over rows and f32 within.
#[derive(Clone, Copy)]
struct Sums([[f64; LANES]; 2]);

impl Sums {
    /// Adds the sums of a row.
    fn add(&mut self, row: [[f32; LANES]; 2]) {
        for (total, lanes) in self.0.iter_mut().zip(row) {
            total.iter_mut().zip(lanes).for_each(|(t, x)| *t += f64::from(x));
        }
    }

    /// Adds up the images that are there.
    fn total(&self, images: usize) -> [f64; 2] {
        self.0.map(|lanes| lanes[..images].iter().sum())
    }
}

/// Adds up the blocks of images in their order.
fn over_blocks(grid: Grid, part: impl Fn(usize) -> Sums) -> [f64; 2] {
    (0..grid.blocks).fold([0.0; 2], |sums, b| {
        let [s, q] = part(b).total(grid.images(b));
        [sums[0] + s, sums[1] + q]
    })
}

/// Sums of x - shift and of its square, lane by lane. Shifting by a value of the channel keeps the variance exact when the mean is
/// far larger than the spread.
#[inline(always)]
unsafe fn moments<L: Lanes>(x: &[f32], grid: Grid, shift: f32) -> Sums {
    // SAFETY: the caller's.
    unsafe {
        two_sums::<L>(grid, |at| {
            let d = L::load(x[at..at + LANES].as_ptr()).sub(L::splat(shift));
            (d, d)
        })
    }
}

/// Sums of dy' and of dy' (x - mean).
#[inline(always)]
unsafe fn correlations<L: Lanes>(x: &[f32], gx: Grid, dy: &[f32], gy: Grid, forward: Affine, mean: f32) -> Sums {
    let offset = gy.pixel(0, 0) as isize - gx.pixel(0, 0) as isize;
    let skew = gy.row as isize - gx.row as isize;
    // SAFETY: the caller's.
    unsafe {
        two_sums::<L>(gx, |at| {
            let row = (at / gx.row - gx.halo) as isize;
            let there = (at as isize + offset + row * skew) as usize;
            let x = L::load(x[at..at + LANES].as_ptr());
            let dy = gated(forward, x, L::load(dy[there..there + LANES].as_ptr()));
            (dy, x.sub(L::splat(mean)))
        })
    }
}

/// Sums of p and of p q over the pixels of a plane, (p, q) given at each offset.
#[inline(always)]
unsafe fn two_sums<L: Lanes>(grid: Grid, pair: impl Fn(usize) -> (L, L)) -> Sums {
    let mut total = Sums([[0.0; LANES]; 2]);
    // SAFETY: the caller's.
    unsafe {
        for i in 0..grid.shape.h {
            let mut sum = [L::splat(0.0); 2];
            for at in (grid.pixel(i, 0)..grid.pixel(i, grid.shape.w)).step_by(LANES) {
                let (p, q) = pair(at);
                sum = [sum[0].add(p), p.fma(q, sum[1])];
            }
            let mut row = [[0.0; LANES]; 2];
            row.iter_mut().zip(sum).for_each(|(lanes, sum)| sum.store(lanes.as_mut_ptr()));
            total.add(row);
        }
    }
    total
}

/// What normalising with these statistics does to x.
fn affine(mean: f32, inverse_std: f32, scale: f32, shift: f32, relu: bool) -> Affine {
    let a = scale * inverse_std;
    Affine { a, b: shift - mean * a, relu }
}

/// Sums over one channel's pixels: of x minus a value of the channel, and of its square.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    pub(super) shift: f32,
    pub(super) sums: [f64; 2],
}

impl Moments {
    fn of(level: Level, x: &[f32], grid: Grid, channel: usize) -> Self {
        let shift = x[grid.at(0, channel, 0, 0)];
        let sums = over_blocks(grid, |b| {
            dispatch!(level, moments(
                x: &[f32] = grid.plane_of(x, b, channel),
                grid: Grid = grid,
                shift: f32 = shift,
            ) -> Sums)
        });
        Moments { shift, sums }
    }

    /// From the sums of every row of a block, lane by lane.
    pub(super) fn of_rows<'a>(shift: f32, grid: Grid, rows_of: impl Fn(usize) -> &'a [[Line; 2]]) -> Self {
        let sums = over_blocks(grid, |b| {
            let mut part = Sums([[0.0; LANES]; 2]);
            rows_of(b).iter().for_each(|row| part.add(row.map(|line| line.0)));
            part
        });
        Moments { shift, sums }
    }
}

/// What batch norm keeps of one channel's batch, and what that batch moves.
struct Statistics<'a> {
    mean: &'a mut f32,
    inverse_std: &'a mut f32,
    running_mean: &'a mut f32,
    running_variance: &'a mut f32,
}

impl Statistics<'_> {
    /// Takes in a batch of `n` values.
    fn record(self, moments: Moments, n: f64, epsilon: f32, momentum: f32) {
        let mean = moments.sums[0] / n;
        let variance = (moments.sums[1] / n - mean * mean).max(0.0);
        *self.mean = (f64::from(moments.shift) + mean) as f32;
        *self.inverse_std = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
        *self.running_mean += momentum * (*self.mean - *self.running_mean);
        *self.running_variance += momentum * ((variance * n / (n - 1.0)) as f32 - *self.running_variance);
    }
}

impl Cpu {
    /// The statistics alone.
    pub(super) fn take_statistics(&mut self, bn: &BatchNorm) {
        let (grid, level) = (Grid::of(bn.x), self.level);
        let x = self.memory.get(bn.x);
        let moments: Vec<_> = (0..grid.shape.c).into_par_iter().map(|c| Moments::of(level, x, grid, c)).collect();
        self.record_statistics(bn, &moments);
    }

    /// Takes in the moments of every channel.
    pub(super) fn record_statistics(&mut self, bn: &BatchNorm, moments: &[Moments]) {
        let n = (bn.x.shape.n * bn.x.shape.pixels()) as f64;
        let places = [bn.batch.range(), bn.running_mean.range(), bn.running_variance.range()];
        let [batch, running_mean, running_variance] = self.memory.apart(places);
        let (means, inverses) = batch.split_at_mut(bn.x.shape.c);
        let channels = means.iter_mut().zip(inverses).zip(running_mean.iter_mut().zip(running_variance)).zip(moments);
        for (((mean, inverse_std), (running_mean, running_variance)), &moments) in channels {
            let statistics = Statistics { mean, inverse_std, running_mean, running_variance };
            statistics.record(moments, n, bn.epsilon, self.step.statistics_momentum);
        }
    }

    /// What the batch's statistics make of each channel, for operands that are formed where they are read.
    pub(super) fn batch_affine(&self, bn: &BatchNorm) -> Vec<Affine> {
        let [scale, shift, batch] = [bn.scale, bn.shift, bn.batch].map(|span| self.memory.get(span));
        let (mean, inverse_std) = batch.split_at(scale.len());
        (0..scale.len()).map(|c| affine(mean[c], inverse_std[c], scale[c], shift[c], bn.relu)).collect()
    }

    /// Factor and summand of each channel under the running statistics.
    pub(super) fn running_affine(&self, bn: &BatchNorm) -> Vec<(f32, f32)> {
        let read = |span: Span| self.memory.get(span);
        let [scale, shift, mean, variance] = [bn.scale, bn.shift, bn.running_mean, bn.running_variance].map(read);
        let of_channel = |c: usize| {
            let f = affine(mean[c], 1.0 / (variance[c] + bn.epsilon).sqrt(), scale[c], shift[c], bn.relu);
            (f.a, f.b)
        };
        (0..scale.len()).map(of_channel).collect()
    }

    pub(super) fn normalise_by_running(&mut self, bn: &BatchNorm, y: Map) {
        let (affine, relu) = (self.running_affine(bn), bn.relu);
        self.normalise(bn, y, |c| Affine { a: affine[c].0, b: affine[c].1, relu });
    }

    /// By the batch's statistics, which are there.
    pub(super) fn normalise_by_batch(&mut self, bn: &BatchNorm, y: Map) {
        let affine = self.batch_affine(bn);
        self.normalise(bn, y, |c| affine[c]);
        // The batch's statistics say nothing about padding images: a channel that is constant over the batch may scale them by
        // 1 / sqrt(epsilon), layer after layer, until they overflow and infinity times 0 is NaN.
        let grid = Grid::of(y);
        let last = grid.blocks - 1;
        let planes = &mut self.memory.get_mut(y)[last * grid.block..];
        planes.chunks_mut(grid.plane).for_each(|plane| grid.clear_missing(last, plane));
    }

    fn normalise(&mut self, bn: &BatchNorm, y: Map, affine: impl Fn(usize) -> Affine + Sync) {
        let y = Sink { to: y, add: false };
        match bn.residual {
            Some(residual) => self.pointwise([bn.x, residual], y, affine),
            None => self.pointwise([bn.x], y, affine),
        }
    }

    /// The same of what is in `y` already; slow, for precisions that are there to compare with.
    pub(super) fn normalise_in_place(&mut self, affine: &[(f32, f32)], bn: &BatchNorm, y: Map) {
        let (gy, level) = (Grid::of(y), self.level);
        let x = self.memory.get(y).to_vec();
        let residual = bn.residual.map(|map| (self.memory.get(map).to_vec(), Grid::of(map)));
        for (p, to) in self.memory.get_mut(y).chunks_mut(gy.plane).enumerate() {
            let (a, b) = affine[p % gy.shape.c];
            let (f, x) = (Affine { a, b, relu: bn.relu }, (&x[p * gy.plane..][..gy.plane], gy));
            match &residual {
                Some((values, g)) => {
                    plane(level, f, [x, (&values[p * g.plane..][..g.plane], *g)], to, gy, Write::Set);
                }
                None => plane(level, f, [x], to, gy, Write::Set),
            }
        }
    }

    /// With `y`, what ReLU let pass of a sum is read off that result; else the sum is formed again.
    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        y: Option<Map>,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        [dscale, dshift]: [Sink<Span>; 2],
    ) {
        let (gx, gy, level) = (Grid::of(bn.x), Grid::of(dy), self.level);
        let (gdx, gdr) = (dx.map_or(gx, |sink| Grid::of(sink.to)), dresidual.map_or(gx, |sink| Grid::of(sink.to)));
        // What tells where the gradient passes: the result or the other term of the sum.
        let telling = y.or(bn.residual);
        let [x, dy, dx_values, scale, shift, batch, ds, db, told, dr] = self.memory.apart([
            bn.x.range(),
            dy.range(),
            dx.map_or(0..0, |sink| sink.to.range()),
            bn.scale.range(),
            bn.shift.range(),
            bn.batch.range(),
            dscale.to.range(),
            dshift.to.range(),
            telling.map_or(0..0, |map| map.range()),
            dresidual.map_or(0..0, |sink| sink.to.range()),
        ]);
        let (x, dy, told) = (&*x, &*dy, &*told);
        let gate = match (y, bn.residual) {
            (Some(y), _) => Some(Gate::Result((told, Grid::of(y)))),
            (None, residual) => residual.map(|residual| Gate::Residual((told, Grid::of(residual)))),
        };
        let gradient = Gradient { level, x: (x, gx), gate, dy: (dy, gy) };
        let (mean, inverse) = batch.split_at(gx.shape.c);
        let m = (gx.shape.n * gx.shape.pixels()) as f64;
        let mut channels: Vec<_> = gdx.channels_mut(dx_values).into_iter().zip(gdr.channels_mut(dr)).collect();
        let fitting = TASK_BYTES / (gx.blocks * (gx.plane + gy.plane) * size_of::<f32>());
        let width = fitting.min(gx.shape.c / 8).max(1);
        let tasks = channels.par_chunks_mut(width).zip(ds.par_chunks_mut(width).zip(db.par_chunks_mut(width)));
        tasks.enumerate().for_each(|(task, (channels, (ds, db)))| {
            let forward = |i: usize| {
                let c = task * width + i;
                affine(mean[c], inverse[c], scale[c], shift[c], bn.relu)
            };
            // Behind a sum the gradient has passed ReLU already.
            let before = |i: usize| Affine { relu: bn.relu && bn.residual.is_none(), ..forward(i) };
            let mut gated = Vec::new();
            let mut sums = vec![[0.0; 2]; channels.len()];
            for b in 0..gx.blocks {
                for (i, (_, dresidual_planes)) in channels.iter_mut().enumerate() {
                    let c = task * width + i;
                    let dy = gradient.plane(b, c, forward(i), &mut gated);
                    if let Some(to) = dresidual_planes.get_mut(b) {
                        let add = dresidual.is_some_and(|sink| sink.add);
                        plane(level, Identity, [(dy, gy)], to, gdr, gdr.write(add));
                    }
                    let part = dispatch!(level, correlations(
                        x: &[f32] = gx.plane_of(x, b, c),
                        gx: Grid = gx,
                        dy: &[f32] = dy,
                        gy: Grid = gy,
                        forward: Affine = before(i),
                        mean: f32 = mean[c],
                    ) -> Sums);
                    sums[i].iter_mut().zip(part.total(gx.images(b))).for_each(|(sum, part)| *sum += part);
                }
            }
            let grads = sums.iter().enumerate().map(|(i, sums)| {
                let c = task * width + i;
                let inverse_std = f64::from(inverse[c]);
                let (sum, product) = (sums[0], sums[1] * inverse_std);
                ds[i] = if dscale.add { ds[i] } else { 0.0 } + product as f32;
                db[i] = if dshift.add { db[i] } else { 0.0 } + sum as f32;
                // dx = a (dy' - sum / m - x^ product / m), as a linear function of dy' and x.
                let a = f64::from(scale[c]) * inverse_std;
                let curve = -a * inverse_std * product / m;
                let level_term = -a * sum / m - curve * f64::from(mean[c]);
                AffineGrad { forward: before(i), slope: a as f32, curve: curve as f32, level: level_term as f32 }
            });
            let grads: Vec<AffineGrad> = grads.collect();
            for b in 0..gx.blocks {
                for (i, (dx_planes, _)) in channels.iter_mut().enumerate() {
                    let (c, Some(to)) = (task * width + i, dx_planes.get_mut(b)) else { continue };
                    let dy = gradient.plane(b, c, forward(i), &mut gated);
                    let from = [(gx.plane_of(x, b, c), gx), (dy, gy)];
                    plane(level, grads[i], from, to, gdx, gdx.write(dx.is_some_and(|sink| sink.add)));
                    gdx.clear_missing(b, to);
                }
            }
        });
    }
}
