//! Each class's own probability against [y = k], binned: what class-wise ECE and the parts of the Brier score are made of.

use super::bins::{BinTable, Bins};
use super::exact_sum::{ExactSum, units};
use super::outcome::BLOCK;
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};

/// One bin of one class's probability p against [y = k]; sums are in units of 2^-32, as [`ExactSum`]'s.
///
/// 64 bits hold the sums of 2^32 - 1 samples, which is what [`super::Accumulator`] takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassTally {
    pub(super) n: u64,
    pub(super) positives: u64,
    p: u64,
    p_squared: u64,
    p_of_positives: u64,
}

impl ClassTally {
    fn merge(&mut self, other: &ClassTally) {
        self.n += other.n;
        self.positives += other.positives;
        self.p += other.p;
        self.p_squared += other.p_squared;
        self.p_of_positives += other.p_of_positives;
    }

    fn remove(&mut self, other: &ClassTally) {
        self.n -= other.n;
        self.positives -= other.positives;
        self.p -= other.p;
        self.p_squared -= other.p_squared;
        self.p_of_positives -= other.p_of_positives;
    }

    pub(super) fn p(&self) -> ExactSum {
        ExactSum::from_units(self.p)
    }

    pub(super) fn p_squared(&self) -> ExactSum {
        ExactSum::from_units(self.p_squared)
    }

    pub(super) fn p_of_positives(&self) -> ExactSum {
        ExactSum::from_units(self.p_of_positives)
    }
}

/// Tallies of C classes over equal-width bins.
///
/// At most B - 1 probabilities of a row lie above the first bin, so every probability is added to its class's total, a
/// loop of plain vectors, and only those few are looked up in a bin. The first bin is what the others leave of the total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneVsRest {
    bins: BinTable,
    n: u64,
    /// Of each class, filled up to whole blocks, as `p_squared`.
    p: Vec<u64>,
    p_squared: Vec<u64>,
    positives: Vec<u64>,
    p_of_positives: Vec<u64>,
    /// Row-major (classes, bins - 1): the bins but the first.
    upper: Vec<ClassTally>,
}

impl OneVsRest {
    pub(super) fn new(classes: usize, bins: Bins) -> Self {
        let padded = classes.next_multiple_of(BLOCK);
        OneVsRest {
            bins: BinTable::new(bins),
            n: 0,
            p: vec![0; padded],
            p_squared: vec![0; padded],
            positives: vec![0; classes],
            p_of_positives: vec![0; classes],
            upper: vec![ClassTally::default(); classes * (bins.count - 1)],
        }
    }

    /// Adds one sample's probabilities, filled up to whole blocks with zeros.
    pub(super) fn add(&mut self, probs: &[f32], label: usize) {
        dispatch!(
            Level::detect(),
            add_kernel(tallies: &mut OneVsRest = self, probs: &[f32] = probs, label: usize = label)
        );
    }

    pub(super) fn merge(&mut self, other: &OneVsRest) {
        self.n += other.n;
        for (ours, theirs) in [
            (&mut self.p, &other.p),
            (&mut self.p_squared, &other.p_squared),
            (&mut self.positives, &other.positives),
            (&mut self.p_of_positives, &other.p_of_positives),
        ] {
            ours.iter_mut().zip(theirs).for_each(|(sum, more)| *sum += more);
        }
        self.upper.iter_mut().zip(&other.upper).for_each(|(ours, theirs)| ours.merge(theirs));
    }

    /// The bins of each class in turn, the lowest first.
    pub(super) fn classes(&self) -> impl Iterator<Item = Vec<ClassTally>> + '_ {
        let upper = self.bins.bins.count - 1;
        (0..self.positives.len()).map(move |k| {
            let above = &self.upper[k * upper..][..upper];
            let mut first = ClassTally {
                n: self.n,
                positives: self.positives[k],
                p: self.p[k],
                p_squared: self.p_squared[k],
                p_of_positives: self.p_of_positives[k],
            };
            above.iter().for_each(|tally| first.remove(tally));
            std::iter::once(first).chain(above.iter().copied()).collect()
        })
    }
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn add_kernel<L: Lanes>(tallies: &mut OneVsRest, probs: &[f32], label: usize) {
    tallies.n += 1;
    for ((&p, sum), squares) in probs.iter().zip(&mut tallies.p).zip(&mut tallies.p_squared) {
        let p = f64::from(p);
        *sum += units(p) as u64;
        *squares += units(p * p) as u64;
    }
    tallies.positives[label] += 1;
    tallies.p_of_positives[label] += units(f64::from(probs[label])) as u64;

    let bins = tallies.bins.bins.count;
    if bins == 1 {
        return;
    }
    let edge = tallies.bins.bins.edge(1);
    for (b, block) in probs.as_chunks::<BLOCK>().0.iter().enumerate() {
        let mut above = 0u32;
        for (l, &p) in block.iter().enumerate() {
            above |= u32::from(p > edge) << l;
        }
        while above != 0 {
            let k = BLOCK * b + above.trailing_zeros() as usize;
            above &= above - 1;
            let tally = &mut tallies.upper[k * (bins - 1) + tallies.bins.index(probs[k]) - 1];
            let p = f64::from(probs[k]);
            tally.n += 1;
            tally.p += units(p) as u64;
            tally.p_squared += units(p * p) as u64;
            if k == label {
                tally.positives += 1;
                tally.p_of_positives += units(p) as u64;
            }
        }
    }
}
