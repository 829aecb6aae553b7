//! One pass over predictions, in any order and any number of shards.

use std::collections::BTreeMap;

use super::bins::{BinTable, Bins};
use super::bootstrap::Intervals;
use super::brier_parts::{BinSums, BrierParts};
use super::exact_sum::ExactSum;
use super::metrics::{Gaps, Metrics};
use super::narrow_rows::{NarrowRows, ROWS};
use super::one_vs_rest::{ClassTally, OneVsRest};
use super::outcome::Outcome;
use super::reliability::{Reliability, Tally};
use super::scores::{Score, Scores, Visit};
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};
use crate::{Error, Result};

/// Everything the metrics need of the samples seen so far, but for those that need their order ([`super::Evaluator`]).
///
/// Memory is O(classes x bins). Only integers are added, so any order of the samples and any split into merged shards
/// gives the same bits. It takes 2^32 - 1 samples at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accumulator {
    classes: usize,
    bins: BinTable,
    paper_bins: BinTable,
    n: u64,
    correct: u64,
    top5: u64,
    nll: ExactSum,
    brier: ExactSum,
    binned: Vec<Tally>,
    paper: Vec<Tally>,
    one_vs_rest: OneVsRest,
}

/// Samples that [`Accumulator`] takes at most: what the 64-bit sums of a class hold.
const MOST_SAMPLES: u64 = u32::MAX as u64;

impl Accumulator {
    /// An empty one for `classes` classes and the usual 15 bins.
    pub fn new(classes: usize) -> Self {
        Accumulator::with_bins(classes, Bins::STANDARD.count)
    }

    /// An empty one for `classes` classes and `count` equal-width bins (lo, hi], at least 1. `ece_10` has its own ten.
    pub fn with_bins(classes: usize, count: usize) -> Self {
        let bins = Bins { count: count.max(1), ..Bins::STANDARD };
        Accumulator {
            classes,
            bins: BinTable::new(bins),
            paper_bins: BinTable::new(Bins::PAPER),
            n: 0,
            correct: 0,
            top5: 0,
            nll: ExactSum::default(),
            brier: ExactSum::default(),
            binned: vec![Tally::default(); bins.count],
            paper: vec![Tally::default(); Bins::PAPER.count],
            one_vs_rest: OneVsRest::new(classes, bins),
        }
    }

    /// Number of samples seen.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Adds a batch of logits, row-major (N, C), and its N labels.
    ///
    /// # Errors
    /// See [`Scores::check`]; nothing was added then.
    pub fn add_logits(&mut self, logits: &[f32], labels: &[u32]) -> Result<()> {
        self.add(Scores::Logits(logits), labels)
    }

    /// Adds a batch of probabilities, row-major (N, C), and its N labels.
    ///
    /// # Errors
    /// See [`Scores::check`]; nothing was added then.
    pub fn add_probs(&mut self, probs: &[f32], labels: &[u32]) -> Result<()> {
        self.add(Scores::Probs(probs), labels)
    }

    /// Adds a batch of either kind.
    ///
    /// # Errors
    /// See [`Scores::check`]; also beyond 2^32 - 1 samples. Nothing was added then.
    pub fn add<T: Score>(&mut self, scores: Scores<T>, labels: &[u32]) -> Result<()> {
        scores.check(labels, self.classes)?;
        check_room(self.n + labels.len() as u64)?;
        let added = scores.for_each(labels, self.classes, |visit| match visit {
            Visit::Narrow(rows) => self.add_narrow(rows),
            Visit::Row { row, probs, outcome } => self.add_row(probs, labels[row], outcome),
        });
        debug_assert!(added.is_ok(), "every row was checked");
        Ok(())
    }

    /// Adds one sample; `probs` may be padded with zeros.
    pub(super) fn add_row(&mut self, probs: &[f32], label: u32, outcome: &Outcome) {
        self.n += 1;
        self.correct += u64::from(outcome.correct);
        self.top5 += u64::from(outcome.top5);
        self.nll.add(outcome.nll);
        self.brier.add(outcome.brier);
        self.binned[self.bins.index(outcome.confidence)].add(outcome.confidence, outcome.correct);
        self.paper[self.paper_bins.index(outcome.confidence)].add(outcome.confidence, outcome.correct);
        self.one_vs_rest.add(probs, label as usize);
    }

