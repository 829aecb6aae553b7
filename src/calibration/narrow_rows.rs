//! Rows of up to sixteen logits, sixteen at once side by side in the lanes of a vector.
//!
//! A row of ten classes fills little more than half a vector, and its sums would be taken across lanes. Here lane r is row r
//! and each class a vector of its own, and what is read stays in columns, so that those who add it up use vectors too. Every
//! operation and its order are those of [`super::outcome`], so the bits are too.

use super::exact_sum::is_clear;
use super::outcome::{BLOCK, Outcome, ln_1p};
use super::softmax::{exp, exp_f64, ln_f64};
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};

/// Rows that are read at once, at most: their probabilities stay in the first-level cache.
pub(super) const ROWS: usize = 256;

/// What the rows read last say, in columns.
#[derive(Clone, Debug)]
pub(super) struct NarrowRows {
    len: usize,
    /// Of each class.
    probs: Vec<[f32; ROWS]>,
    labels: [u32; ROWS],
    /// The probability of the label.
    of_label: [f32; ROWS],
    confidences: [f32; ROWS],
    /// 1 where the prediction is the label, else 0.
    correct: [u32; ROWS],
    /// How many classes come before the label.
    ranks: [u32; ROWS],
    /// Largest logit less the label's, and the sum of the terms but for the largest: see [`Self::nll`].
    behind: [f64; ROWS],
    others: [f64; ROWS],
    brier: [f64; ROWS],
}

impl NarrowRows {
    /// Room for rows of 1 to 16 classes.
    pub(super) fn new(classes: usize) -> Self {
        NarrowRows {
            len: 0,
            probs: vec![[0.0; ROWS]; classes],
            labels: [0; ROWS],
            of_label: [0.0; ROWS],
            confidences: [0.0; ROWS],
            correct: [0; ROWS],
            ranks: [0; ROWS],
            behind: [0.0; ROWS],
            others: [0.0; ROWS],
            brier: [0.0; ROWS],
        }
    }

