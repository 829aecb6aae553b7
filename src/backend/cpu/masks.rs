//! The two masks of each layer, and when effective weights are formed of them.

use rayon::prelude::*;

use super::Cpu;
use super::conv::{PackedWeights, SparseIndex, sparse_below};
use super::effective::{EffectiveWeights, WORDS};
use super::simd::{LANES, Lanes, Level, dispatch};
use crate::backend::{Draw, Effective, Precision, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng;

/// What the CPU keeps of one masked weight besides its values.
pub(super) struct Layer {
    pub(super) weight: Weight,
    /// M.
    pub(super) mask: BitMask,
    /// Z as last drawn.
    pub(super) random: BitMask,
    /// The factor of effective weights under Z: 1, or 1 / keep.
    pub(super) scale: f32,
    /// What convolutions multiply with; all 0 before it is formed.
    pub(super) effective: EffectiveWeights,
    pub(super) index: SparseIndex,
    pub(super) packed: PackedWeights,
    /// Asked for: the sparse kernel at this density and below, or the dense one at it and above.
    preferred: Option<(f64, bool)>,
    active: usize,
    /// Value and momentum are 0 outside M: an optimiser's step has left them so, and nobody has written since.
    pub(super) cleared: bool,
    /// M is another than the one that effective weights were last formed of.
    changed: bool,
}

impl Layer {
    pub(super) fn new(weight: Weight) -> Self {
        let len = weight.len();
        Layer {
            weight,
            mask: BitMask::ones(len),
            random: BitMask::ones(len),
            scale: 1.0,
            effective: EffectiveWeights::inside(&BitMask::zeros(len)),
            index: SparseIndex::default(),
            packed: PackedWeights::default(),
            preferred: None,
            active: len,
            cleared: false,
            changed: true,
        }
    }

    pub(super) fn set_mask(&mut self, mask: BitMask) {
        self.active = mask.count();
        self.mask = mask;
        self.cleared = false;
        self.changed = true;
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
        // Strides move the crossover a little, which costs memory or time but no more: either kernel takes either form.
        let sparse = self.runs_sparse(level, 1);
        if std::mem::take(&mut self.changed) || sparse == self.effective.is_dense() {
            self.effective =
                if sparse { EffectiveWeights::inside(&self.mask) } else { EffectiveWeights::dense(self.weight.len()) };
        }
        let mut effective = std::mem::replace(&mut self.effective, EffectiveWeights::Dense(vec![]));
        match which {
            Effective::Deterministic => effective.set_masked(&self.mask, None, 1.0, value, precision, level),
            Effective::Random => {
                effective.set_masked(&self.mask, Some(&self.random), self.scale, value, precision, level);
            }
            Effective::Leaky => effective.set(|i| precision.round(self.sample(which, value, leak, i))),
        }
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

    #[test]
    fn effective_weights_are_those_of_their_definition_in_either_form_and_while_forms_change() {
        // More than one task, and no whole number of words.
        const LEN: usize = 32 * WORDS * 2 + 45;
        let span = Span { at: 0, len: LEN };
        let weight = Weight { value: span, grad: span, layer: 0, out_channels: 1, in_channels: LEN, kernel: [1, 1] };
        let mut draws = rng::Stream::new(1, rng::Domain::Weights, 0, 0);
        let [value, leak] = [(); 2].map(|()| (0..LEN).map(|_| draws.normal() as f32).collect::<Vec<_>>());
        let keep = [0.8];
        let draw = Draw { seed: 1, domain: rng::Domain::RandomMask, step: 7, keep: &keep, inverted: true };
        for level in Level::available() {
            let mut layer = Layer::new(weight);
            assert!(layer.effective.to_dense(LEN).iter().all(|x| x.to_bits() == 0), "0 before they are formed");
            layer.draw(&draw, level);
            for (share, which, precision) in [
                (0.1, Effective::Random, Precision::F32),
                (0.1, Effective::Leaky, Precision::F32),
                (0.95, Effective::Random, Precision::Bf16),
                (0.3, Effective::Random, Precision::Bf16),
                (0.3, Effective::Deterministic, Precision::F32),
                (0.0, Effective::Deterministic, Precision::F32),
                (1.0, Effective::Random, Precision::F32),
            ] {
                layer.set_mask(BitMask::from_fn(LEN, |_| draws.uniform() < share));
                let defined = |layer: &Layer| -> Vec<u32> {
                    let sample = |i| precision.round(layer.sample(which, &value, Some(&leak), i));
                    (0..LEN).map(|i| sample(i).to_bits()).collect()
                };
                for sparse in [true, false, true] {
                    layer.prefer(sparse);
                    layer.apply(which, &value, Some(&leak), precision, level);
                    assert_eq!(layer.effective.is_dense(), !sparse);
                    let formed: Vec<u32> = layer.effective.to_dense(LEN).iter().map(|x| x.to_bits()).collect();
                    assert!(formed == defined(&layer), "{level:?}, {which:?}, {precision}, {share}, sparse: {sparse}");
                    if let EffectiveWeights::Inside(inside) = &layer.effective {
                        assert!((0..LEN).all(|i| inside.get(i).to_bits() == formed[i]), "{share}: one by one");
                    }
                }
                // A new M changes nothing until weights are formed anew.
                let before = layer.effective.to_dense(LEN).into_owned();
                layer.set_mask(BitMask::ones(LEN));
                assert!(*layer.effective.to_dense(LEN) == before);
            }
        }
    }
}
