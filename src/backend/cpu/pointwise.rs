//! Everything that treats each value alone: one loop over planes, given what to do with a vector.

use rayon::prelude::*;

use super::Cpu;
use super::grid::{Grid, Write};
use super::memory::Place;
use super::simd::{LANES, Lanes, Level};
use crate::backend::{Map, Sink};

/// A function of `N` values.
pub(super) trait Pointwise<const N: usize>: Copy + Send + Sync {
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn apply<L: Lanes>(self, x: [L; N]) -> L;
}

#[derive(Clone, Copy)]
pub(super) struct Identity;
#[derive(Clone, Copy)]
pub(super) struct Rectify;
#[derive(Clone, Copy)]
pub(super) struct RectifyGrad;
#[derive(Clone, Copy)]
pub(super) struct Sum;
#[derive(Clone, Copy)]
pub(super) struct Offset(pub(super) f32);

impl Pointwise<1> for Identity {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x]: [L; 1]) -> L {
        x
    }
}

impl Pointwise<1> for Rectify {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x]: [L; 1]) -> L {
        // SAFETY: the caller's.
        unsafe { L::splat(0.0).max(x) }
    }
}

/// (y, dy) -> dx
impl Pointwise<2> for RectifyGrad {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [y, dy]: [L; 2]) -> L {
        // SAFETY: the caller's.
        unsafe { dy.where_positive(y) }
    }
}

impl Pointwise<2> for Sum {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [a, b]: [L; 2]) -> L {
        // SAFETY: the caller's.
        unsafe { a.add(b) }
    }
}

impl Pointwise<1> for Offset {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, [x]: [L; 1]) -> L {
        // SAFETY: the caller's.
        unsafe { x.add(L::splat(self.0)) }
    }
}

/// One plane: y = f(x), or y += f(x). All maps have one shape and number of lanes; their halos may differ.
pub(super) fn plane<const N: usize, P: Pointwise<N>>(
    level: Level,
    f: P,
    x: [(&[f32], Grid); N],
    y: &mut [f32],
    gy: Grid,
    write: Write,
) {
    debug_assert!(x.iter().all(|(x, g)| x.len() == g.plane) && y.len() == gy.plane);
    match level {
        // SAFETY: `Level::detect` found the instruction set.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(f, x, y, gy, write) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(f, x, y, gy, write) },
        // SAFETY: arrays need no instruction set.
        _ => unsafe { rows::<[f32; LANES], N, P>(f, x, y, gy, write) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn avx512<const N: usize, P: Pointwise<N>>(f: P, x: [(&[f32], Grid); N], y: &mut [f32], gy: Grid, write: Write) {
    // SAFETY: this function has the feature.
    unsafe { rows::<super::simd::x86::Avx512, N, P>(f, x, y, gy, write) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const N: usize, P: Pointwise<N>>(f: P, x: [(&[f32], Grid); N], y: &mut [f32], gy: Grid, write: Write) {
    // SAFETY: this function has the feature.
    unsafe { rows::<super::simd::x86::Avx2, N, P>(f, x, y, gy, write) }
}

#[inline(always)]
unsafe fn rows<L: Lanes, const N: usize, P: Pointwise<N>>(
    f: P,
    x: [(&[f32], Grid); N],
    y: &mut [f32],
    gy: Grid,
    write: Write,
) {
    let (runs, vectors) = gy.runs();
    let width = vectors * LANES;
    for i in 0..runs {
        let from = x.map(|(x, g)| x[g.pixel(i, 0)..][..width].as_ptr());
        let to = y[gy.pixel(i, 0)..][..width].as_mut_ptr();
        for at in (0..width).step_by(LANES) {
            // SAFETY: `at` + 16 <= width, the length of the slices just taken; the instruction set is the caller's.
            unsafe {
                let value = f.apply(from.map(|p| L::load(p.add(at))));
                match write {
                    Write::Add => value.add(L::load(to.add(at))).store(to.add(at)),
                    Write::Set => value.store(to.add(at)),
                    Write::Stream => value.stream(to.add(at)),
                }
            }
        }
    }
    // SAFETY: the instruction set is the caller's.
    unsafe { L::fence() }
    if !write.adds() {
        gy.clear_halo(y);
    }
}

impl Cpu {
    /// y = f(x) on whole maps of one or two inputs; `f` may depend on the channel.
    pub(super) fn pointwise<const N: usize, P: Pointwise<N>>(
        &mut self,
        x: [Map; N],
        y: Sink<Map>,
        f: impl Fn(usize) -> P + Sync,
    ) {
        let level = self.level;
        let grids = x.map(Grid::of);
        let gy = Grid::of(y.to);
        let input = |i: usize| x.get(i).map_or(0..0, |map| map.range());
        let [y_values, a, b] = self.memory.apart([y.to.range(), input(0), input(1)]);
        let inputs = [&*a, &*b];
        let tasks = y_values.par_chunks_mut(gy.plane).with_min_len(gy.planes_per_task()).enumerate();
        tasks.for_each(|(p, to)| {
            let from = std::array::from_fn(|i| (&inputs[i][p * grids[i].plane..][..grids[i].plane], grids[i]));
            plane(level, f(p % gy.shape.c), from, to, gy, gy.write(y.add));
        });
    }
}
