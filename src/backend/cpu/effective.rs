//! The effective weights of a layer: what its convolutions multiply with.
//!
//! A sparse layer keeps only those inside M: all others are 0, and at 90 % sparsity they would be most of what the device holds of the
//! layer besides values, gradients and momentum.

use std::borrow::Cow;

use rayon::prelude::*;

use super::simd::{Lanes, Level, WORDS_AHEAD, dispatch, prefetch};
use crate::backend::Precision;
use crate::bitmask::BitMask;

/// Words of a mask that a task takes.
pub(super) const WORDS: usize = 512;

/// Effective weights in one of two forms. Which one it is never changes a value.
pub(super) enum EffectiveWeights {
    /// All, in element order.
    Dense(Vec<f32>),
    /// Those inside a mask.
    Inside(Inside),
}

/// Values of the elements inside a mask, in element order.
pub(super) struct Inside {
    words: Vec<Word>,
    values: Vec<f32>,
}

/// 32 elements of a mask.
#[derive(Clone, Copy)]
struct Word {
    bits: u32,
    /// Ones of the words before.
    before: u32,
}

impl Inside {
    /// Zeros.
    fn new(mask: &BitMask) -> Self {
        let count = |before: &mut u32, &bits: &u32| {
            let word = Word { bits, before: *before };
            *before += bits.count_ones();
            Some(word)
        };
        let words = mask.words().iter().scan(0, count).collect();
        Inside { words, values: vec![0.0; mask.count()] }
    }

    /// The value of element `i`, 0 outside the mask.
    #[inline(always)]
    pub(super) fn get(&self, i: usize) -> f32 {
        let (word, bit) = (self.words[i / 32], 1 << (i % 32));
        if word.bits & bit == 0 {
            0.0
        } else {
            self.values[(word.before + (word.bits & (bit - 1)).count_ones()) as usize]
        }
    }

    /// The words and values that tasks take, in order.
    fn tasks(&mut self) -> Vec<(&[Word], &mut [f32])> {
        let mut values = self.values.as_mut_slice();
        let take = |words| {
            let count = ones(words);
            (words, values.split_off_mut(..count).expect("there is a value for every one of the mask"))
        };
        self.words.chunks(WORDS).map(take).collect()
    }

    /// All `len` elements.
    fn to_dense(&self, len: usize) -> Vec<f32> {
        let mut dense = vec![0.0; len];
        dense.par_chunks_mut(32 * WORDS).zip(self.words.par_chunks(WORDS)).for_each(|(to, words)| {
            let values = &self.values[words[0].before as usize..];
            elements(words).zip(values).for_each(|(i, &value)| to[i] = value);
        });
        dense
    }
}

/// Ones of some words.
fn ones(words: &[Word]) -> usize {
    words.iter().map(|word| word.bits.count_ones() as usize).sum()
}

/// The elements inside some words, counted from the first one's first.
fn elements(words: &[Word]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(at, word)| {
        let next = |bits: &u32| Some(bits & (bits - 1)).filter(|&bits| bits != 0);
        let bits = std::iter::successors((word.bits != 0).then_some(word.bits), next);
        bits.map(move |bits| 32 * at + bits.trailing_zeros() as usize)
    })
}

impl EffectiveWeights {
    /// Zeros for all elements.
    pub(super) fn dense(len: usize) -> Self {
        EffectiveWeights::Dense(vec![0.0; len])
    }

    /// Zeros for the elements inside a mask.
    pub(super) fn inside(mask: &BitMask) -> Self {
        EffectiveWeights::Inside(Inside::new(mask))
    }

    pub(super) fn is_dense(&self) -> bool {
        matches!(self, EffectiveWeights::Dense(_))
    }

