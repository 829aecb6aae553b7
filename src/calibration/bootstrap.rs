//! Confidence intervals by resampling.

use rand_core::TryRng;
use rand_distr::{Binomial, Distribution};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::adaptive::{Pair, equal_mass_bins};
use super::bins::Bins;
use super::class_resampling::{ClassCells, Row, Rows};
use super::evaluator::{Options, Scheme};
use super::metrics::{Gaps, Metrics};
use super::one_vs_rest::OneVsRest;
use super::outcome::Outcome;
use crate::rng::{Domain, Stream};

/// Number of resamples.
pub const RESAMPLES: u32 = 1000;

/// Above this many samples [`Method::Multinomial`] takes over.
pub const LARGE_N: usize = 200_000;

/// Equal-width confidence cells of the multinomial bootstrap, each split into right and wrong.
pub(super) const CELLS: usize = 4096;

/// How the intervals were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Samples drawn with replacement.
    #[serde(rename = "basic bootstrap, 1000 resamples")]
    Samples,
    /// Above 200,000 samples: counts drawn over 4,096 confidence cells x correct. Intervals of metrics that are not
    /// functions of (confidence, correct) are left out.
    #[serde(rename = "basic multinomial bootstrap over 4096 confidence cells x correct, 1000 resamples")]
    Multinomial,
    /// Above 200,000 samples of two files: counts of each file drawn over 4,096 cells of neighbouring confidences.
    #[serde(rename = "basic multinomial bootstrap over 4096 equal-mass confidence cells, 1000 resamples")]
    EqualMass,
}

/// 95 % intervals [low, high] of metrics, in the metrics' units.
///
/// Basic (reflected) bootstrap: with estimate t and the resamples' quantiles q, [2 t - q(97.5 %), 2 t - q(2.5 %)], cut to
/// the metric's range (never below 0, `l2_debiased_sq` excepted). Resampled ECE is biased upwards, so the percentile
/// interval would often lie wholly above the estimate; the reflected one undoes that. Class-wise, probabilities up to 0.01 of
/// wrong classes enter a resample by their mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of `accuracy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_ci95: Option<[f64; 2]>,
    /// Of `top5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5_ci95: Option<[f64; 2]>,
    /// Of `nll`; left out when that is infinite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nll_ci95: Option<[f64; 2]>,
    /// Of `brier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_ci95: Option<[f64; 2]>,
    /// Of `brier_reliability`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_reliability_ci95: Option<[f64; 2]>,
    /// Of `brier_resolution`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_resolution_ci95: Option<[f64; 2]>,
    /// Of `brier_uncertainty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_uncertainty_ci95: Option<[f64; 2]>,
    /// Of `brier_within_bin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_within_bin_ci95: Option<[f64; 2]>,
    /// Of `ece`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece_ci95: Option<[f64; 2]>,
    /// Of `ece_10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece_10_ci95: Option<[f64; 2]>,
    /// Of `rmsce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rmsce_ci95: Option<[f64; 2]>,
    /// Of `mce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mce_ci95: Option<[f64; 2]>,
    /// Of `ace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ace_ci95: Option<[f64; 2]>,
    /// Of `class_ece`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_ece_ci95: Option<[f64; 2]>,
    /// Of `tace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tace_ci95: Option<[f64; 2]>,
    /// Of `l2_debiased_sq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_debiased_sq_ci95: Option<[f64; 2]>,
    /// Of `aurc`; left out above 200,000 samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aurc_ci95: Option<[f64; 2]>,
    /// How they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95_method: Option<Method>,
}

/// What resampling draws: one sample, or all samples of a confidence cell by their mean confidence.
#[derive(Clone, Copy)]
struct Cell {
    outcome: Outcome,
    confidence: f64,
    bin: usize,
    paper: usize,
}

impl Cell {
    fn new(outcome: Outcome, confidence: f64, bins: Bins) -> Self {
        let rounded = confidence as f32;
        Cell { outcome, confidence, bin: bins.index(rounded), paper: Bins::PAPER.index(rounded) }
    }
}

/// The resampled quantities, in the order in which [`intervals`] takes them.
type Statistics = [f64; 17];

