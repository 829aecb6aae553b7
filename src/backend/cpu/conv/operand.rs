//! What products read: a stored map, or what batch norm makes of one, formed a strip of rows at a time.
//!
//! A formed strip lies in the thread's own memory and is read from L2 by the kernel behind it. The result of the normalisation is never
//! written to memory nor read from it, which is what sparse networks spend their time on.

use std::cell::RefCell;

use super::super::batch_norm::Affine;
use super::super::grid::{Grid, clear_side};
use super::super::memory::Line;
use super::super::pointwise::Pointwise;
use super::super::simd::{LANES, Lanes, Level, dispatch};

/// Output rows of a strip: those of the largest tile.
pub(super) const STRIP: usize = 4;

/// The argument of a product.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    values: &'a [f32],
    grid: Grid,
    formed: Option<Formed<'a>>,
}

#[derive(Clone, Copy)]
struct Formed<'a> {
    channels: &'a [Affine],
    /// The layout of one strip.
    strip: Grid,
}

impl<'a> Operand<'a> {
    /// A map as it is.
    pub(super) fn stored(values: &'a [f32], grid: Grid) -> Self {
        assert!(values.len() == grid.len());
        Operand { values, grid, formed: None }
    }

    /// A function of each channel of a map, with `padding` zeros around it, in strips of `rows`.
    pub(super) fn formed(values: &'a [f32], grid: Grid, channels: &'a [Affine], padding: usize, rows: usize) -> Self {
        let strip = Grid::of_rows(grid.shape, padding, rows);
        Operand { formed: Some(Formed { channels, strip }), ..Operand::stored(values, grid) }
    }

    /// The layout that the kernels see: that of the map, or of a strip.
    pub(super) fn grid(&self) -> Grid {
        self.formed.map_or(self.grid, |formed| formed.strip)
    }

    /// All values, unless strips of them have to be formed first.
    pub(super) fn stored_values(&self) -> Option<&'a [f32]> {
        self.formed.is_none().then_some(self.values)
    }

    /// Hands `read` the planes of a block of images from one row on. Rows count from the first that the padding adds.
    pub(super) fn with_strip<T>(&self, level: Level, block: usize, row: usize, read: impl FnOnce(&[f32]) -> T) -> T {
        thread_local! { static STRIP: RefCell<Vec<Line>> = const { RefCell::new(vec![]) } }
        let x = &self.values[block * self.grid.block..][..self.grid.block];
        let Some(formed) = self.formed else { return read(&x[row * self.grid.row..]) };
        STRIP.with_borrow_mut(|lines| {
            lines.resize(lines.len().max(formed.strip.block / LANES), Line::default());
            let to = &mut bytemuck::cast_slice_mut(lines)[..formed.strip.block];
            dispatch!(level, form(
                formed: Formed<'_> = formed,
                x: &[f32] = x,
                grid: Grid = self.grid,
                images: usize = self.grid.images(block),
                first: usize = row,
                to: &mut [f32] = &mut *to,
            ));
            read(to)
        })
    }
}

/// Fills a strip whose first row is padded row `first`. The images that the block lacks become 0, as batch norm leaves them.
#[inline(always)]
unsafe fn form<L: Lanes>(formed: Formed<'_>, x: &[f32], grid: Grid, images: usize, first: usize, to: &mut [f32]) {
    let Formed { channels, strip } = formed;
    let (side, width) = (strip.halo * LANES, grid.shape.w * LANES);
    for (c, (plane, f)) in to.chunks_mut(strip.plane).zip(channels).enumerate() {
        for (i, to) in plane[..strip.plane / strip.row * strip.row].chunks_mut(strip.row).enumerate() {
            let Some(row) = (first + i).checked_sub(strip.halo).filter(|&row| row < grid.shape.h) else {
                to.fill(0.0);
                continue;
            };
            clear_side(&mut to[..side]);
            clear_side(&mut to[side + width..]);
            let to = &mut to[side..side + width];
            let from = &x[c * grid.plane + grid.pixel(row, 0)..][..width];
            for at in (0..width).step_by(LANES) {
                // SAFETY: `at` + 16 <= width, the length of both slices; the instruction set is the caller's.
                unsafe { f.apply([L::load(from.as_ptr().add(at))]).store(to.as_mut_ptr().add(at)) };
            }
            if images < LANES {
                to.chunks_mut(LANES).for_each(|pixel| pixel[images..].fill(0.0));
            }
        }
    }
}
