//! The layout of activations: [N / 16][C][H + 2 halo][W + 2 halo][16], sixteen images innermost, zeros around each channel.
//!
//! A pixel of 16 images is one vector, so a weight is one multiply-add whatever its position, and a kernel's tap is a plain offset,
//! the same for every pixel: nothing is gathered, shifted or branched on at the borders. Images that fill up the last
//! block are never seen: they add nothing to statistics, their gradients are 0, and so is what batch norm makes of them.

use super::simd::LANES;
use crate::backend::Map;
use crate::shape::Shape;

/// Maps of more bytes are written past the caches: whoever reads them next finds little of them there, and memory is spared reading
/// what is overwritten.
const STREAMED_ABOVE: usize = 12 << 20;

/// A plane of a multiple of so many pixels is followed by half as many zeros: otherwise the same pixel of all channels would
/// fall into the same few sets of a cache, and a tile's channels would evict each other.
const SPREAD: usize = 8;

/// How a kernel writes its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Adds them to what is there.
    Add,
    /// Stores them.
    Set,
    /// Stores them past the caches.
    Stream,
}

impl Write {
    pub(crate) fn adds(self) -> bool {
        self == Write::Add
    }
}

/// The sizes of one map in floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) shape: Shape,
    pub(crate) halo: usize,
    /// Blocks of 16 images.
    pub(crate) blocks: usize,
    /// From one row to the next.
    pub(crate) row: usize,
    /// From one channel to the next.
    pub(crate) plane: usize,
    /// From one block of images to the next.
    pub(crate) block: usize,
}

impl Grid {
    pub(crate) fn new(shape: Shape, halo: usize) -> Self {
        let row = (shape.w + 2 * halo) * LANES;
        let mut pixels = (shape.h + 2 * halo) * (shape.w + 2 * halo);
        if pixels.is_multiple_of(SPREAD) {
            pixels += SPREAD / 2;
        }
        let plane = pixels * LANES;
        Grid { shape, halo, blocks: shape.n.div_ceil(LANES), row, plane, block: shape.c * plane }
    }

    /// Some rows of one block of a map, the zeros around included, by themselves.
    pub(crate) fn of_rows(shape: Shape, halo: usize, rows: usize) -> Self {
        let row = (shape.w + 2 * halo) * LANES;
        let plane = rows * row + if (rows * row / LANES).is_multiple_of(SPREAD) { SPREAD / 2 * LANES } else { 0 };
        Grid { shape, halo, blocks: 1, row, plane, block: shape.c * plane }
    }

    pub(crate) fn of(map: Map) -> Self {
        Grid::new(map.shape, map.halo)
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks * self.block
    }

    /// How results get here.
    pub(crate) fn write(&self, add: bool) -> Write {
        match add {
            true => Write::Add,
            false if self.len() * size_of::<f32>() > STREAMED_ABOVE => Write::Stream,
            false => Write::Set,
        }
    }

    /// Offset within a plane of the pixel at row `i`, column `j`.
    pub(crate) fn pixel(&self, i: usize, j: usize) -> usize {
        (i + self.halo) * self.row + (j + self.halo) * LANES
    }

    /// Offset of one value.
    pub(crate) fn at(&self, n: usize, c: usize, i: usize, j: usize) -> usize {
        n / LANES * self.block + c * self.plane + self.pixel(i, j) + n % LANES
    }

    /// Images of block `b` that are there: 16 but in the last.
    pub(crate) fn images(&self, b: usize) -> usize {
        (self.shape.n - b * LANES).min(LANES)
    }

    /// Writes the zeros around one channel, and those behind it.
    pub(crate) fn clear_halo(&self, plane: &mut [f32]) {
        assert!(plane.len() == self.plane);
        // SAFETY: all rows of a plane that is borrowed whole.
        unsafe { self.clear_halo_of_rows(plane.as_mut_ptr(), 0..self.shape.h) }
    }

    /// The same for some rows of a plane only, of which tasks write others at the same time: what is above the first row belongs to it,
    /// what is below the last and behind to that.
    ///
    /// # Safety
    /// `plane` is that of a map of this layout, and nobody else touches these rows.
    pub(crate) unsafe fn clear_halo_of_rows(&self, plane: *mut f32, rows: std::ops::Range<usize>) {
        let clear = |from: usize, to: usize| {
            // SAFETY: the caller's; both ends lie in the plane.
            unsafe { std::slice::from_raw_parts_mut(plane.add(from), to - from) }.fill(0.0);
        };
        if rows.start == 0 {
            clear(0, self.halo * self.row);
        }
        let side = self.halo * LANES;
        if side > 0 {
            for row in rows.clone().map(|row| (row + self.halo) * self.row) {
                clear(row, row + side);
                clear(row + self.row - side, row + self.row);
            }
        }
        if rows.end == self.shape.h {
            clear((self.halo + rows.end) * self.row, self.plane);
        }
    }

    /// Zeroes the images that block `b` lacks, in one channel.
    pub(crate) fn clear_missing(&self, b: usize, plane: &mut [f32]) {
        let images = self.images(b);
        if images < LANES {
            plane.chunks_mut(LANES).for_each(|pixel| pixel[images..].fill(0.0));
        }
    }

    /// The planes of a map by channel, those of one channel together in order of blocks: what a per-channel task may write.
    pub(crate) fn channels_mut<'a>(&self, values: &'a mut [f32]) -> Vec<Vec<&'a mut [f32]>> {
        let mut channels: Vec<_> = (0..self.shape.c).map(|_| Vec::with_capacity(self.blocks)).collect();
        for (i, plane) in values.chunks_mut(self.plane).enumerate() {
            channels[i % self.shape.c].push(plane);
        }
        channels
    }

    /// One channel of one block.
    pub(crate) fn plane_of<'a>(&self, values: &'a [f32], b: usize, c: usize) -> &'a [f32] {
        &values[b * self.block + c * self.plane..][..self.plane]
    }

    /// How many planes a task should take at least, so that it is worth handing out.
    pub(crate) fn planes_per_task(&self) -> usize {
        (16 * 1024 / self.plane.max(1)).max(1)
    }
}
