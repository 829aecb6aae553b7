//! Batch normalisation. A task owns a channel: its planes are read for the statistics and again, from cache, to be normalised.

use rayon::prelude::*;

use super::Cpu;
use super::grid::{Grid, Write};
use super::memory::{Line, Place};
use super::pointwise::{Identity, Pointwise, plane};
use super::simd::{LANES, Lanes, Level, dispatch};
use crate::backend::{BatchNorm, Map, Sink, Span};

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
    /// With `anew` by statistics that are taken first, else by those that are there.
    pub(super) fn normalise(&mut self, bn: &BatchNorm, y: Map, anew: bool) {
        let (gx, gy, level, momentum) = (Grid::of(bn.x), Grid::of(y), self.level, self.step.statistics_momentum);
        let residual_grid = bn.residual.map(Grid::of);
        let [x, y, scale, shift, running_mean, running_variance, batch, residual] = self.memory.apart([
            bn.x.range(),
            y.range(),
            bn.scale.range(),
            bn.shift.range(),
            bn.running_mean.range(),
            bn.running_variance.range(),
            bn.batch.range(),
            bn.residual.map_or(0..0, |residual| residual.range()),
        ]);
        let (x, residual) = (&*x, &*residual);
        let (means, inverses) = batch.split_at_mut(gx.shape.c);
        let n = (gx.shape.n * gx.shape.pixels()) as f64;
        gy.channels_mut(y)
            .into_par_iter()
            .zip(means.par_iter_mut().zip(inverses))
            .zip(running_mean.par_iter_mut().zip(running_variance))
            .enumerate()
            .for_each(|(c, ((planes, (mean, inverse_std)), (running_mean, running_variance)))| {
                if anew {
                    let (mean, inverse_std) = (&mut *mean, &mut *inverse_std);
                    let statistics = Statistics { mean, inverse_std, running_mean, running_variance };
                    statistics.record(Moments::of(level, x, gx, c), n, bn.epsilon, momentum);
                }
                let f = affine(*mean, *inverse_std, scale[c], shift[c], bn.relu);
                for (b, to) in planes.into_iter().enumerate() {
                    let x = (gx.plane_of(x, b, c), gx);
                    match residual_grid {
                        Some(g) => plane(level, f, [x, (g.plane_of(residual, b, c), g)], to, gy, gy.write(false)),
                        None => plane(level, f, [x], to, gy, gy.write(false)),
                    }
                    // The batch's statistics say nothing about padding images: a channel that is constant over the batch may
                    // scale them by 1 / sqrt(epsilon), layer after layer, until they overflow and infinity times 0 is NaN.
                    gy.clear_missing(b, to);
                }
            });
    }

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
        let (y, by_running) = (Sink { to: y, add: false }, |c: usize| Affine { a: affine[c].0, b: affine[c].1, relu });
        match bn.residual {
            Some(residual) => self.pointwise([bn.x, residual], y, by_running),
            None => self.pointwise([bn.x], y, by_running),
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

    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) {
        let (gx, gy, level) = (Grid::of(bn.x), Grid::of(dy), self.level);
        let (gdx, gdr) = (dx.map_or(gx, |sink| Grid::of(sink.to)), dresidual.map_or(gx, |sink| Grid::of(sink.to)));
        let residual_grid = bn.residual.map(Grid::of);
        let [x, dy, dx_values, scale, shift, batch, ds, db, residual, dr] = self.memory.apart([
            bn.x.range(),
            dy.range(),
            dx.map_or(0..0, |sink| sink.to.range()),
            bn.scale.range(),
            bn.shift.range(),
            bn.batch.range(),
            dscale.to.range(),
            dshift.to.range(),
            bn.residual.map_or(0..0, |residual| residual.range()),
            dresidual.map_or(0..0, |sink| sink.to.range()),
        ]);
        let (x, dy, residual) = (&*x, &*dy, &*residual);
        let (mean, inverse) = batch.split_at(gx.shape.c);
        let m = (gx.shape.n * gx.shape.pixels()) as f64;
        let channels: Vec<_> = gdx.channels_mut(dx_values).into_iter().zip(gdr.channels_mut(dr)).collect();
        let channels = channels.into_par_iter().zip(ds.par_iter_mut().zip(db)).enumerate();
        channels.for_each(|(c, ((mut planes, dresidual_planes), (ds, db)))| {
            let mut forward = affine(mean[c], inverse[c], scale[c], shift[c], bn.relu);
            // With a residual, the gradient behind ReLU is needed as such: it is what the shortcut gets.
            let gated: Vec<Vec<f32>> = match residual_grid {
                Some(g) => {
                    let gate = ResidualGrad(forward);
                    forward.relu = false;
                    let block = |b| {
                        let (x, residual) = ((gx.plane_of(x, b, c), gx), (g.plane_of(residual, b, c), g));
                        let mut to = vec![0.0; gy.plane];
                        plane(level, gate, [x, residual, (gy.plane_of(dy, b, c), gy)], &mut to, gy, Write::Set);
                        to
                    };
                    (0..gx.blocks).map(block).collect()
                }
                None => vec![],
            };
            let dy_of = |b: usize| gated.get(b).map_or_else(|| gy.plane_of(dy, b, c), Vec::as_slice);
            for (b, to) in dresidual_planes.into_iter().enumerate() {
                plane(level, Identity, [(dy_of(b), gy)], to, gdr, gdr.write(dresidual.is_some_and(|sink| sink.add)));
            }
            let sums = over_blocks(gx, |b| {
                dispatch!(level, correlations(
                    x: &[f32] = gx.plane_of(x, b, c),
                    gx: Grid = gx,
                    dy: &[f32] = dy_of(b),
                    gy: Grid = gy,
                    forward: Affine = forward,
                    mean: f32 = mean[c],
                ) -> Sums)
            });
            let inverse_std = f64::from(inverse[c]);
            let (sum, product) = (sums[0], sums[1] * inverse_std);
            *ds = if dscale.add { *ds } else { 0.0 } + product as f32;
            *db = if dshift.add { *db } else { 0.0 } + sum as f32;
            // dx = a (dy' - sum / m - x^ product / m), as a linear function of dy' and x.
            let a = f64::from(scale[c]) * inverse_std;
            let curve = -a * inverse_std * product / m;
            let level_term = -a * sum / m - curve * f64::from(mean[c]);
            let f = AffineGrad { forward, slope: a as f32, curve: curve as f32, level: level_term as f32 };
            for (b, to) in planes.iter_mut().enumerate() {
                let from = [(gx.plane_of(x, b, c), gx), (dy_of(b), gy)];
                plane(level, f, from, to, gdx, gdx.write(dx.is_some_and(|sink| sink.add)));
                gdx.clear_missing(b, to);
            }
        });
    }
}
