//! Which kernel a layer's products run on: a table of measurements, so that the choice never depends on timing noise.

use crate::backend::cpu::simd::Level;

/// Where the products of layers of one kind take equally long on their index and densely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossover {
    /// The instruction set.
    pub level: Level,
    /// Whether the kernel is larger than one pixel.
    pub window: bool,
    /// Whether the stride is more than one.
    pub strided: bool,
    /// The density of M below which a layer runs on its index.
    pub density: f64,
}

const fn row(level: Level, window: bool, strided: bool, density: f64) -> Crossover {
    Crossover { level, window, strided, density }
}

/// Measured by `cigl bench kernels` on a Zen 5 machine, the three passes of a layer together, over the layers of WRN-22-2 and ResNet-50 at
/// batch 128. Layers of one row agree to .1, but for 512 channels of 4x4 pixels and 1x1 kernels on 32x32 pixels under AVX2, which would run
/// on their index to .97 and more. Nobody measured 1x1 kernels of stride 2: they are taken to be like those of stride 1. Without vector
/// registers to tile, the sparse kernel is never slower.
///
/// Which kernel runs never changes a bit.
static MEASURED: [Crossover; 8] = [
    row(Level::Avx512, true, false, 0.67),
    row(Level::Avx512, true, true, 0.8),
    row(Level::Avx512, false, false, 0.7),
    row(Level::Avx512, false, true, 0.7),
    row(Level::Avx2, true, false, 0.8),
    row(Level::Avx2, true, true, 0.88),
    row(Level::Avx2, false, false, 0.85),
    row(Level::Avx2, false, true, 0.85),
];

/// The rows of an instruction set; none where everything runs on the index.
pub fn crossovers(level: Level) -> impl Iterator<Item = &'static Crossover> {
    MEASURED.iter().filter(move |row| row.level == level)
}

/// The density below which a layer with this kernel and stride runs on its index.
pub(in crate::backend::cpu) fn sparse_below(level: Level, kernel: [usize; 2], stride: usize) -> f64 {
    let is_of = |row: &&Crossover| row.window == (kernel != [1, 1]) && row.strided == (stride > 1);
    crossovers(level).find(is_of).map_or(f64::INFINITY, |row| row.density)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_layer_has_one_row_on_every_instruction_set_with_registers_to_tile() {
        for level in [Level::Avx512, Level::Avx2] {
            for (kernel, stride) in [([1, 1], 1), ([1, 1], 2), ([3, 3], 1), ([3, 3], 2), ([7, 7], 2), ([1, 3], 1)] {
                assert!((0.0..1.0).contains(&sparse_below(level, kernel, stride)), "{level:?}, {kernel:?} / {stride}");
            }
            assert_eq!(crossovers(level).count(), 4);
        }
        assert_eq!(sparse_below(Level::Portable, [3, 3], 1), f64::INFINITY);
    }
}