/// Intervals of `metrics`. Up to [`LARGE_N`] samples their outcomes are given, in any order; above, only the sorted top-label
/// pairs are looked at. Resample r draws from the stream (seed, [`Domain::Bootstrap`], r) over sorted samples, so neither
/// their order nor the thread count changes a bit.
pub(super) fn intervals(
    outcomes: Vec<Outcome>,
    rows: &Rows,
    tallies: &OneVsRest,
    pairs: &[Pair],
    metrics: &Metrics,
    options: &Options,
) -> Intervals {
    let bins = Bins { count: options.bins, ..Bins::STANDARD };
    let method = if pairs.len() > LARGE_N { Method::Multinomial } else { Method::Samples };
    let (cells, counts, classes) = match method {
        Method::Samples => {
            let mut samples: Vec<(Outcome, Row)> = outcomes.into_iter().zip(rows.iter()).collect();
            samples.sort_unstable_by(|(a, row), (b, other)| {
                (a.confidence.total_cmp(&b.confidence))
                    .then(a.correct.cmp(&b.correct))
                    .then(a.nll.total_cmp(&b.nll))
                    .then(a.brier.total_cmp(&b.brier))
                    .then(a.top5.cmp(&b.top5))
                    .then_with(|| row.cmp(other))
            });
            let (outcomes, rows): (Vec<Outcome>, Vec<Row>) = samples.into_iter().unzip();
            let cells: Vec<Cell> = outcomes.iter().map(|o| Cell::new(*o, f64::from(o.confidence), bins)).collect();
            let counts = vec![1; cells.len()];
            (cells, counts, Some(ClassCells::new(&rows, tallies, bins)))
        }
        _ => {
            let (cells, counts) = confidence_cells(pairs, bins);
            (cells, counts, None)
        }
    };
    let n = pairs.len() as u64;
    let statistics = |counts: &[u64]| statistics(&cells, counts, n, classes.as_ref(), options);
    let resamples = Resamples::new(options.seed, 0, statistics(&counts), |mut stream| {
        statistics(&match method {
            Method::Samples => draw_samples(cells.len(), &mut stream),
            _ => draw_multinomial(&counts, n, &mut stream),
        })
    });
    let interval = |at, estimate, range| resamples.interval(at, estimate, range);
    let by_sample = |at, estimate, range| (method == Method::Samples).then(|| interval(at, estimate, range)).flatten();
    Intervals {
        accuracy_ci95: interval(0, Some(metrics.accuracy), FRACTION),
        top5_ci95: by_sample(1, metrics.top5, FRACTION),
        nll_ci95: by_sample(2, Some(metrics.nll), [0.0, f64::INFINITY]),
        brier_ci95: by_sample(3, Some(metrics.brier), [0.0, 2.0]),
        brier_reliability_ci95: by_sample(13, Some(metrics.brier_reliability), [0.0, 2.0]),
        brier_resolution_ci95: by_sample(14, Some(metrics.brier_resolution), FRACTION),
        brier_uncertainty_ci95: by_sample(15, Some(metrics.brier_uncertainty), FRACTION),
        brier_within_bin_ci95: by_sample(16, Some(metrics.brier_within_bin), ANY),
        ece_ci95: interval(4, Some(metrics.ece), FRACTION),
        ece_10_ci95: interval(5, Some(metrics.ece_10), FRACTION),
        rmsce_ci95: interval(6, Some(metrics.rmsce), FRACTION),
        mce_ci95: interval(7, Some(metrics.mce), FRACTION),
        ace_ci95: interval(8, metrics.ace, FRACTION),
        class_ece_ci95: by_sample(11, Some(metrics.class_ece), FRACTION),
        tace_ci95: by_sample(12, metrics.tace, FRACTION),
        l2_debiased_sq_ci95: interval(9, metrics.l2_debiased_sq, ANY),
        aurc_ci95: by_sample(10, metrics.aurc, FRACTION),
        ci95_method: Some(method),
    }
}

/// The range of fractions.
pub(super) const FRACTION: [f64; 2] = [0.0, 1.0];
/// That of what may be negative.
const ANY: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// K quantities of [`RESAMPLES`] resamples.
pub(super) struct Resamples<const K: usize> {
    /// Of what is drawn from: resamples scatter around that, which need not be the estimate where cells stand for samples.
    centre: [f64; K],
    drawn: Vec<[f64; K]>,
}

