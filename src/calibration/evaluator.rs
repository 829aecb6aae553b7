//! Every metric in one pass over batches, on all cores.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::accumulator::Accumulator;
use super::adaptive::{self, Pair};
use super::bin_sweep::{self, BinCount};
use super::bins::Bins;
use super::bootstrap::{self, LARGE_N};
use super::class_resampling::Rows;
use super::metrics::Metrics;
use super::narrow_rows::{NarrowRows, ROWS};
use super::outcome::{BLOCK, Outcome};
use super::recalibration::{Recalibrator, Scratch};
use super::reliability::Reliability;
use super::scores::{Score, Scores, Visit};
use super::tace;
use crate::{Error, Result};

/// Pairs (p_k, [y = k]) that are kept for TACE: 512 MiB of them. With more it is left out.
pub const TACE_PAIRS: u64 = 1 << 27;

/// How the confidences are divided into bins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Bins (lo, hi] of equal width.
    #[default]
    Width,
    /// Bins of equal mass: sizes differ by at most one sample.
    Mass,
}

/// What an [`Evaluator`] computes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of bins, at least 1, of every calibration error but `ece_10`; 15 is usual.
    pub bins: usize,
    /// Their scheme, for `ece`, `rmsce`, `mce`, `l2_debiased_sq` and the reliability diagram.
    pub scheme: Scheme,
    /// Whether to keep what metrics that need the samples' order ask for. Without it memory is O(classes x bins), and `ace`,
    /// `tace`, `aurc`, bins of equal mass, intervals and the sweep of bins are left out.
    pub ordered: bool,
    /// Whether to add 95 % bootstrap intervals.
    pub intervals: bool,
    /// Their seed.
    pub seed: u64,
    /// Whether to add ECE against the number of bins.
    pub bin_sweep: bool,
}

impl Default for Options {
    fn default() -> Self {
        let bins = Bins::STANDARD.count;
        Options { bins, scheme: Scheme::Width, ordered: true, intervals: false, seed: 0, bin_sweep: false }
    }
}

/// Metrics and the data of the pictures of one set of predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Every metric.
    pub metrics: Metrics,
    /// Accuracy and confidence of the bins behind `metrics.ece`.
    pub reliability: Reliability,
    /// ECE against the number of bins, where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bin_sweep: Vec<BinCount>,
}

/// Takes predictions batch by batch, in any order, and gives every metric at the end, intervals included.
///
/// To what [`Accumulator`] holds it adds what metrics that need an order ask for: 4 bytes a sample, and 8 while they are sorted
/// (`ace`, `aurc`), 4 bytes for each probability above 0.01 (`tace`); for intervals of up to 200,000 samples 48 bytes a sample and 8 for each
/// probability above 0.01. The results are equal to the last bit for any order, any batches and any number of threads.
#[derive(Clone, Debug)]
pub struct Evaluator {
    options: Options,
    recalibrator: Option<Recalibrator>,
    samples: u64,
    /// One for each thread: where the samples of a shard come from does not matter to any sum.
    shards: Vec<Shard>,
}

/// What of each sample is kept beyond the sums.
#[derive(Clone, Copy)]
struct Keep {
    order: bool,
    outcomes: bool,
}

#[derive(Clone, Debug)]
struct Shard {
    accumulator: Accumulator,
    /// Of every sample, if [`Options::ordered`].
    top_label: Vec<Pair>,
    /// By class, if [`Options::ordered`]; none once there are too many.
    one_vs_rest: Option<Vec<Vec<Pair>>>,
    pairs: u64,
    /// For intervals; empty once there are more than [`LARGE_N`] samples.
    outcomes: Vec<Outcome>,
    rows: Rows,
    /// Predictions that a recalibrator changed.
    changed: u64,
}

impl Evaluator {
    /// An empty one for `classes` classes.
    pub fn new(classes: usize, options: Options) -> Self {
        let shard = Shard {
            accumulator: Accumulator::with_bins(classes, options.bins),
            top_label: Vec::new(),
            one_vs_rest: options.ordered.then(|| vec![Vec::new(); classes]),
            pairs: 0,
            outcomes: Vec::new(),
            rows: Rows::default(),
            changed: 0,
        };
        let shards = vec![shard; rayon::current_num_threads().max(1)];
        Evaluator { options, recalibrator: None, samples: 0, shards }
    }

    /// As [`Self::new`], for predictions that `recalibrator` mends first.
    pub fn recalibrated(recalibrator: Recalibrator, options: Options) -> Self {
        let empty = Evaluator::new(recalibrator.classes(), options);
        Evaluator { recalibrator: Some(recalibrator), ..empty }
    }

