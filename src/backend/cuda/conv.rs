//! Launches of conv.cu.

use super::Cuda;
use super::kernels::{self, Anything, Divisor, Each, Filter, Floats, Words};
use super::memory::GROUP;
use crate::Result;
use crate::backend::{Conv, Extent, Map, Precision, Sink, Weight};

/// Values of k that a block takes in a step.
const K_STEP: usize = 32;
/// Blocks that fill the GPUs this is for, two on each multiprocessor: weight gradients are split until there are so many.
/// A constant, since the split decides the order of additions.
const ENOUGH_BLOCKS: usize = 264;
/// Steps a split takes at least: below that, adding up the parts costs more than it saves.
const STEPS_A_SPLIT: usize = 8;

/// The kernels' tile edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    /// 64x64 in f32.
    Exact,
    /// 64x64 in bf16.
    Small,
    /// 128x128 in bf16.
    Large,
}

impl Tile {
    fn edge(self) -> usize {
        if self == Tile::Large { 128 } else { 64 }
    }

    /// The tile for a product of `rows` x `columns`: the large one where it wastes no edge and leaves enough blocks.
    fn choose(precision: Precision, rows: usize, columns: usize, parts: usize) -> Tile {
        let large = rows.div_ceil(128) * columns.div_ceil(128) * parts;
        match precision {
            Precision::F32 => Tile::Exact,
            Precision::Bf16 if columns > 64 && rows > 64 && large >= ENOUGH_BLOCKS => Tile::Large,
            Precision::Bf16 => Tile::Small,
        }
    }
}

/// How the pixels of a weight gradient are divided: (splits, pixels of each).
fn split(tiles: usize, pixels: usize) -> (usize, usize) {
    let steps = pixels.div_ceil(K_STEP);
    let wanted = ENOUGH_BLOCKS.div_ceil(tiles.max(1)).min(steps / STEPS_A_SPLIT).max(1);
    let each = steps.div_ceil(wanted).max(1);
    (steps.div_ceil(each).max(1), each * K_STEP)
}

fn filter(w: &Weight, conv: Conv) -> Filter {
    let [rows, columns] = w.kernel.map(|k| k as u32);
    Filter { rows, columns, stride: conv.stride as u32, padding: conv.padding as u32 }
}

impl Cuda {
    fn effective(&self, w: &Weight) -> Anything {
        Anything(self.layers.all[w.layer].effective)
    }

    pub(super) fn convolve(&mut self, x: Map, w: Weight, conv: Conv, y: Map) -> Result<()> {
        let (x, y, values) = (self.tensor(x), self.tensor(y), self.effective(&w));
        let tile = Tile::choose(self.precision, y.pixels() as usize, y.c as usize, 1);
        let blocks =
            [y.pixels().div_ceil(tile.edge() as u32), (GROUP as u32 * y.groups).div_ceil(tile.edge() as u32), 1];
        let run = match tile {
            Tile::Exact => kernels::conv2d_f32,
            Tile::Small => kernels::conv2d_bf16_64,
            Tile::Large => kernels::conv2d_bf16_128,
        };
        run(self.driver(), blocks, x, values, y, filter(&w, conv))
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()> {
        let (dy, to, values) = (self.tensor(dy), self.tensor(dx.to), self.effective(&w));
        let stride = conv.stride as u32;
        // The first residue has the most pixels.
        let rows = to.n * to.h.div_ceil(stride) * to.w.div_ceil(stride);
        let tile = Tile::choose(self.precision, rows as usize, to.c as usize, conv.stride * conv.stride);
        let edge = tile.edge() as u32;
        let blocks = [rows.div_ceil(edge), (GROUP as u32 * to.groups).div_ceil(edge), stride * stride];
        let run = match tile {
            Tile::Exact => kernels::conv2d_grad_input_f32,
            Tile::Small => kernels::conv2d_grad_input_bf16_64,
            Tile::Large => kernels::conv2d_grad_input_bf16_128,
        };
        run(self.driver(), blocks, dy, values, to, filter(&w, conv), dx.add.into())
    }

    pub(super) fn convolve_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()> {
        let (x, dy) = (self.tensor(x), self.tensor(dy));
        let taps: usize = w.kernel.iter().product();
        let padded = x.groups as usize * GROUP;
        let (outputs, columns, pixels) = (w.out_channels, taps * padded, dy.pixels() as usize);
        let tile = Tile::choose(self.precision, outputs, columns, pixels.div_ceil(K_STEP * STEPS_A_SPLIT));
        let tiles = [outputs, columns].map(|n| n.div_ceil(tile.edge()));
        let (splits, each) = split(tiles[0] * tiles[1], pixels);
        let parts = Floats(self.scratch(4 * splits * outputs * columns)?);
        let run = match tile {
            Tile::Exact => kernels::conv2d_grad_weight_f32,
            Tile::Small => kernels::conv2d_grad_weight_bf16_64,
            Tile::Large => kernels::conv2d_grad_weight_bf16_128,
        };
        let blocks = [tiles[0] as u32, tiles[1] as u32, splits as u32];
        let [per_image, per_row] = [dy.h * dy.w, dy.w].map(Divisor::new);
        run(self.driver(), blocks, x, dy, parts, filter(&w, conv), per_image, per_row, each as u32)?;
        let dw = self.floats(w.grad);
        let mask = match self.state.extent {
            Extent::Active => self.layers.all[w.layer].mask,
            Extent::Dense => Words::default(),
        };
        let [splits, elements, inputs, padded] = [splits, w.len(), w.in_channels, padded].map(|n| n as u32);
        kernels::sum_parts(self.driver(), Each(elements), parts, splits, dw, mask, elements, inputs, padded, add.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_all_pixels_and_none_is_empty() {
        for (tiles, pixels) in [(1, 1), (1, 31), (1, 131_072), (4, 8192), (36, 2048), (288, 512), (3, 33), (7, 257)] {
            let (splits, each) = split(tiles, pixels);
            assert!(splits * each >= pixels && (splits - 1) * each < pixels, "{tiles} tiles, {pixels} pixels");
            assert!(each.is_multiple_of(K_STEP));
            assert!(splits == 1 || each >= K_STEP * STEPS_A_SPLIT, "{tiles} tiles, {pixels} pixels: {each} each");
        }
    }

    #[test]
    fn large_tiles_are_for_products_that_fill_them() {
        let bf16 = |rows, columns| Tile::choose(Precision::Bf16, rows, columns, 1);
        assert_eq!(bf16(128 * 32 * 32, 128), Tile::Large);
        assert_eq!(bf16(128 * 32 * 32, 32), Tile::Small);
        assert_eq!(bf16(128, 10), Tile::Small);
        assert_eq!(Tile::choose(Precision::F32, 1 << 20, 512, 1), Tile::Exact);
    }
}
