//! How maps are cut into the tiles of channels.cuh, and the sum of each channel.

use super::Cuda;
use super::kernels::{self, Floats, Tensor};
use crate::Result;
use crate::backend::{Map, Sink, Span};

/// Threads of a tile, and pixels that each takes: TILE_THREADS and TILE_PIXELS.
const THREADS: u32 = 256;
const PIXELS: u32 = 8;

impl Tensor {
    /// Threads along the groups of a pixel.
    fn tile_width(&self) -> u32 {
        self.groups.min(8).next_power_of_two()
    }

    /// Columns of that many groups.
    pub(super) fn tile_columns(&self) -> u32 {
        self.groups.div_ceil(self.tile_width())
    }

    /// The grid of a kernel with a tile a block: (runs of pixels, columns).
    pub(super) fn tiles(&self) -> [u32; 3] {
        let run = THREADS / self.tile_width() * PIXELS;
        [self.pixels().div_ceil(run), self.tile_columns(), 1]
    }
}

impl Cuda {
    /// Space for `sums` sums of every channel of each tile, and for `finished` numbers of every channel.
    pub(super) fn channel_sums(&mut self, of: Tensor, sums: usize, finished: usize) -> Result<[Floats; 2]> {
        let row = of.groups as usize * 8 * size_of::<f32>();
        let partial = of.tiles()[0] as usize * sums * row;
        let at = self.scratch(partial + finished * row)?;
        Ok([Floats(at), Floats(at.plus(partial))])
    }

    pub(super) fn sum_channels(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        let (dy, to) = (self.tensor(dy), self.floats(db.to));
        let [partial, _] = self.channel_sums(dy, 1, 0)?;
        let tiles = dy.tiles();
        kernels::bias_grad_tiles(self.driver(), tiles, dy, partial)?;
        kernels::bias_grad(self.driver(), dy.groups, dy, partial, tiles[0], to, db.add.into())
    }
}