impl<const K: usize> Resamples<K> {
    /// Resample r is made by `draw` from the stream (seed, [`Domain::Bootstrap`], r, `of`).
    pub(super) fn new(seed: u64, of: u32, centre: [f64; K], draw: impl Fn(Stream) -> [f64; K] + Sync) -> Self {
        let one = |r| draw(Stream::new(seed, Domain::Bootstrap, r, of));
        Resamples { centre, drawn: (0..RESAMPLES).into_par_iter().map(one).collect() }
    }

    /// The basic interval of quantity `at`, cut to `range`; none where there is no finite estimate.
    pub(super) fn interval(&self, at: usize, estimate: Option<f64>, range: [f64; 2]) -> Option<[f64; 2]> {
        let estimate = estimate.filter(|value| value.is_finite())?;
        let mut drawn: Vec<f64> = self.drawn.iter().map(|quantities| quantities[at]).collect();
        drawn.sort_unstable_by(f64::total_cmp);
        let bound = |q: f64| (estimate + self.centre[at] - quantile(&drawn, q)).clamp(range[0], range[1]);
        Some([bound(0.975), bound(0.025)])
    }
}

/// Sums up sorted pairs by (confidence cell, correct): each cell at its mean confidence, and the cells' counts.
fn confidence_cells(pairs: &[Pair], bins: Bins) -> (Vec<Cell>, Vec<u64>) {
    let cell_of = |pair: &Pair| ((pair.probability() * CELLS as f32) as usize).min(CELLS - 1);
    let (mut cells, mut counts) = (Vec::new(), Vec::new());
    for group in pairs.chunk_by(|a, b| cell_of(a) == cell_of(b)) {
        for correct in [false, true] {
            let members = || group.iter().filter(|pair| pair.hit() == correct);
            let count = members().count();
            if count == 0 {
                continue;
            }
            let mean = members().map(|pair| f64::from(pair.probability())).sum::<f64>() / count as f64;
            // What is not a function of (confidence, correct) is left out of the intervals.
            let outcome = Outcome { confidence: mean as f32, correct, top5: false, nll: 0.0, brier: 0.0 };
            cells.push(Cell::new(outcome, mean, bins));
            counts.push(count as u64);
        }
    }
    (cells, counts)
}

/// How often each of `n` samples is drawn in `n` draws with replacement.
pub(super) fn draw_samples(n: usize, stream: &mut Stream) -> Vec<u64> {
    let mut counts = vec![0; n];
    for _ in 0..n {
        counts[stream.below(n as u32) as usize] += 1;
    }
    counts
}

/// `n` draws over cells with probabilities counts / n: cell by cell a binomial of what is left.
pub(super) fn draw_multinomial(counts: &[u64], n: u64, stream: &mut Stream) -> Vec<u64> {
    let mut bits = Bits(stream);
    let (mut draws, mut mass) = (n, n);
    let draw = |&count: &u64| {
        let share = count as f64 / mass as f64;
        let binomial = Binomial::new(draws, share).expect("a count is at most the mass that is left");
        let drawn = binomial.sample(&mut bits);
        draws -= drawn;
        mass -= count;
        drawn
    };
    counts.iter().map(draw).collect()
}

/// The metrics of a resample: `counts[i]` copies of cell i, `n` in all.
fn statistics(cells: &[Cell], counts: &[u64], n: u64, classes: Option<&ClassCells>, options: &Options) -> Statistics {
    let mut binned = vec![(0u64, 0u64, 0f64); options.bins];
    let mut paper = [(0u64, 0u64, 0f64); Bins::PAPER.count];
    let (mut correct, mut top5, mut nll, mut brier) = (0, 0, 0.0, 0.0);
    for (cell, &copies) in cells.iter().zip(counts).filter(|(_, copies)| **copies > 0) {
        let hits = if cell.outcome.correct { copies } else { 0 };
        let surplus = hits as f64 - copies as f64 * cell.confidence;
        for bin in [&mut binned[cell.bin], &mut paper[cell.paper]] {
            *bin = (bin.0 + copies, bin.1 + hits, bin.2 + surplus);
        }
        correct += hits;
        top5 += if cell.outcome.top5 { copies } else { 0 };
        nll += copies as f64 * cell.outcome.nll;
        brier += copies as f64 * cell.outcome.brier;
    }
    let sorted = cells.iter().zip(counts).map(|(cell, &copies)| (cell.confidence, cell.outcome.correct, copies));
    let by_mass = Gaps::of(equal_mass_bins(sorted, n, options.bins).into_iter());
    let main = match options.scheme {
        Scheme::Width => Gaps::of(binned.into_iter()),
        Scheme::Mass => by_mass,
    };
    let mean = |sum: f64| sum / n as f64;
    let by_class = classes.map(|classes| classes.statistics(counts)).unwrap_or_default();
    [
        mean(correct as f64),
        mean(top5 as f64),
        mean(nll),
        mean(brier),
        main.ece,
        Gaps::of(paper.into_iter()).ece,
        main.rmsce,
        main.mce,
        by_mass.ece,
        main.l2_debiased_sq.unwrap_or(0.0),
        if n as usize > LARGE_N { 0.0 } else { aurc(cells, counts, n) },
        by_class.class_ece,
        by_class.tace,
        by_class.brier.reliability,
        by_class.brier.resolution,
        by_class.brier.uncertainty,
        by_class.brier.within_bin,
    ]
}