    /// Adds a batch: scores row-major (N, C) and N labels.
    ///
    /// # Errors
    /// See [`Scores::check`]; also beyond 2^32 - 1 samples. A batch that failed may be counted in part.
    pub fn add<T: Score>(&mut self, scores: Scores<T>, labels: &[u32]) -> Result<()> {
        self.add_from(scores, labels, 0).map_err(|detail| Error::shape("calibration", detail))
    }

    /// [`Self::add`] whose errors call the batch's first row `first`.
    pub(super) fn add_from<T: Score>(&mut self, scores: Scores<T>, labels: &[u32], first: u64) -> Result<(), String> {
        let classes = self.shards[0].accumulator.classes();
        if let Some(fault) = scores.shape_fault(labels, classes) {
            return Err(fault);
        }
        if let Some(fault) = self.recalibrator.as_ref().and_then(|mend| mend.kind_fault(scores.kind())) {
            return Err(fault);
        }
        self.samples += labels.len() as u64;
        let keep = Keep {
            order: self.options.ordered,
            outcomes: self.options.ordered && self.options.intervals && self.samples <= LARGE_N as u64,
        };
        if !keep.outcomes {
            self.shards.iter_mut().for_each(|shard| (shard.outcomes, shard.rows) = (Vec::new(), Rows::default()));
        }
        if self.shards.iter().map(|shard| shard.pairs).sum::<u64>() > TACE_PAIRS {
            self.shards.iter_mut().for_each(|shard| shard.one_vs_rest = None);
        }
        let rows = labels.len().div_ceil(self.shards.len()).max(1);
        let recalibrator = self.recalibrator.as_ref();
        let parts = scores.values().par_chunks(rows * classes).zip(labels.par_chunks(rows));
        let added: Vec<_> = (self.shards.par_iter_mut().zip(parts).enumerate())
            .map(|(part, (shard, (values, labels)))| {
                let scores = Scores::new(scores.kind(), values);
                let added = shard.add(scores, labels, recalibrator, keep);
                let rows_before = first + (part * rows) as u64;
                added.map_err(|row| {
                    let (values, labels) = (&values[row * classes..][..classes], &labels[row..=row]);
                    let fault = Scores::new(scores.kind(), values).fault(labels, classes, rows_before + row as u64);
                    fault.unwrap_or_else(|| format!("row {} cannot be recalibrated", rows_before + row as u64))
                })
            })
            .collect();
        added.into_iter().collect()
    }

    /// Number of samples seen.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples whose predicted class the recalibrator changed.
    pub fn changed_predictions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.changed).sum()
    }

    /// Whether there were too many probabilities above 0.01 to keep them all, so that `tace` is left out.
    pub fn leaves_out_tace(&self) -> bool {
        self.shards.iter().map(|shard| shard.pairs).sum::<u64>() > TACE_PAIRS
    }

    /// Every metric of the samples seen.
    ///
    /// # Errors
    /// [`Error::Shape`] when there was none, or more than 2^32 - 1.
    pub fn finish(self) -> Result<Evaluation> {
        let (options, without_tace) = (self.options, self.leaves_out_tace());
        let mut shards = self.shards;
        let top_label: Vec<Vec<Pair>> = shards.iter_mut().map(|shard| std::mem::take(&mut shard.top_label)).collect();
        let one_vs_rest: Option<Vec<Vec<Vec<Pair>>>> =
            shards.iter_mut().map(|shard| shard.one_vs_rest.take()).collect();
        let mut shards = shards.into_iter();
        let mut all = shards.next().expect("there is a shard for every thread, and a thread at least");
        for shard in shards {
            all.merge(shard)?;
        }
        let mut metrics = all.accumulator.metrics()?;
        let mut reliability = all.accumulator.reliability();
        if !options.ordered {
            return Ok(Evaluation { metrics, reliability, bin_sweep: Vec::new() });
        }
        let of_top_label = || {
            let sorted = adaptive::sorted(&top_label);
            drop(top_label);
            let (by_mass, aurc) = rayon::join(|| adaptive::gaps(&sorted, options.bins), || adaptive::aurc(&sorted));
            (sorted, by_mass, aurc)
        };
        let of_class = |k: usize, shards: &[Vec<Vec<Pair>>]| {
            let lists: Vec<&[Pair]> = shards.iter().map(|classes| &classes[k][..]).collect();
            tace::of_class(&lists, metrics.n, options.bins)
        };
        let of_classes = || {
            let shards = one_vs_rest.filter(|_| !without_tace)?;
            let errors: Vec<f64> = (0..shards[0].len()).into_par_iter().map(|k| of_class(k, &shards)).collect();
            Some(errors.iter().sum::<f64>() / errors.len() as f64)
        };
        let ((sorted, by_mass, aurc), tace) = rayon::join(of_top_label, of_classes);
        let stated = adaptive::stated(options.bins);
        metrics.ace = Some(by_mass.ece);
        metrics.binning.insert("ace".into(), format!("{stated}, l1"));
        if options.scheme == Scheme::Mass {
            metrics.use_gaps(by_mass, &stated);
            reliability = adaptive::reliability(&sorted, options.bins);
        }
        metrics.aurc = Some(aurc);
        if tace.is_some() {
            metrics.tace = tace;
            let threshold = adaptive::TACE_THRESHOLD;
            let bins = format!("{stated} of each class's probabilities above {threshold}, l1");
            metrics.binning.insert("tace".into(), bins);
        }
        if options.intervals {
            metrics.intervals = bootstrap::intervals(
                all.outcomes,
                &all.rows,
                all.accumulator.one_vs_rest(),
                &sorted,
                &metrics,
                &options,
            );
        }
        let bin_sweep = if options.bin_sweep { bin_sweep::sweep(&sorted) } else { Vec::new() };
        Ok(Evaluation { metrics, reliability, bin_sweep })
    }
}