    /// Adds rows in columns.
    pub(super) fn add_narrow(&mut self, rows: &NarrowRows) {
        dispatch!(Level::detect(), add_narrow_kernel(sums: &mut Accumulator = self, rows: &NarrowRows = rows));
        self.one_vs_rest.add_narrow(rows);
    }

    /// Adds the samples another one has seen.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is for another number of classes or bins, and beyond 2^32 - 1 samples.
    pub fn merge(&mut self, other: &Accumulator) -> Result<()> {
        let fail = |detail| Err(Error::shape("calibration", detail));
        if self.classes != other.classes {
            return fail(format!("cannot merge {} classes into {}", other.classes, self.classes));
        }
        if self.bins != other.bins {
            return fail(format!("cannot merge {} into {}", other.bins.bins, self.bins.bins));
        }
        check_room(self.n + other.n)?;
        self.n += other.n;
        self.correct += other.correct;
        self.top5 += other.top5;
        self.nll += other.nll;
        self.brier += other.brier;
        for (ours, theirs) in self.binned.iter_mut().zip(&other.binned).chain(self.paper.iter_mut().zip(&other.paper)) {
            ours.merge(theirs);
        }
        self.one_vs_rest.merge(&other.one_vs_rest);
        Ok(())
    }

    /// Accuracy and confidence of each bin.
    pub fn reliability(&self) -> Reliability {
        Reliability::new(self.bins.bins, &self.binned)
    }

    /// Every metric that needs no order: all but `ace`, `tace`, `aurc` and the intervals.
    ///
    /// # Errors
    /// [`Error::Shape`] when no sample was added.
    pub fn metrics(&self) -> Result<Metrics> {
        if self.n == 0 {
            return Err(Error::shape("calibration", "no samples, expected at least 1"));
        }
        let mean = |sum: f64| sum / self.n as f64;
        let gaps = |tallies: &[Tally]| Gaps::of(tallies.iter().map(|t| (t.n, t.correct, t.surplus())));
        let (binned, paper) = (gaps(&self.binned), gaps(&self.paper));
        let parts = self.brier_parts();
        Ok(Metrics {
            n: self.n,
            accuracy: mean(self.correct as f64),
            top5: (self.classes >= 5).then(|| mean(self.top5 as f64)),
            nll: mean(self.nll.value()),
            nll_infinite: self.nll.infinite(),
            brier: mean(self.brier.value()),
            brier_reliability: parts.reliability,
            brier_resolution: parts.resolution,
            brier_uncertainty: parts.uncertainty,
            brier_within_bin: parts.within_bin,
            ece: binned.ece,
            ece_10: paper.ece,
            rmsce: binned.rmsce,
            mce: binned.mce,
            ace: None,
            class_ece: self.class_ece(),
            tace: None,
            l2_debiased_sq: binned.l2_debiased_sq,
            aurc: None,
            binning: self.binning(binned.l2_debiased_sq.is_some()),
            intervals: Intervals::default(),
        })
    }

    /// Mean over the classes of the binary ECE of p_k against [y = k].
    fn class_ece(&self) -> f64 {
        let error = |bins: Vec<ClassTally>| bins.iter().map(|t| t.p().below(t.positives).abs()).sum::<f64>();
        let total: f64 = self.one_vs_rest.classes().map(error).sum();
        total / self.n as f64 / self.classes as f64
    }

    fn brier_parts(&self) -> BrierParts {
        let mut parts = BrierParts::default();
        for bins in self.one_vs_rest.classes() {
            let sums: Vec<BinSums> = bins.iter().map(BinSums::of).collect();
            parts.add_class(&sums, self.n as f64);
        }
        parts
    }

    /// Each class's own probability against [y = k].
    pub(super) fn one_vs_rest(&self) -> &OneVsRest {
        &self.one_vs_rest
    }

    /// What [`Metrics::binning`] says of the errors that need no order.
    fn binning(&self, debiased: bool) -> BTreeMap<String, String> {
        let (bins, paper) = (self.bins.bins, Bins::PAPER);
        let mut binning = BTreeMap::from([
            ("ece".into(), format!("{bins}, l1")),
            ("ece_10".into(), format!("{paper}, l1")),
            ("rmsce".into(), format!("{bins}, l2")),
            ("mce".into(), format!("{bins}, max")),
            ("class_ece".into(), format!("{bins} of each class's probability, l1")),
        ]);
        if debiased {
            binning.insert("l2_debiased_sq".into(), format!("{bins}, l2 squared"));
        }
        binning
    }
}

