//! The CPU's memory: one run of floats on cache-line boundaries, parameters first, then the arena.

use std::ops::Range;

use super::grid::Grid;
use super::simd::LANES;
use crate::backend::{Map, Span};
use crate::error::{Error, Result};

/// A vector's worth of floats where it can be loaded from one cache line.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

/// Floats of a small page, the least that a system hands out.
const PAGE: usize = 1024;

/// What nobody has touched yet reads as 0 and takes nothing: the system hands pages out at the first write.
#[derive(Default)]
pub(crate) struct Memory {
    /// What the allocator gave, from before the first cache line on: asked for a larger alignment than its own, it would write the
    /// zeros.
    given: Vec<f32>,
    /// Where the first cache line begins.
    first: usize,
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
fn use_huge_pages(memory: &mut [f32]) {
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
fn use_huge_pages(_: &mut [f32]) {}

impl Memory {
    /// Zeros on cache-line boundaries, none of them touched.
    fn zeros(len: usize) -> Result<Self> {
        let refused = || Error::Resources(format!("{} MiB of memory cannot be had", len.div_ceil(1 << 18)));
        let room = len.checked_add(LANES).ok_or_else(refused)?;
        let mut given = bytemuck::allocation::try_zeroed_vec(room).map_err(|()| refused())?;
        use_huge_pages(&mut given);
        let first = bytemuck::pod_align_to::<f32, Line>(&given).0.len();
        given.truncate(first + len);
        Ok(Memory { given, first })
    }

    /// Grows to `len` floats, the new ones 0; fails where the allocator does.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<()> {
        if len <= self.floats().len() {
            return Ok(());
        }
        let mut grown = Memory::zeros(len)?;
        for (to, from) in grown.floats_mut().chunks_mut(PAGE).zip(self.floats().chunks(PAGE)) {
            // Writing zeros would take the page.
            if from.iter().any(|x| x.to_bits() != 0) {
                to[..from.len()].copy_from_slice(from);
            }
        }
        *self = grown;
        Ok(())
    }

    fn floats(&self) -> &[f32] {
        &self.given[self.first..]
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        &mut self.given[self.first..]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_keeps_what_is_in_it_and_begins_on_a_cache_line() {
        let mut memory = Memory::default();
        let (mut written, mut len) = (vec![], 0);
        for more in [1, 20, 3 * PAGE, 7, 1 << 20] {
            len += more;
            memory.reserve(len).unwrap();
            assert!((memory.floats().as_ptr() as usize).is_multiple_of(size_of::<Line>()));
            let last = Span { at: len - 1, len: 1 };
            // Its bits are not those of 0.
            memory.get_mut(last)[0] = -0.0;
            written.push(len - 1);
            let is_written = |at: &usize| memory.get(Span { at: *at, len: 1 })[0].to_bits() != 0;
            assert_eq!((0..len).filter(is_written).collect::<Vec<_>>(), written);
        }
        memory.reserve(5).unwrap();
        assert_eq!(memory.floats().len(), len, "memory never shrinks");
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_leaves_what_is_there() {
        let mut memory = Memory::zeros(4).unwrap();
        memory.get_mut(Span { at: 3, len: 1 })[0] = 1.0;
        for len in [usize::MAX, usize::MAX / 4, 1 << 60] {
            let error = memory.reserve(len).unwrap_err().to_string();
            assert_eq!(error, format!("{} MiB of memory cannot be had", len.div_ceil(1 << 18)));
        }
        assert_eq!(memory.floats(), [0.0, 0.0, 0.0, 1.0]);
    }

    /// Bytes that the system holds for the mapping in which an address lies, where it says so.
    #[cfg(target_os = "linux")]
    fn resident(at: *const f32) -> Option<usize> {
        let text = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut inside = false;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next()?;
            if let Some((start, end)) = first.split_once('-') {
                let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
                inside = (address(start)?..address(end)?).contains(&(at as usize));
            } else if inside && first == "Rss:" {
                return words.next()?.parse::<usize>().ok().map(|kib| 1024 * kib);
            }
        }
        None
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_nobody_wrote_takes_no_memory_even_after_growing_and_being_read() {
        const LEN: usize = 32 << 20;
        let mut memory = Memory::zeros(LEN / 2).unwrap();
        memory.get_mut(Span { at: LEN / 4, len: 1 })[0] = 1.0;
        memory.reserve(LEN).unwrap();
        assert_eq!(memory.get(Span { at: 0, len: LEN }).iter().sum::<f32>(), 1.0);
        if let Some(bytes) = resident(&memory.floats()[LEN / 4]) {
            assert!((1..=4 << 20).contains(&bytes), "{bytes} bytes are held of {} for one number", 4 * LEN);
        }
    }
}
