//! The CPU's memory: one run of floats on cache-line boundaries, parameters first, then the arena.

use std::collections::TryReserveError;
use std::ops::Range;

use super::grid::Grid;
use super::simd::LANES;
use crate::backend::{Map, Span};

/// A vector's worth of floats where it can be loaded from one cache line.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

#[derive(Default)]
pub(crate) struct Memory {
    lines: Vec<Line>,
}

/// Anything that has a place.
pub(crate) trait Place: Copy {
    fn range(self) -> Range<usize>;
}

impl Place for Span {
    fn range(self) -> Range<usize> {
        self.at..self.at + self.len
    }
}

impl Place for Map {
    fn range(self) -> Range<usize> {
        self.at..self.at + Grid::of(self).len()
    }
}

/// Asks for pages of 2 MiB: a tile looks at a row of every channel, each on a page of its own where pages are small.
#[cfg(target_os = "linux")]
fn use_huge_pages(memory: &mut [std::mem::MaybeUninit<Line>]) {
    const PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if start < end {
        // SAFETY: whole pages inside memory of our own, whose contents the advice leaves alone. A system that refuses has said no more
        // than that pages stay small.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn use_huge_pages(_: &mut [std::mem::MaybeUninit<Line>]) {}

impl Memory {
    /// Grows to `len` floats, the new ones 0; fails where the allocator does.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<(), TryReserveError> {
        let more = len.div_ceil(LANES).saturating_sub(self.lines.len());
        self.lines.try_reserve_exact(more)?;
        use_huge_pages(self.lines.spare_capacity_mut());
        self.lines.resize(self.lines.len() + more, bytemuck::Zeroable::zeroed());
        Ok(())
    }

    fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.lines)
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    pub(crate) fn get(&self, place: impl Place) -> &[f32] {
        &self.floats()[place.range()]
    }

    pub(crate) fn get_mut(&mut self, place: impl Place) -> &mut [f32] {
        &mut self.floats_mut()[place.range()]
    }

    /// Several places at once, to read some and write others.
    pub(crate) fn apart<const N: usize>(&mut self, places: [Range<usize>; N]) -> [&mut [f32]; N] {
        self.floats_mut().get_disjoint_mut(places).expect("the plan keeps what is alive together apart")
    }
}
