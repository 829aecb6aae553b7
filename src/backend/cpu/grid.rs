//! The layout of activations: [N / 16][C][H + 2 halo][W + 2 halo][16], sixteen images innermost, zeros around each channel.
//!
//! A pixel of 16 images is one vector, so a weight is one multiply-add whatever its position, and a kernel's tap is a plain offset,
//! the same for every pixel: nothing is gathered, shifted or branched on at the borders. Images that fill up the last
//! block are never seen: they add nothing to statistics, their gradients are 0, and so is what batch norm makes of them.
//!
//! A single image that is only predicted on would leave 15 of 16 lanes idle. It is [C][H + 2][W + 1], a zero between the rows and one
//! row above and below, and a vector is sixteen pixels that follow each other, across the ends of rows: a tap is a plain offset again. What
//! the zeros between the rows get of a kernel is cleared behind it.

use super::simd::LANES;
use crate::backend::Map;
use crate::shape::Shape;

/// Maps of more bytes are written past the caches: whoever reads them next finds little of them there, and memory is spared reading
/// what is overwritten.
const STREAMED_ABOVE: usize = 12 << 20;

/// A plane of a multiple of so many vectors is followed by half as many of zeros: otherwise the same pixel of all channels would
/// fall into the same few sets of a cache, and a tile's channels would evict each other.
const SPREAD: usize = 8;

/// The vectors from one plane of so many to the next.
pub(super) fn spread(vectors: usize) -> usize {
    if vectors.is_multiple_of(SPREAD) { vectors + SPREAD / 2 } else { vectors }
}

/// Zeros the pixels beside a row. Mostly that is one: calling the library's memset would take longer than the store.
#[inline(always)]
pub(crate) fn clear_side(pixels: &mut [f32]) {
    match <&mut [f32; LANES]>::try_from(&mut *pixels) {
        Ok(pixel) => *pixel = [0.0; LANES],
        Err(_) => pixels.fill(0.0),
    }
}

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
    /// Images side by side: 16, or a single one.
    pub(crate) lanes: usize,
    /// Blocks of so many images.
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
        let plane = spread((shape.h + 2 * halo) * (shape.w + 2 * halo)) * LANES;
        Grid { shape, halo, lanes: LANES, blocks: shape.n.div_ceil(LANES), row, plane, block: shape.c * plane }
    }

    /// The layout of a single image.
    pub(crate) fn single(shape: Shape) -> Self {
        let halo = usize::from(shape.pixels() > 1);
        let row = shape.w + halo;
        let grid = Grid { shape, halo, lanes: 1, blocks: 1, row, plane: 0, block: 0 };
        let [rows, cols] = grid.folded();
        // As far as the last vector sees through the last tap of a 3x3 kernel.
        let plane = spread((2 * halo * (row + 1)).div_ceil(LANES) + rows * cols) * LANES;
        Grid { plane, block: shape.c * plane, ..grid }
    }

    /// Some rows of one block of a map, the zeros around included, by themselves.
    pub(crate) fn of_rows(shape: Shape, halo: usize, rows: usize) -> Self {
        let row = (shape.w + 2 * halo) * LANES;
        let plane = spread(rows * (shape.w + 2 * halo)) * LANES;
        Grid { shape, halo, lanes: LANES, blocks: 1, row, plane, block: shape.c * plane }
    }

    pub(crate) fn of(map: Map) -> Self {
        match map.inference && map.shape.n == 1 {
            true => Grid::single(map.shape),
            false => Grid::new(map.shape, map.halo),
        }
    }

    /// Runs of vectors without a gap, which together hold all pixels, and the vectors of each: the rows, or all of a single image.
    /// A run begins at column 0 of its row.
    pub(crate) fn runs(&self) -> (usize, usize) {
        match self.lanes {
            1 => (1, ((self.shape.h - 1) * self.row + self.shape.w).div_ceil(LANES)),
            _ => (self.shape.h, self.shape.w),
        }
    }

    /// The single run of a single image in rows of a few vectors, the last one filled up.
    pub(crate) fn folded(&self) -> [usize; 2] {
        let (_, vectors) = self.runs();
        let cols = if vectors % 3 == 1 { vectors.min(2) } else { vectors.min(3) };
        [vectors.div_ceil(cols), cols]
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks * self.block
    }

    /// How results get here.
    pub(crate) fn write(&self, add: bool) -> Write {
        match add {
            true => Write::Add,
            false if self.lanes == LANES && self.len() * size_of::<f32>() > STREAMED_ABOVE => Write::Stream,
            false => Write::Set,
        }
    }

    /// Offset within a plane of the pixel at row `i`, column `j`.
    pub(crate) fn pixel(&self, i: usize, j: usize) -> usize {
        (i + self.halo) * self.row + (j + self.halo) * self.lanes
    }

    /// Offset of one value.
    pub(crate) fn at(&self, n: usize, c: usize, i: usize, j: usize) -> usize {
        n / self.lanes * self.block + c * self.plane + self.pixel(i, j) + n % self.lanes
    }

    /// Images of block `b` that are there: all but in the last.
    pub(crate) fn images(&self, b: usize) -> usize {
        (self.shape.n - b * self.lanes).min(self.lanes)
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
    /// `plane` is that of a map of this layout, and nobody else touches these rows, which of a single image are all.
    pub(crate) unsafe fn clear_halo_of_rows(&self, plane: *mut f32, rows: std::ops::Range<usize>) {
        if self.lanes == 1 {
            // SAFETY: the caller's; a single image is cleared in one go.
            return self.clear_gaps(unsafe { std::slice::from_raw_parts_mut(plane, self.plane) });
        }
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
                for at in [row, row + self.row - side] {
                    // SAFETY: as above.
                    clear_side(unsafe { std::slice::from_raw_parts_mut(plane.add(at), side) });
                }
            }
        }
        if rows.end == self.shape.h {
            clear((self.halo + rows.end) * self.row, self.plane);
        }
    }

    /// The same for a single image.
    fn clear_gaps(&self, plane: &mut [f32]) {
        let (above, image) = plane.split_at_mut(self.pixel(0, 0));
        let (image, below) = image.split_at_mut((self.shape.h - 1) * self.row + self.shape.w);
        above.fill(0.0);
        below.fill(0.0);
        image.iter_mut().skip(self.shape.w).step_by(self.row).for_each(|gap| *gap = 0.0);
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
