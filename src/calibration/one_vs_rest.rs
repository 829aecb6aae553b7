//! Each class's own probability against [y = k], binned: what class-wise ECE and the parts of the Brier score are made of.

use super::bins::{BinTable, Bins};
use super::exact_sum::{ExactSum, units};
use super::narrow_rows::{NarrowRows, ROWS};
use super::outcome::BLOCK;
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch, keep_above};

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
    #[inline(always)]
    fn add(&mut self, p: f32) {
        let p = f64::from(p);
        self.n += 1;
        self.p += units(p) as u64;
        self.p_squared += units(p * p) as u64;
    }

    /// What is more of one whose class is the label.
    #[inline(always)]
    fn add_positive(&mut self, p: f32) {
        self.positives += 1;
        self.p_of_positives += units(f64::from(p)) as u64;
    }

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

    /// Adds rows in columns.
    pub(super) fn add_narrow(&mut self, rows: &NarrowRows) {
        dispatch!(
            Level::detect(),
            add_narrow_kernel(tallies: &mut OneVsRest = self, rows: &NarrowRows = rows)
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
        for_each_above(block, edge, |l| {
            let k = BLOCK * b + l;
            let tally = &mut tallies.upper[k * (bins - 1) + tallies.bins.index(probs[k]) - 1];
            tally.add(probs[k]);
            if k == label {
                tally.add_positive(probs[k]);
            }
        });
    }
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn add_narrow_kernel<L: Lanes>(tallies: &mut OneVsRest, rows: &NarrowRows) {
    tallies.n += rows.len() as u64;
    for (k, probs) in rows.probs().enumerate() {
        let (mut sum, mut squares) = (0, 0);
        for &p in probs {
            let p = f64::from(p);
            sum += units(p) as u64;
            squares += units(p * p) as u64;
        }
        tallies.p[k] += sum;
        tallies.p_squared[k] += squares;
    }
    for (&label, &p) in rows.labels().iter().zip(rows.of_label()) {
        tallies.positives[label as usize] += 1;
        tallies.p_of_positives[label as usize] += units(f64::from(p)) as u64;
    }

    let bins = tallies.bins.bins.count;
    if bins == 1 {
        return;
    }
    let (edge, table) = (tallies.bins.bins.edge(1), tallies.bins.bins);
    let (mut above, mut indices) = ([0; ROWS], [0; ROWS]);
    for (probs, upper) in rows.probs().zip(tallies.upper.chunks_exact_mut(bins - 1)) {
        // Floats that are not negative order as their bits do.
        let number = keep_above(bytemuck::cast_slice(probs), edge.to_bits(), &mut above[..probs.len()]);
        let above: &[f32] = bytemuck::cast_slice(&above[..number]);
        table.indices(above, &mut indices);
        for (&p, &bin) in above.iter().zip(&indices) {
            upper[bin as usize - 1].add(p);
        }
    }
    table.indices(rows.of_label(), &mut indices);
    for ((&label, &p), &bin) in rows.labels().iter().zip(rows.of_label()).zip(&indices) {
        if bin > 0 {
            tallies.upper[label as usize * (bins - 1) + bin as usize - 1].add_positive(p);
        }
    }
}

/// Calls `visit` with the place of each probability above `edge`.
#[inline(always)]
fn for_each_above(block: &[f32; BLOCK], edge: f32, mut visit: impl FnMut(usize)) {
    // All are compared at once, since few are above.
    let mut above = 0u32;
    for (l, &p) in block.iter().enumerate() {
        above |= u32::from(p > edge) << l;
    }
    while above != 0 {
        visit(above.trailing_zeros() as usize);
        above &= above - 1;
    }
}
