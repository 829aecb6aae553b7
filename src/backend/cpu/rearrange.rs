//! Values between the logical order and the blocked layout: host copies, flattening, and dropout, whose draws follow logical order.

use rayon::prelude::*;

use super::Cpu;
use super::grid::Grid;
use super::memory::Place;
use super::simd::LANES;
use crate::backend::{Map, Sink};
use crate::rng::{self, Domain};

impl Cpu {
    pub(super) fn scatter_images(&mut self, to: Map, values: &[f32]) {
        let grid = Grid::of(to);
        let s = grid.shape;
        assert_eq!(values.len(), s.len(), "{s} takes {} values", s.len());
        let planes = self.memory.get_mut(to).par_chunks_mut(grid.plane).with_min_len(grid.planes_per_task());
        planes.enumerate().for_each(|(p, plane)| {
            let (b, c) = (p / s.c, p % s.c);
            plane.fill(0.0);
            // A row of all images, which L1 holds, before the next.
            for (i, lane) in (0..s.h).flat_map(|i| (0..grid.images(b)).map(move |lane| (i, lane))) {
                let image = &values[((b * grid.lanes + lane) * s.c + c) * s.pixels()..][..s.pixels()];
                let to = plane[grid.pixel(i, 0) + lane..].iter_mut().step_by(grid.lanes);
                to.zip(&image[i * s.w..(i + 1) * s.w]).for_each(|(to, &x)| *to = x);
            }
        });
    }

    pub(super) fn gather_images(&self, from: Map) -> Vec<f32> {
        let grid = Grid::of(from);
        let s = grid.shape;
        let values = self.memory.get(from);
        let mut images = vec![0.0; s.len()];
        images.par_chunks_mut(s.pixels().max(1)).with_min_len(64).enumerate().for_each(|(image, to)| {
            for (i, row) in to.chunks_mut(s.w.max(1)).enumerate() {
                let from = values[grid.at(image / s.c, image % s.c, i, 0)..].iter().step_by(grid.lanes);
                row.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
            }
        });
        images
    }

    /// Without a halo, [C][H][W] in one layout is [C H W] in the other: flattening drops halos and copies.
    pub(super) fn copy_planes_flat(&mut self, x: Map, y: Sink<Map>) {
        let (gx, gy) = (Grid::of(x), Grid::of(y.to));
        let [x, to] = self.memory.apart([x.range(), y.to.range()]);
        to.par_chunks_mut(gy.block).zip(x.par_chunks(gx.block)).for_each(|(to, x)| {
            let places = |g: Grid| {
                let s = g.shape;
                (0..s.c * s.pixels()).map(move |i| {
                    let (c, at) = (i / s.pixels(), i % s.pixels());
                    c * g.plane + g.pixel(at / s.w, at % s.w)
                })
            };
            if !y.add {
                to.chunks_mut(gy.plane).for_each(|plane| gy.clear_halo(plane));
            }
            for (to_at, from_at) in places(gy).zip(places(gx)) {
                for lane in 0..gx.lanes {
                    let kept = if y.add { to[to_at + lane] } else { 0.0 };
                    to[to_at + lane] = kept + x[from_at + lane];
                }
            }
        });
    }

    /// Element i in (N, C, H, W) order is dropped when draw i % 4 of counter (i / 4, step, site) is below p 2^32.
    pub(super) fn drop_values(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) {
        let (gx, gy, state) = (Grid::of(x), Grid::of(y.to), self.step);
        let s = gx.shape;
        let limit = (f64::from(p) * 4294967296.0) as u64;
        let scale = 1.0 / (1.0 - p);
        let [x, to] = self.memory.apart([x.range(), y.to.range()]);
        let planes = to.par_chunks_mut(gy.plane).with_min_len(gy.planes_per_task()).zip(x.par_chunks(gx.plane));
        planes.enumerate().for_each(|(plane, (to, x))| {
            let (b, c) = (plane / s.c, plane % s.c);
            if !y.add {
                to.fill(0.0);
            }
            for lane in 0..gx.images(b) {
                let first = ((b * LANES + lane) * s.c + c) * s.pixels();
                let (mut block, mut draws) = (usize::MAX, [0; 4]);
                for at in 0..s.pixels() {
                    let i = first + at;
                    if i / 4 != block {
                        block = i / 4;
                        let counter = [block as u32, state.step, site, Domain::Dropout as u32];
                        draws = rng::philox(rng::key(state.seed), counter);
                    }
                    if u64::from(draws[i % 4]) >= limit {
                        let (row, col) = (at / s.w, at % s.w);
                        to[gy.pixel(row, col) + lane] += x[gx.pixel(row, col) + lane] * scale;
                    }
                }
            }
        });
    }
}
