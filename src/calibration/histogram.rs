//! What one pass over the logits of a batch says of accuracy, loss and calibration, in integers: the same on every device.
//!
//! Any device may compute it ([`Backend::calibration_histogram`](crate::backend::Backend::calibration_histogram)). Each term of a
//! row is made of IEEE operations in a stated order, without a library function, and rounded once to a multiple of 2^-32;
//! rows are added as integers. So the order of rows, batches and shards changes nothing, and equal logits give equal bits.

use std::ops::AddAssign;

use super::bins::Bins;
use super::exact_sum::ExactSum;
use super::metrics::Gaps;
use super::reliability::Tally;
use super::softmax::{LANES, argmax, ln, softmax};
use crate::{Error, Result};

/// A loss from here on counts as infinite, so that a device may add up 2^18 rows in 64 bits.
pub const LARGEST_LOSS: f64 = 16_384.0;

/// Words of a histogram as a device returns it: see [`Histogram::from_words`].
pub const WORDS: usize = 3 * BINS + 3;

const BINS: usize = Bins::STANDARD.count;

/// Top-label calibration, loss and Brier score of the rows seen so far, 2^32 - 1 at most, over the 15 bins (lo, hi] of the usual
/// ECE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    bins: [Tally; BINS],
    nll: ExactSum,
    brier: ExactSum,
}

impl Histogram {
    /// Of logits, row-major (N, `classes`), and their N labels.
    ///
    /// Of a row: its softmax as [`softmax`] defines it; nll = (max - z_label) + ln(sum of the softmax) by [`ln`], infinite from
    /// [`LARGEST_LOSS`] on; Brier sum_k (p_k - [k = label])^2, differences in f32 and squares in f64, lane k % 32 adding its
    /// terms in order and lanes in a tree as the softmax does. Logits are as [`softmax`] wants them.
    ///
    /// # Errors
    /// See [`Histogram::check`].
    pub fn of(logits: &[f32], labels: &[u32], classes: usize) -> Result<Self> {
        Self::check(logits.len(), labels, classes)?;
        let mut all = Histogram::default();
        let mut probs = vec![0.0; classes];
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            let (top, label) = (argmax(row), label as usize);
            let sum = softmax(row, &mut probs);
            let nll = (f64::from(row[top]) - f64::from(row[label])) + ln(sum);
            all.nll.add(if nll < LARGEST_LOSS { nll } else { f64::INFINITY });
            let mut lanes = [0f64; LANES];
            for (k, &p) in probs.iter().enumerate() {
                let off = f64::from(if k == label { p - 1.0 } else { p });
                lanes[k % LANES] = off.mul_add(off, lanes[k % LANES]);
            }
            for width in [16, 8, 4, 2, 1] {
                for lane in 0..width {
                    lanes[lane] += lanes[lane + width];
                }
            }
            all.brier.add(lanes[0]);
            let confidence = probs[top].min(1.0);
            all.bins[Bins::STANDARD.index(confidence)].add(confidence, top == label);
        }
        Ok(all)
    }

    /// Checks what a device does not.
    ///
    /// # Errors
    /// [`Error::Shape`] where `values` logits are not a row of `classes` for every label, or a label is not below `classes`.
    pub fn check(values: usize, labels: &[u32], classes: usize) -> Result<()> {
        let fail = |detail: String| Err(Error::shape("calibration", detail));
        if classes == 0 || labels.len().checked_mul(classes) != Some(values) {
            let rows = labels.len();
            return fail(format!("{values} logits for {rows} labels, expected {rows} rows of {classes} classes"));
        }
        match labels.iter().position(|&label| label as usize >= classes) {
            Some(row) => fail(format!("row {row} has label {}, expected one below {classes}", labels[row])),
            None => Ok(()),
        }
    }

    /// As a device adds it up: of each bin the rows, of each the correct ones, of each the confidences, then losses, infinite
    /// losses and Brier scores; sums in multiples of 2^-32.
    pub fn from_words(words: &[u64; WORDS]) -> Self {
        let bin = |b: usize| Tally { n: words[b], correct: words[BINS + b], confidence: words[2 * BINS + b] };
        Histogram {
            bins: std::array::from_fn(bin),
            nll: ExactSum::of_units(words[3 * BINS], words[3 * BINS + 1]),
            brier: ExactSum::of_units(words[3 * BINS + 2], 0),
        }
    }

    /// Rows seen.
    pub fn n(&self) -> u64 {
        self.bins.iter().map(|bin| bin.n).sum()
    }

    /// The fraction of rows whose largest logit, the first among equals, is the label's.
    pub fn accuracy(&self) -> f64 {
        self.bins.iter().map(|bin| bin.correct).sum::<u64>() as f64 / self.n() as f64
    }

    /// Mean negative log-likelihood in nats, good to 1e-7.
    pub fn nll(&self) -> f64 {
        self.nll.value() / self.n() as f64
    }

    /// Brier score: the mean of sum_k (p_k - [k = label])^2.
    pub fn brier(&self) -> f64 {
        self.brier.value() / self.n() as f64
    }

    /// Expected calibration error over 15 bins (lo, hi] (Guo et al. 2017).
    pub fn ece(&self) -> f64 {
        Gaps::of(self.bins.iter().map(|bin| (bin.n, bin.correct, bin.surplus()))).ece
    }
}

