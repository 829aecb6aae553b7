//! The two masks of each layer, and the effective weights they leave.

use rayon::prelude::*;

use super::Cpu;
use super::conv::{PackedWeights, SparseIndex, sparse_below};
use super::simd::{LANES, Lanes, Level, dispatch};
use crate::backend::{Draw, Effective, Precision, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng;

/// Words of a mask that a task takes.
const WORDS: usize = 512;

/// What the CPU keeps of one masked weight besides its values.
pub(super) struct Layer {
    pub(super) weight: Weight,
    /// M.
    pub(super) mask: BitMask,
    /// Z as last drawn.
    pub(super) random: BitMask,
    /// The factor of effective weights under Z: 1, or 1 / keep.
    pub(super) scale: f32,
    /// What convolutions multiply with, in element order.
    pub(super) effective: Vec<f32>,
    pub(super) index: SparseIndex,
    pub(super) packed: PackedWeights,
    /// Asked for: the sparse kernel at this density and below, or the dense one at it and above.
    preferred: Option<(f64, bool)>,
    active: usize,
    /// Value and momentum are 0 outside M: an optimiser's step has left them so, and nobody has written since.
    pub(super) cleared: bool,
}

impl Layer {
    pub(super) fn new(weight: Weight) -> Self {
        let len = weight.len();
        Layer {
            weight,
            mask: BitMask::ones(len),
            random: BitMask::ones(len),
            scale: 1.0,
            effective: vec![0.0; len],
            index: SparseIndex::default(),
            packed: PackedWeights::default(),
            preferred: None,
            active: len,
            cleared: false,
        }
    }

    pub(super) fn set_mask(&mut self, mask: BitMask) {
        self.active = mask.count();
        self.mask = mask;
        self.cleared = false;
        self.index.clear();
    }

    /// Whether products run on the sparse kernel.
    pub(super) fn runs_sparse(&self, level: Level, stride: usize) -> bool {
        let density = self.mask_density();
        match self.preferred {
            Some((at, sparse)) if density == at || (density < at) == sparse => sparse,
            _ => density < sparse_below(level, self.weight.kernel, stride),
        }
    }

    /// Has a layer of this density run on the kernel asked for, and of lower or higher density where that follows.
    pub(super) fn prefer(&mut self, sparse: bool) {
        self.preferred = Some((self.mask_density(), sparse));
    }

    /// The density of M.
    pub(super) fn mask_density(&self) -> f64 {
        self.active as f64 / self.weight.len().max(1) as f64
    }

    fn draw(&mut self, draw: &Draw, level: Level) {
        let keep = draw.keep[self.weight.layer];
        self.scale = if draw.inverted { (1.0 / keep) as f32 } else { 1.0 };
        let (threshold, layer) = (rng::keep_threshold(keep), self.weight.layer as u32);
        let (key, coordinates) = (rng::key(draw.seed), [draw.step, layer, draw.domain as u32]);
        let mut words = vec![0; self.weight.len().div_ceil(32)];
        words.par_chunks_mut(WORDS).enumerate().for_each(|(chunk, words)| {
            dispatch!(level, mask_words(
                key: [u32; 2] = key,
                coordinates: [u32; 3] = coordinates,
                first: u32 = (chunk * WORDS) as u32,
                threshold: u32 = threshold,
                words: &mut [u32] = words,
            ));
        });
        self.random = BitMask::from_words(words, self.weight.len());
    }

    /// What the masks make of the master value of element `i`.
    pub(super) fn sample(&self, which: Effective, value: &[f32], leak: Option<&[f32]>, i: usize) -> f32 {
        match which {
            _ if !self.mask.get(i) => 0.0,
            Effective::Deterministic => value[i],
            Effective::Random if self.random.get(i) => value[i] * self.scale,
            Effective::Random => 0.0,
            Effective::Leaky if self.random.get(i) => value[i] * self.scale,
            Effective::Leaky => leak.map_or(0.0, |leak| leak[i]),
        }
    }

    /// Forms the effective weights as `precision` stores them.
    pub(super) fn apply(
        &mut self,
        which: Effective,
        value: &[f32],
        leak: Option<&[f32]>,
        precision: Precision,
        level: Level,
    ) {
        self.index.clear_values();
        self.packed.clear();
        let mut effective = std::mem::take(&mut self.effective);
        let kept = match which {
            Effective::Deterministic => None,
            Effective::Random => Some(self.random.words()),
            Effective::Leaky => {
                let sample = |(i, to): (usize, &mut f32)| *to = precision.round(self.sample(which, value, leak, i));
                effective.par_iter_mut().with_min_len(32 * WORDS).enumerate().for_each(sample);
                self.effective = effective;
                return;
            }
        };
        let scale = if kept.is_some() { self.scale } else { 1.0 };
        effective.par_chunks_mut(32 * WORDS).enumerate().for_each(|(chunk, to)| {
            let from = &value[32 * WORDS * chunk..][..to.len()];
            dispatch!(level, masked(
                inside: &[u32] = &self.mask.words()[chunk * WORDS..],
                kept: Option<&[u32]> = kept.map(|kept| &kept[chunk * WORDS..]),
                scale: f32 = scale,
                from: &[f32] = from,
                to: &mut [f32] = &mut *to,
            ));
            if precision != Precision::F32 {
                to.iter_mut().for_each(|x| *x = precision.round(*x));
            }
        });
        self.effective = effective;
    }
}

/// The low half of a 64-bit word.
const LOW: u64 = u32::MAX as u64;

/// Sixteen numbers side by side, for the compiler to put into vectors of whatever the instruction set has.
type Sixteen<T> = [T; LANES];

/// Words of a random mask, from word `first` on, as [`rng::mask_word`] has them: four words, sixteen Philox blocks, at a time.
#[inline(always)]
unsafe fn mask_words<L: Lanes>(
    key: [u32; 2],
    [step, layer, domain]: [u32; 3],
    first: u32,
    threshold: u32,
    words: &mut [u32],
) {
    for (at, words) in words.chunks_mut(LANES / 4).enumerate() {
        // In 64 bits each, which is how vectors multiply them.
        let block = 4 * (first + (at * (LANES / 4)) as u32);
        let mut counter: [Sixteen<u64>; 4] = [
            std::array::from_fn(|lane| u64::from(block.wrapping_add(lane as u32))),
            [u64::from(step); LANES],
            [u64::from(layer); LANES],
            [u64::from(domain); LANES],
        ];
        let [mut k0, mut k1] = key;
        for _ in 0..rng::ROUNDS {
            let [c0, c1, c2, c3] = &mut counter;
            for lane in 0..LANES {
                let a = u64::from(rng::MULTIPLIERS[0]) * (c0[lane] & LOW);
                let b = u64::from(rng::MULTIPLIERS[1]) * (c2[lane] & LOW);
                c0[lane] = b >> 32 ^ c1[lane] ^ u64::from(k0);
                c2[lane] = a >> 32 ^ c3[lane] ^ u64::from(k1);
                c1[lane] = b & LOW;
                c3[lane] = a & LOW;
            }
            (k0, k1) = (k0.wrapping_add(rng::KEY_STEPS[0]), k1.wrapping_add(rng::KEY_STEPS[1]));
        }
        let mut bits: Sixteen<u32> = [0; LANES];
        for (pair, draws) in counter.iter().enumerate() {
            for (bits, &draw) in bits.iter_mut().zip(draws) {
                let draw = draw as u32;
                // The sign of the difference: both are less than 2^31.
                *bits |= (draw & 0xFFFF).wrapping_sub(threshold) >> 31 << (2 * pair);
                *bits |= (draw >> 16).wrapping_sub(threshold) >> 31 << (2 * pair + 1);
            }
        }
        for (word, bytes) in words.iter_mut().zip(bits.chunks(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | byte);
        }
    }
}

/// to = scale from where both masks have ones, else 0; words of 32 elements each.
#[inline(always)]
unsafe fn masked<L: Lanes>(inside: &[u32], kept: Option<&[u32]>, scale: f32, from: &[f32], to: &mut [f32]) {
    for (at, (to, from)) in to.chunks_mut(32).zip(from.chunks(32)).enumerate() {
        let bits = inside[at] & kept.map_or(u32::MAX, |kept| kept[at]);
        if let (Ok(to), Ok(from)) = (<&mut [f32; 32]>::try_from(&mut *to), <&[f32; 32]>::try_from(from)) {
            for i in 0..32 {
                to[i] = if bits >> i & 1 == 1 { scale * from[i] } else { 0.0 };
            }
        } else {
            for (i, (to, from)) in to.iter_mut().zip(from).enumerate() {
                *to = if bits >> i & 1 == 1 { scale * from } else { 0.0 };
            }
        }
    }
}

/// Sets values to 0 where a mask over them is 0; an empty slice stands for values that are not there.
pub(super) fn clear_outside(inside: &BitMask, values: &mut [f32], level: Level) {
    values.par_chunks_mut(32 * WORDS).zip(inside.words().par_chunks(WORDS)).for_each(|(values, inside)| {
        dispatch!(level, cleared(inside: &[u32] = inside, values: &mut [f32] = values));
    });
}

/// Sets values to 0 where the words of 32 elements each are 0.
#[inline(always)]
unsafe fn cleared<L: Lanes>(inside: &[u32], values: &mut [f32]) {
    for (values, &bits) in values.chunks_mut(32).zip(inside) {
        match <&mut [f32; 32]>::try_from(&mut *values) {
            Ok(values) => {
                for (i, x) in values.iter_mut().enumerate() {
                    *x = if bits >> i & 1 == 1 { *x } else { 0.0 };
                }
            }
            Err(_) => values.iter_mut().enumerate().filter(|(i, _)| bits >> i & 1 == 0).for_each(|(_, x)| *x = 0.0),
        }
    }
}

impl Cpu {
    pub(super) fn draw_masks(&mut self, draw: &Draw) {
        let level = self.level;
        self.layers.iter_mut().for_each(|layer| layer.draw(draw, level));
    }

    pub(super) fn apply_masks(&mut self, which: Effective, leaks: &[Span]) {
        for layer in &mut self.layers {
            let leak = leaks.get(layer.weight.layer).map(|&span| self.memory.get(span));
            layer.apply(which, self.memory.get(layer.weight.value), leak, self.precision, self.level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preferred_kernel_is_kept_to_the_density_at_which_it_was_preferred() {
        use super::super::conv::sparse_below;
        let level = Level::Avx2;
        let usual = sparse_below(level, [1, 1], 1);
        let span = Span { at: 0, len: 100 };
        let mut layer =
            Layer::new(Weight { value: span, grad: span, layer: 0, out_channels: 1, in_channels: 100, kernel: [1, 1] });
        let runs_sparse = |layer: &mut Layer, percent: usize| {
            layer.set_mask(BitMask::from_fn(100, |i| i < percent));
            layer.runs_sparse(level, 1)
        };
        assert!(runs_sparse(&mut layer, 30) && !runs_sparse(&mut layer, 90) && (0.3..0.9).contains(&usual));
        // Dense is preferred at 30 %: a sparser mask still runs sparse.
        runs_sparse(&mut layer, 30);
        layer.prefer(false);
        assert!(!runs_sparse(&mut layer, 30) && runs_sparse(&mut layer, 20) && !runs_sparse(&mut layer, 90));
        // Sparse is preferred at 90 %: a denser mask still runs dense.
        runs_sparse(&mut layer, 90);
        layer.prefer(true);
        assert!(runs_sparse(&mut layer, 90) && runs_sparse(&mut layer, 30) && !runs_sparse(&mut layer, 95));
    }
}
