//! Pooling.

use rayon::prelude::*;

use super::Cpu;
use super::grid::Grid;
use super::memory::Place;
use super::simd::LANES;
use crate::backend::{Conv, Map, Sink};

/// A pixel of the images that lie side by side.
fn pixel<const IMAGES: usize>(plane: &[f32], at: usize) -> &[f32; IMAGES] {
    plane[at..at + IMAGES].try_into().expect("the slice has a pixel's length")
}

fn pixel_mut<const IMAGES: usize>(plane: &mut [f32], at: usize) -> &mut [f32; IMAGES] {
    (&mut plane[at..at + IMAGES]).try_into().expect("the slice has a pixel's length")
}

/// The pixels that the window of output (i, j) covers, in row order.
fn window(grid: Grid, size: usize, conv: Conv, i: usize, j: usize) -> impl Iterator<Item = usize> {
    let inside = move |out: usize, extent: usize| {
        let from = out * conv.stride;
        from.max(conv.padding)..(from + size).min(extent + conv.padding)
    };
    inside(i, grid.shape.h)
        .flat_map(move |y| inside(j, grid.shape.w).map(move |x| grid.pixel(y - conv.padding, x - conv.padding)))
}

/// The largest value of a window and where it is first found, lane by lane.
fn maximum<const IMAGES: usize>(
    plane: &[f32],
    pixels: impl Iterator<Item = usize>,
) -> ([f32; IMAGES], [usize; IMAGES]) {
    let (mut best, mut at) = ([f32::NEG_INFINITY; IMAGES], [usize::MAX; IMAGES]);
    for from in pixels {
        for (lane, &x) in pixel::<IMAGES>(plane, from).iter().enumerate() {
            // NaN wins over everything, so that a diverged value is not hidden.
            if x > best[lane] || at[lane] == usize::MAX || x.is_nan() {
                (best[lane], at[lane]) = (x, from);
            }
        }
    }
    (best, at)
}

/// The maxima of the windows of one plane.
fn maxima<const IMAGES: usize>((x, gx): (&[f32], Grid), size: usize, conv: Conv, (y, gy): (&mut [f32], Grid)) {
    for i in 0..gy.shape.h {
        for j in 0..gy.shape.w {
            *pixel_mut::<IMAGES>(y, gy.pixel(i, j)) = maximum(x, window(gx, size, conv, i, j)).0;
        }
    }
}

/// The sum of the pixels of one plane, in row order.
fn sum<const IMAGES: usize>(x: &[f32], grid: Grid) -> [f32; IMAGES] {
    let mut sum = [0.0; IMAGES];
    for i in 0..grid.shape.h {
        for pixel in x[grid.pixel(i, 0)..][..grid.shape.w * IMAGES].chunks_exact(IMAGES) {
            sum.iter_mut().zip(pixel).for_each(|(s, x)| *s += x);
        }
    }
    sum
}

impl Cpu {
    pub(super) fn pool_max(&mut self, x: Map, size: usize, conv: Conv, y: Map) {
        let (gx, gy) = (Grid::of(x), Grid::of(y));
        let [x, y] = self.memory.apart([x.range(), y.range()]);
        y.par_chunks_mut(gy.plane).with_min_len(gy.planes_per_task()).zip(x.par_chunks(gx.plane)).for_each(|(y, x)| {
            match gy.lanes {
                1 => maxima::<1>((x, gx), size, conv, (y, gy)),
                _ => maxima::<LANES>((x, gx), size, conv, (y, gy)),
            }
            gy.clear_halo(y);
        });
    }

    pub(super) fn pool_max_grad(&mut self, x: Map, dy: Map, size: usize, conv: Conv, dx: Sink<Map>) {
        let (gx, gy, gdx) = (Grid::of(x), Grid::of(dy), Grid::of(dx.to));
        let [x, dy, to] = self.memory.apart([x.range(), dy.range(), dx.to.range()]);
        to.par_chunks_mut(gdx.plane)
            .with_min_len(gdx.planes_per_task())
            .zip(x.par_chunks(gx.plane).zip(dy.par_chunks(gy.plane)))
            .for_each(|(to, (x, dy))| {
                if !dx.add {
                    to.fill(0.0);
                }
                for i in 0..gy.shape.h {
                    for j in 0..gy.shape.w {
                        let (_, at) = maximum::<LANES>(x, window(gx, size, conv, i, j));
                        for (lane, at) in at.into_iter().enumerate() {
                            let (row, col) = (at / gx.row - gx.halo, at % gx.row / LANES - gx.halo);
                            to[gdx.pixel(row, col) + lane] += dy[gy.pixel(i, j) + lane];
                        }
                    }
                }
            });
    }

    pub(super) fn pool_average(&mut self, x: Map, y: Map) {
        let (gx, gy) = (Grid::of(x), Grid::of(y));
        let scale = 1.0 / gx.shape.pixels() as f32;
        let [x, y] = self.memory.apart([x.range(), y.range()]);
        y.par_chunks_mut(gy.plane).with_min_len(gx.planes_per_task()).zip(x.par_chunks(gx.plane)).for_each(|(y, x)| {
            match gx.lanes {
                1 => *pixel_mut(y, gy.pixel(0, 0)) = sum::<1>(x, gx).map(|s| s * scale),
                _ => *pixel_mut(y, gy.pixel(0, 0)) = sum::<LANES>(x, gx).map(|s| s * scale),
            }
            gy.clear_halo(y);
        });
    }

    pub(super) fn pool_average_grad(&mut self, dy: Map, dx: Sink<Map>) {
        let (gy, gx) = (Grid::of(dy), Grid::of(dx.to));
        let scale = 1.0 / gx.shape.pixels() as f32;
        let [dy, to] = self.memory.apart([dy.range(), dx.to.range()]);
        to.par_chunks_mut(gx.plane).with_min_len(gx.planes_per_task()).zip(dy.par_chunks(gy.plane)).for_each(
            |(to, dy)| {
                let share = pixel::<LANES>(dy, gy.pixel(0, 0)).map(|g| g * scale);
                for i in 0..gx.shape.h {
                    for at in (gx.pixel(i, 0)..gx.pixel(i, gx.shape.w)).step_by(LANES) {
                        let to = pixel_mut(to, at);
                        if dx.add {
                            to.iter_mut().zip(share).for_each(|(t, s)| *t += s);
                        } else {
                            *to = share;
                        }
                    }
                }
                if !dx.add {
                    gx.clear_halo(to);
                }
            },
        );
    }
}