/// Adds all but what is taken class by class.
///
/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn add_narrow_kernel<L: Lanes>(sums: &mut Accumulator, rows: &NarrowRows) {
    sums.n += rows.len() as u64;
    sums.correct += u64::from(rows.correct().iter().sum::<u32>());
    sums.top5 += u64::from(rows.ranks().iter().map(|&rank| u32::from(rank < 5)).sum::<u32>());
    sums.nll.add_all(&rows.losses()[..rows.len()]);
    sums.brier.add_all(rows.brier());
    let confidences = rows.confidences();
    for (bins, tallies) in [(&sums.bins, &mut sums.binned), (&sums.paper_bins, &mut sums.paper)] {
        let mut indices = [0; ROWS];
        bins.bins.indices(confidences, &mut indices);
        for ((&bin, &confidence), &correct) in indices.iter().zip(confidences).zip(rows.correct()) {
            tallies[bin as usize].add(confidence, correct == 1);
        }
    }
}

/// Whether so many samples can be held.
fn check_room(samples: u64) -> Result<()> {
    if samples > MOST_SAMPLES {
        return Err(Error::shape("calibration", format!("{samples} samples, expected at most {MOST_SAMPLES}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accumulate(logits: &[f32], labels: &[u32], classes: usize) -> Accumulator {
        let mut accumulator = Accumulator::new(classes);
        accumulator.add_logits(logits, labels).unwrap();
        accumulator
    }

    fn samples(classes: usize) -> impl Strategy<Value = Vec<(Vec<f32>, u32)>> {
        let row = prop::collection::vec(-9f32..9.0, classes);
        prop::collection::vec((row, 0..classes as u32), 1..60)
    }

    fn columns(samples: &[(Vec<f32>, u32)]) -> (Vec<f32>, Vec<u32>) {
        (samples.iter().flat_map(|s| s.0.clone()).collect(), samples.iter().map(|s| s.1).collect())
    }

    proptest! {
        #[test]
        fn order_and_shards_do_not_change_a_bit(samples in samples(6), cut in 0usize..60) {
            let (logits, labels) = columns(&samples);
            let whole = accumulate(&logits, &labels, 6);
            let reversed: Vec<_> = samples.iter().rev().cloned().collect();
            let (first, second) = reversed.split_at(cut.min(reversed.len()));
            let mut merged = Accumulator::new(6);
            for shard in [second, first] {
                let (logits, labels) = columns(shard);
                merged.merge(&accumulate(&logits, &labels, 6)).unwrap();
            }
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn ece_is_at_most_rmsce_and_rmsce_at_most_mce(samples in samples(4)) {
            let (logits, labels) = columns(&samples);
            let metrics = accumulate(&logits, &labels, 4).metrics().unwrap();
            prop_assert!(metrics.ece <= metrics.rmsce + 1e-12 && metrics.rmsce <= metrics.mce + 1e-12);
        }

        #[test]
        fn the_parts_of_the_brier_score_add_up(samples in samples(5)) {
            let (logits, labels) = columns(&samples);
            let m = accumulate(&logits, &labels, 5).metrics().unwrap();
            let sum = m.brier_reliability - m.brier_resolution + m.brier_uncertainty + m.brier_within_bin;
            prop_assert!((sum - m.brier).abs() < 1e-8, "{} is not {}", sum, m.brier);
        }
    }

    #[test]
    fn merging_another_number_of_classes_is_an_error() {
        let message = Accumulator::new(10).merge(&Accumulator::new(3)).unwrap_err().to_string();
        assert!(message.contains("3 classes into 10"), "{message}");
        let message = Accumulator::new(3).merge(&Accumulator::with_bins(3, 20)).unwrap_err().to_string();
        assert!(message.contains("20 equal-width bins"), "{message}");
    }

    #[test]
    fn a_bad_batch_adds_nothing() {
        let mut accumulator = Accumulator::new(2);
        assert!(accumulator.add_logits(&[0.0, 1.0, 0.0, f32::NAN], &[0, 1]).is_err());
        assert_eq!(accumulator, Accumulator::new(2));
        assert!(accumulator.metrics().is_err());
    }
}