    /// Reads rows of logits, row-major, and their labels: a multiple of sixteen, up to [`ROWS`]. False if it stopped before
    /// sixteen of which one is not in order.
    pub(super) fn read(&mut self, logits: &[f32], labels: &[u32]) -> bool {
        self.len = 0;
        dispatch!(
            Level::detect(),
            kernel(rows: &mut NarrowRows = self, logits: &[f32] = logits, labels: &[u32] = labels) -> bool
        )
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Each class's probabilities.
    pub(super) fn probs(&self) -> impl Iterator<Item = &[f32]> {
        self.probs.iter().map(|column| &column[..self.len])
    }

    pub(super) fn labels(&self) -> &[u32] {
        &self.labels[..self.len]
    }

    /// The probabilities of the labels.
    pub(super) fn of_label(&self) -> &[f32] {
        &self.of_label[..self.len]
    }

    pub(super) fn confidences(&self) -> &[f32] {
        &self.confidences[..self.len]
    }

    /// 1 for each row whose prediction is its label, 0 for the others.
    pub(super) fn correct(&self) -> &[u32] {
        &self.correct[..self.len]
    }

    /// How many classes come before each row's label: larger ones, and equal ones of a lower index.
    pub(super) fn ranks(&self) -> &[u32] {
        &self.ranks[..self.len]
    }

    /// Losses that are rounded to the same multiple of 2^-32 as [`Outcome::nll`].
    ///
    /// A logarithm in vectors is within 2e-13 of the library's, which is asked only where that could matter: for a row in 500.
    #[inline(always)]
    pub(super) fn losses(&self) -> [f64; ROWS] {
        let (mut losses, mut unclear) = ([0.0; ROWS], [0u64; ROWS]);
        for r in 0..ROWS {
            losses[r] = self.behind[r] + ln_f64(1.0 + self.others[r]);
            unclear[r] = u64::from(!is_clear(losses[r]));
        }
        for (block, unclear) in unclear.as_chunks::<BLOCK>().0.iter().enumerate() {
            if unclear.iter().fold(0, |any, unclear| any | unclear) != 0 {
                for r in (BLOCK * block..).take(BLOCK) {
                    losses[r] = self.nll(r);
                }
            }
        }
        losses
    }

    fn nll(&self, r: usize) -> f64 {
        self.behind[r] + ln_1p(self.others[r])
    }

    /// Brier scores, see [`Outcome::brier`].
    pub(super) fn brier(&self) -> &[f64] {
        &self.brier[..self.len]
    }

    /// The probabilities of one row, filled up with zeros.
    pub(super) fn row(&self, r: usize) -> [f32; BLOCK] {
        let mut row = [0.0; BLOCK];
        row.iter_mut().zip(&self.probs).for_each(|(p, column)| *p = column[r]);
        row
    }

    pub(super) fn outcome(&self, r: usize) -> Outcome {
        Outcome {
            confidence: self.confidences[r],
            correct: self.correct[r] == 1,
            top5: self.ranks[r] < 5,
            nll: self.nll(r),
            brier: self.brier[r],
        }
    }
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn kernel<L: Lanes>(out: &mut NarrowRows, logits: &[f32], labels: &[u32]) -> bool {
    let classes = out.probs.len();
    // Class k of sixteen rows; likewise below.
    let mut columns = [[0f32; BLOCK]; BLOCK];
    let mut terms = [[0f32; BLOCK]; BLOCK];
    let mut sums = [[0f32; BLOCK]; BLOCK];
    let mut others = [[0f64; BLOCK]; BLOCK];
    let mut squares = [[0f64; BLOCK]; BLOCK];
    for (logits, label) in logits.chunks_exact(BLOCK * classes).zip(labels.as_chunks::<BLOCK>().0) {
        for (r, row) in logits.chunks_exact(classes).enumerate() {
            for (column, &z) in columns.iter_mut().zip(row) {
                column[r] = z;
            }
        }
        let columns = &columns[..classes];

        let (mut max, mut own, mut bad) = ([f32::NEG_INFINITY; BLOCK], [0f32; BLOCK], [0u32; BLOCK]);
        for (column, k) in columns.iter().zip(0..) {
            for r in 0..BLOCK {
                max[r] = if column[r] > max[r] { column[r] } else { max[r] };
                own[r] = if label[r] == k { column[r] } else { own[r] };
                bad[r] |= u32::from(column[r].is_nan());
            }
        }
        for r in 0..BLOCK {
            bad[r] |= u32::from(!max[r].is_finite()) | u32::from(label[r] >= classes as u32);
        }
        if bad.iter().fold(0, |a, b| a | b) != 0 {
            return false;
        }

        let (mut top, mut rank) = ([0u32; BLOCK], [0u32; BLOCK]);
        for (k, column) in columns.iter().enumerate().rev() {
            let k = k as u32;
            for r in 0..BLOCK {
                top[r] = if column[r] == max[r] { k } else { top[r] };
            }
            for r in 0..BLOCK {
                let tied = (column[r] == own[r]) & (k < label[r]);
                rank[r] += u32::from((column[r] > own[r]) | tied);
            }
        }

        for (k, column) in columns.iter().enumerate() {
            let (terms, others) = (&mut terms[k], &mut others[k]);
            for r in 0..BLOCK {
                terms[r] = exp(column[r] - max[r]);
            }
            sums[k] = *terms;
            for r in 0..BLOCK {
                let term = exp_f64(f64::from(column[r]) - f64::from(max[r]));
                others[r] = if top[r] == k as u32 { 0.0 } else { term };
            }
        }
        add_halves(&mut sums[..classes]);
        add_halves_f64(&mut others[..classes]);

        let (from, mut of_label) = (out.len, [0f32; BLOCK]);
        for (k, terms) in terms[..classes].iter().enumerate() {
            let (mut probs, squares) = ([0f32; BLOCK], &mut squares[k]);
            for r in 0..BLOCK {
                probs[r] = terms[r] / sums[0][r];
                of_label[r] = if label[r] == k as u32 { probs[r] } else { of_label[r] };
            }
            for r in 0..BLOCK {
                squares[r] = f64::from(probs[r]) * f64::from(probs[r]);
            }
            out.probs[k][from..][..BLOCK].copy_from_slice(&probs);
        }
        add_halves_f64(&mut squares[..classes]);

        let (mut confidence, mut correct) = ([0f32; BLOCK], [0u32; BLOCK]);
        let (mut brier, mut behind) = ([0f64; BLOCK], [0f64; BLOCK]);
        for r in 0..BLOCK {
            // The largest term is exp(0), which is 1.
            confidence[r] = 1.0 / sums[0][r];
            correct[r] = u32::from(top[r] == label[r]);
        }
        for r in 0..BLOCK {
            let own = f64::from(of_label[r]);
            brier[r] = (squares[0][r] - own * own).max(0.0) + (1.0 - own) * (1.0 - own);
        }
        for r in 0..BLOCK {
            behind[r] = f64::from(max[r]) - f64::from(own[r]);
        }
        out.labels[from..][..BLOCK].copy_from_slice(label);
        out.of_label[from..][..BLOCK].copy_from_slice(&of_label);
        out.confidences[from..][..BLOCK].copy_from_slice(&confidence);
        out.correct[from..][..BLOCK].copy_from_slice(&correct);
        out.ranks[from..][..BLOCK].copy_from_slice(&rank);
        out.behind[from..][..BLOCK].copy_from_slice(&behind);
        out.others[from..][..BLOCK].copy_from_slice(&others[0]);
        out.brier[from..][..BLOCK].copy_from_slice(&brier);
        out.len += BLOCK;
    }
    true
}

/// The tree at the end of a sum over classes, which is left in the first: class k takes that of k + 8, of k + 4, 2, 1. Those that
/// are not there would add 0.
#[inline(always)]
fn add_halves(columns: &mut [[f32; BLOCK]]) {
    for width in [8, 4, 2, 1] {
        let (low, high) = columns.split_at_mut(width.min(columns.len()));
        for (low, high) in low.iter_mut().zip(&high[..high.len().min(width)]) {
            for r in 0..BLOCK {
                low[r] += high[r];
            }
        }
    }
}

/// As [`add_halves`].
#[inline(always)]
fn add_halves_f64(columns: &mut [[f64; BLOCK]]) {
    for width in [8, 4, 2, 1] {
        let (low, high) = columns.split_at_mut(width.min(columns.len()));
        for (low, high) in low.iter_mut().zip(&high[..high.len().min(width)]) {
            for r in 0..BLOCK {
                low[r] += high[r];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exact_sum::units;
    use super::super::outcome::RowBuffer;
    use super::super::scores::Kind;
    use super::*;
    use crate::rng::{Domain, Stream};

    #[test]
    fn rows_in_columns_have_the_bits_of_one_by_one() {
        for classes in 1..=BLOCK {
            let mut random = Stream::new(classes as u64, Domain::Bootstrap, 0, 9);
            // Quarters, so that there are ties.
            let mut draw = || (12.0 * random.normal()).round() as f32 / 4.0;
            let logits: Vec<f32> = (0..ROWS * classes).map(|_| draw()).collect();
            let labels: Vec<u32> = (0..ROWS).map(|r| (r * 7 % classes) as u32).collect();
            let (mut rows, mut buffer) = (NarrowRows::new(classes), RowBuffer::new(classes));
            assert!(rows.read(&logits, &labels));
            assert_eq!(rows.len(), ROWS);
            for (r, row) in logits.chunks_exact(classes).enumerate() {
                let expected = buffer.read_f32(row, Kind::Logits, labels[r] as usize).unwrap();
                assert_eq!(rows.outcome(r), expected, "{classes} classes, row {r}");
                assert_eq!(rows.row(r)[..], *buffer.probs());
                assert_eq!(rows.of_label()[r], buffer.probs()[labels[r] as usize]);
                assert_eq!(units(rows.losses()[r]), units(expected.nll));
            }
        }
    }

    #[test]
    fn a_row_that_is_not_in_order_stops_before_its_sixteen() {
        let (good, labels) = ([0.5f32; 6 * BLOCK], [0; 2 * BLOCK]);
        let mut rows = NarrowRows::new(3);
        assert!(rows.read(&good, &labels));
        for (at, z, read) in [(0, f32::NAN, 0), (17, f32::INFINITY, 0), (47, f32::NAN, 0), (48, f32::NAN, BLOCK)] {
            let mut bad = good;
            bad[at] = z;
            assert!(!rows.read(&bad, &labels), "{z} at {at}");
            assert_eq!(rows.len(), read);
        }
        let mut ruled_out = good;
        ruled_out[6..9].fill(f32::NEG_INFINITY);
        assert!(!rows.read(&ruled_out, &labels));
        let mut beyond = labels;
        beyond[15] = 3;
        assert!(!rows.read(&good, &beyond));
    }
}