    /// All `len` elements.
    pub(super) fn to_dense(&self, len: usize) -> Cow<'_, [f32]> {
        match self {
            EffectiveWeights::Dense(values) => Cow::Borrowed(values),
            EffectiveWeights::Inside(inside) => Cow::Owned(inside.to_dense(len)),
        }
    }

    /// Sets every element, as `precision` stores it, to scale * value where `mask`, and `kept` if there is one, have ones; else to 0.
    /// The mask is the one that these weights were made for.
    pub(super) fn set_masked(
        &mut self,
        mask: &BitMask,
        kept: Option<&BitMask>,
        scale: f32,
        value: &[f32],
        precision: Precision,
        level: Level,
    ) {
        let part = |chunk: usize, to: &mut [f32], words: Option<&[Word]>| {
            let kept = kept.map(|kept| &kept.words()[chunk * WORDS..]);
            let from = &value[32 * WORDS * chunk..];
            match words {
                Some(words) => dispatch!(level, gathered(
                    inside: &[Word] = words,
                    kept: Option<&[u32]> = kept,
                    scale: f32 = scale,
                    from: &[f32] = from,
                    to: &mut [f32] = &mut *to,
                )),
                None => dispatch!(level, masked(
                    inside: &[u32] = &mask.words()[chunk * WORDS..],
                    kept: Option<&[u32]> = kept,
                    scale: f32 = scale,
                    from: &[f32] = from,
                    to: &mut [f32] = &mut *to,
                )),
            }
            if precision != Precision::F32 {
                to.iter_mut().for_each(|x| *x = precision.round(*x));
            }
        };
        match self {
            EffectiveWeights::Dense(values) => {
                let chunks = values.par_chunks_mut(32 * WORDS).enumerate();
                chunks.for_each(|(chunk, to)| part(chunk, to, None));
            }
            EffectiveWeights::Inside(inside) => {
                let tasks = inside.tasks().into_par_iter().enumerate();
                tasks.for_each(|(chunk, (words, to))| part(chunk, to, Some(words)));
            }
        }
    }

    /// Sets every element to what `value` says of it, which is 0 outside the mask that these weights were made for.
    pub(super) fn set(&mut self, value: impl Fn(usize) -> f32 + Sync) {
        match self {
            EffectiveWeights::Dense(values) => {
                let values = values.par_iter_mut().with_min_len(32 * WORDS).enumerate();
                values.for_each(|(i, to)| *to = value(i));
            }
            EffectiveWeights::Inside(inside) => {
                inside.tasks().into_par_iter().enumerate().for_each(|(chunk, (words, to))| {
                    elements(words).zip(to).for_each(|(i, to)| *to = value(32 * WORDS * chunk + i));
                });
            }
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

/// The same of the elements inside alone, side by side.
#[inline(always)]
unsafe fn gathered<L: Lanes>(inside: &[Word], kept: Option<&[u32]>, scale: f32, from: &[f32], to: &mut [f32]) {
    // How many elements a word has is hard to foresee, whether they are more than these is less so.
    if to.len() < inside.len() {
        gathered_by::<2>(inside, kept, scale, from, to);
    } else {
        gathered_by::<8>(inside, kept, scale, from, to);
    }
}

/// [`gathered`] with so many elements at a time.
#[inline(always)]
fn gathered_by<const AT_ONCE: usize>(
    inside: &[Word],
    kept: Option<&[u32]>,
    scale: f32,
    from: &[f32],
    mut to: &mut [f32],
) {
    for (at, word) in inside.iter().enumerate() {
        if let Some(later) = inside.get(at + WORDS_AHEAD).filter(|later| later.bits != 0) {
            prefetch(from.get(32 * (at + WORDS_AHEAD) + later.bits.trailing_zeros() as usize));
        }
        let kept = kept.map_or(u32::MAX, |kept| kept[at]);
        let from = &from[32 * at..];
        let count = word.bits.count_ones() as usize;
        let mut bits = word.bits;
        match from.first_chunk::<32>() {
            // What is written past the word's last element is of the next one's.
            Some(from) if to.len() >= count.next_multiple_of(AT_ONCE) => {
                for to in to[..count.next_multiple_of(AT_ONCE)].chunks_exact_mut(AT_ONCE) {
                    for to in to {
                        let i = bits.trailing_zeros() as usize % 32;
                        *to = if kept >> i & 1 == 1 { scale * from[i] } else { 0.0 };
                        bits &= bits.wrapping_sub(1);
                    }
                }
            }
            _ => {
                for to in &mut to[..count] {
                    let i = bits.trailing_zeros() as usize;
                    *to = if kept >> i & 1 == 1 { scale * from[i] } else { 0.0 };
                    bits &= bits - 1;
                }
            }
        }
        to = &mut to[count..];
    }
}