/// As [`super::adaptive::aurc`], of copies of sorted cells.
fn aurc(cells: &[Cell], counts: &[u64], n: u64) -> f64 {
    let (mut area, mut accepted, mut errors) = (0.0, 0.0, 0.0);
    let mut before = cells.len();
    for tied in cells.chunk_by(|a, b| a.confidence == b.confidence).rev() {
        let copies = &counts[before - tied.len()..before];
        before -= tied.len();
        let of = |wrong: bool| -> u64 {
            tied.iter().zip(copies).filter(|(cell, _)| !wrong || !cell.outcome.correct).map(|(_, copies)| copies).sum()
        };
        let (all, wrong) = (of(false), of(true));
        let rate = wrong as f64 / all as f64;
        for j in 1..=all {
            area += (errors + j as f64 * rate) / (accepted + j as f64);
        }
        accepted += all as f64;
        errors += wrong as f64;
    }
    area / n as f64
}

/// The q-quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + share * (sorted[high] - sorted[low])
}

/// Lends a stream to `rand_distr`.
struct Bits<'a>(&'a mut Stream);

impl TryRng for Bits<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.bits())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let (high, low) = (u64::from(self.0.bits()), u64::from(self.0.bits()));
        Ok(high << 32 | low)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.0.bits().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // .9 wrong twice and .5 right once, .5 wrong once: risks 1, 1, then (2 + 1/2) / 3 and 3/4 at the tie.
    #[test]
    fn the_aurc_of_copies_is_that_of_so_many_samples() {
        let cell = |confidence: f32, correct| {
            let outcome = Outcome { confidence, correct, top5: true, nll: 0.0, brier: 0.0 };
            Cell::new(outcome, f64::from(confidence), Bins::STANDARD)
        };
        let cells = [cell(0.25, true), cell(0.5, false), cell(0.5, true), cell(0.75, true), cell(0.9, false)];
        let found = aurc(&cells, &[0, 1, 1, 0, 2], 4);
        assert!((found - (1.0 + 1.0 + 2.5 / 3.0 + 0.75) / 4.0).abs() < 1e-15, "{found}");
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [0.0, 1.0, 2.0, 3.0, 10.0];
        assert_eq!([quantile(&values, 0.0), quantile(&values, 0.5), quantile(&values, 1.0)], [0.0, 2.0, 10.0]);
        assert!((quantile(&values, 0.975) - 9.3).abs() < 1e-12);
    }

    #[test]
    fn multinomial_counts_add_up_and_have_the_right_mean_and_variance() {
        let counts = [100, 3000, 1, 899];
        let draws: Vec<Vec<u64>> =
            (0..2000).map(|r| draw_multinomial(&counts, 4000, &mut Stream::new(5, Domain::Bootstrap, r, 0))).collect();
        assert!(draws.iter().all(|d| d.iter().sum::<u64>() == 4000));
        for (k, &count) in counts.iter().enumerate() {
            let mean = draws.iter().map(|d| d[k] as f64).sum::<f64>() / 2000.0;
            let variance = draws.iter().map(|d| (d[k] as f64 - mean).powi(2)).sum::<f64>() / 1999.0;
            let exact = count as f64 * (1.0 - count as f64 / 4000.0);
            assert!((mean - count as f64).abs() < 5.0 * (exact / 2000.0).sqrt(), "cell {k}: mean {mean}");
            assert!((variance / exact - 1.0).abs() < 0.25, "cell {k}: variance {variance}, expected {exact}");
        }
    }
}