impl AddAssign<&Histogram> for Histogram {
    fn add_assign(&mut self, other: &Histogram) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(bin, other)| bin.merge(other));
        self.nll += other.nll;
        self.brier += other.brier;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Accumulator;
    use super::*;
    use crate::rng::{Domain, Stream};

    fn rows(n: usize, classes: usize, scale: f64) -> (Vec<f32>, Vec<u32>) {
        let mut stream = Stream::new(classes as u64, Domain::Bootstrap, 0, 0);
        let logits = (0..n * classes).map(|_| (stream.normal() * scale) as f32).collect();
        (logits, (0..n).map(|_| stream.below(classes as u32)).collect())
    }

    // The accumulator's own softmax decides bins; loss and Brier score it takes in f64.
    #[test]
    fn metrics_agree_with_those_of_the_f64_accumulator() {
        for (classes, scale) in [(2, 0.1), (10, 3.0), (33, 20.0), (100, 1.0)] {
            let (logits, labels) = rows(500, classes, scale);
            let mut exact = Accumulator::new(classes);
            exact.add_logits(&logits, &labels).unwrap();
            let (exact, seen) = (exact.metrics().unwrap(), Histogram::of(&logits, &labels, classes).unwrap());
            assert_eq!((seen.n(), seen.accuracy(), seen.ece()), (exact.n, exact.accuracy, exact.ece));
            assert!((seen.nll() - exact.nll).abs() < 2e-7, "{} is not {}", seen.nll(), exact.nll);
            assert!((seen.brier() - exact.brier).abs() < 2e-7, "{} is not {}", seen.brier(), exact.brier);
        }
    }

    #[test]
    fn shards_in_any_order_add_up_to_the_whole() {
        let (logits, labels) = rows(90, 7, 2.0);
        let whole = Histogram::of(&logits, &labels, 7).unwrap();
        let mut sum = Histogram::default();
        for (from, to) in [(60, 90), (0, 1), (1, 60)] {
            sum += &Histogram::of(&logits[7 * from..7 * to], &labels[from..to], 7).unwrap();
        }
        assert_eq!(sum, whole);
    }

    #[test]
    fn a_label_that_was_ruled_out_is_an_infinite_loss() {
        let seen = Histogram::of(&[0.0, f32::NEG_INFINITY], &[1], 2).unwrap();
        assert_eq!((seen.nll(), seen.brier(), seen.ece()), (f64::INFINITY, 2.0, 1.0));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = |logits: &[f32], labels: &[u32]| Histogram::of(logits, labels, 2).unwrap_err().to_string();
        assert_eq!(message(&[0.0; 4], &[0, 2]), "calibration: row 1 has label 2, expected one below 2");
        assert_eq!(message(&[0.0; 3], &[0, 1]), "calibration: 3 logits for 2 labels, expected 2 rows of 2 classes");
    }
}