impl Shard {
    /// Adds rows; fails with the index of the first that is not in order.
    fn add<T: Score>(
        &mut self,
        scores: Scores<T>,
        labels: &[u32],
        recalibrator: Option<&Recalibrator>,
        keep: Keep,
    ) -> Result<(), usize> {
        let classes = self.accumulator.classes();
        let Some(recalibrator) = recalibrator else {
            return scores.for_each(labels, classes, |visit| match visit {
                Visit::Narrow(rows) => self.add_narrow(rows, keep),
                Visit::Row { row, probs, outcome } => self.add_row(probs, labels[row], outcome, keep),
            });
        };
        let mut scratch = Scratch::new(classes);
        for (row, (values, &label)) in scores.values().chunks_exact(classes).zip(labels).enumerate() {
            let mended = recalibrator.outcome(values, scores.kind(), label, &mut scratch);
            let (outcome, changed) = mended.ok_or(row)?;
            self.changed += u64::from(changed);
            self.add_row(scratch.probs(), label, &outcome, keep);
        }
        Ok(())
    }

    fn add_row(&mut self, probs: &[f32], label: u32, outcome: &Outcome, keep: Keep) {
        self.accumulator.add_row(probs, label, outcome);
        if keep.order {
            self.top_label.push(Pair::new(outcome.confidence, outcome.correct));
        }
        if let Some(classes) = &mut self.one_vs_rest {
            for (b, block) in probs.chunks(BLOCK).enumerate() {
                // Whole blocks are compared at once, since few of many classes are above.
                if !block.iter().fold(false, |above, &p| above | (p > adaptive::TACE_THRESHOLD)) {
                    continue;
                }
                for (l, &p) in block.iter().enumerate().filter(|(_, p)| **p > adaptive::TACE_THRESHOLD) {
                    let k = BLOCK * b + l;
                    classes[k].push(Pair::new(p, k == label as usize));
                    self.pairs += 1;
                }
            }
        }
        if keep.outcomes {
            self.outcomes.push(*outcome);
            self.rows.add(probs, label);
        }
    }

    /// Adds rows in columns.
    fn add_narrow(&mut self, rows: &NarrowRows, keep: Keep) {
        self.accumulator.add_narrow(rows);
        if keep.order {
            let pairs = rows.confidences().iter().zip(rows.correct());
            self.top_label.extend(pairs.map(|(&confidence, &correct)| Pair::new(confidence, correct == 1)));
        }
        if let Some(classes) = &mut self.one_vs_rest {
            for ((kept, probs), k) in classes.iter_mut().zip(rows.probs()).zip(0..) {
                let mut pairs = [Pair::default(); ROWS];
                for ((pair, &p), &label) in pairs.iter_mut().zip(probs).zip(rows.labels()) {
                    *pair = Pair::new(p, label == k);
                }
                let before = kept.len();
                kept.resize(before + probs.len(), Pair::default());
                let above = adaptive::keep_above(&pairs[..probs.len()], adaptive::TACE_THRESHOLD, &mut kept[before..]);
                kept.truncate(before + above);
                self.pairs += above as u64;
            }
        }
        if keep.outcomes {
            for (r, &label) in rows.labels().iter().enumerate() {
                self.outcomes.push(rows.outcome(r));
                self.rows.add(&rows.row(r), label);
            }
        }
    }

    /// Adds what another one has seen, but for its pairs.
    fn merge(&mut self, other: Shard) -> Result<()> {
        self.accumulator.merge(&other.accumulator)?;
        self.outcomes.extend(other.outcomes);
        self.rows.extend(other.rows);
        self.changed += other.changed;
        Ok(())
    }
}
