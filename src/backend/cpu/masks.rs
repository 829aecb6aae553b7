//! The two masks of each layer, and the effective weights they leave.

use rayon::prelude::*;

use super::Cpu;
use super::conv::SparseIndex;
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
    /// What convolutions multiply with, in element order.
    pub(super) effective: Vec<f32>,
    pub(super) indices: SparseIndex,
    active: usize,
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
            indices: SparseIndex::default(),
            active: len,
        }
    }

    pub(super) fn set_mask(&mut self, mask: BitMask) {
        self.active = mask.count();
        self.mask = mask;
        self.indices.clear();
    }

    /// The density of M.
    pub(super) fn mask_density(&self) -> f64 {
        self.active as f64 / self.weight.len().max(1) as f64
    }

    fn draw(&mut self, draw: &Draw) {
        let keep = draw.keep[self.weight.layer];
        self.scale = if draw.inverted { (1.0 / keep) as f32 } else { 1.0 };
        let (threshold, layer) = (rng::keep_threshold(keep), self.weight.layer as u32);
        let words = (0..self.weight.len().div_ceil(32) as u32).into_par_iter().with_min_len(1024);
        let word = |w| rng::mask_word(draw.seed, draw.domain, draw.step, layer, w, threshold);
        self.random = BitMask::from_words(words.map(word).collect(), self.weight.len());
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
    fn apply(&mut self, which: Effective, value: &[f32], leak: Option<&[f32]>, precision: Precision) {
        let mut effective = std::mem::take(&mut self.effective);
        effective
            .par_iter_mut()
            .with_min_len(16 * 1024)
            .enumerate()
            .for_each(|(i, to)| *to = precision.round(self.sample(which, value, leak, i)));
        self.effective = effective;
    }
}

impl Cpu {
    pub(super) fn draw_masks(&mut self, draw: &Draw) {
        self.layers.iter_mut().for_each(|layer| layer.draw(draw));
    }

    pub(super) fn apply_masks(&mut self, which: Effective, leaks: &[Span]) {
        for layer in &mut self.layers {
            let leak = leaks.get(layer.weight.layer).map(|&span| self.memory.get(span));
            layer.apply(which, self.memory.get(layer.weight.value), leak, self.precision);
        }
    }
}
