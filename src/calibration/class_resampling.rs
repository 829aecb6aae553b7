//! Class-wise errors and the parts of the Brier score of resampled samples.
//!
//! A sample is drawn with all its classes at once, for they are not independent: of two classes both errors are the same.
//! Keeping every probability of every sample would be N C of them, and each resample would go through all. Those above 0.01,
//! of which a row has 99 at most and usually a few, and the label's own are kept; the others are negatives, and a resample
//! takes each at the mean of its kind. What that leaves out of the variance of a bin's gap is the variance of probabilities
//! below 0.01, a hundredth of that of the label beside them.

use std::cmp::Ordering;

use super::adaptive::{TACE_THRESHOLD, equal_mass_bins};
use super::bins::Bins;
use super::brier_parts::{BinSums, BrierParts};
use super::one_vs_rest::OneVsRest;
use super::outcome::BLOCK;

/// Of each sample the probabilities above 0.01 and that of its label: 8 bytes each, and 8 a sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// Of each sample its label and the number of its probabilities.
    samples: Vec<(u32, u32)>,
    /// (class, probability), sample after sample.
    probs: Vec<(u32, f32)>,
}

/// One sample of [`Rows`].
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    label: u32,
    probs: &'a [(u32, f32)],
}

impl Rows {
    /// Adds a sample, whose probabilities may be filled up with zeros.
    pub(super) fn add(&mut self, probs: &[f32], label: u32) {
        let before = self.probs.len();
        for (block, first) in probs.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
            // Whole blocks are compared at once, since few of many classes are above.
            let above = block.iter().fold(false, |above, &p| above | (p > TACE_THRESHOLD));
            if above || (first..first + BLOCK as u32).contains(&label) {
                let kept = (first..).zip(block).filter(|&(k, &p)| p > TACE_THRESHOLD || k == label);
                self.probs.extend(kept.map(|(k, &p)| (k, p)));
            }
        }
        self.samples.push((label, (self.probs.len() - before) as u32));
    }

    pub(super) fn extend(&mut self, other: Rows) {
        self.samples.extend(other.samples);
        self.probs.extend(other.probs);
    }

    /// Every sample in turn.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let mut left = &self.probs[..];
        self.samples.iter().map(move |&(label, number)| {
            let (probs, after) = left.split_at(number as usize);
            left = after;
            Row { label, probs }
        })
    }
}

impl Row<'_> {
    /// An order in which only equal rows tie.
    pub(super) fn cmp(&self, other: &Row) -> Ordering {
        let bits = |row: &Row, i: usize| (row.probs[i].0, row.probs[i].1.to_bits());
        let shorter = self.probs.len().min(other.probs.len());
        (self.label.cmp(&other.label))
            .then_with(|| (0..shorter).map(|i| bits(self, i)).cmp((0..shorter).map(|i| bits(other, i))))
            .then(self.probs.len().cmp(&other.probs.len()))
    }
}

/// The class-wise quantities of one resample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassStatistics {
    pub(super) class_ece: f64,
    pub(super) tace: f64,
    pub(super) brier: BrierParts,
}

/// What the class-wise quantities of a resample are made of.
pub(super) struct ClassCells {
    bins: usize,
    samples: u64,
    classes: Vec<Class>,
}

struct Class {
    /// Sorted by (p, positive).
    kept: Vec<Kept>,
    /// Where those above the threshold of TACE begin.
    above: usize,
    /// The samples whose probability was not kept, by bin, and their number.
    others: Vec<BinSums>,
    number: f64,
}

#[derive(Clone, Copy)]
struct Kept {
    p: f32,
    positive: bool,
    sample: u32,
    bin: u32,
}

impl ClassCells {
    /// Of rows in the order in which they are drawn, and the tallies of the same samples.
    pub(super) fn new(rows: &[Row], tallies: &OneVsRest, bins: Bins) -> Self {
        let mut kept: Vec<Vec<Kept>> = tallies.classes().map(|_| Vec::new()).collect();
        for (row, sample) in rows.iter().zip(0..) {
            for &(k, p) in row.probs {
                kept[k as usize].push(Kept { p, positive: k == row.label, sample, bin: bins.index(p) as u32 });
            }
        }
        let class = |(mut kept, tallies): (Vec<Kept>, Vec<_>)| {
            kept.sort_unstable_by(|a: &Kept, b: &Kept| {
                a.p.total_cmp(&b.p).then(a.positive.cmp(&b.positive)).then(a.sample.cmp(&b.sample))
            });
            let mut others: Vec<BinSums> = tallies.iter().map(BinSums::of).collect();
            kept.iter().for_each(|one| others[one.bin as usize].add(-1.0, f64::from(one.p), one.positive));
            // Tallies round each term to a multiple of 2^-32, so that what is left of none need not be 0.
            others.iter_mut().filter(|bin| bin.n == 0.0).for_each(|bin| *bin = BinSums::default());
            others.iter_mut().for_each(|bin| bin.p_of_positives = 0.0);
            let above = kept.partition_point(|one| one.p <= TACE_THRESHOLD);
            let number = others.iter().map(|bin| bin.n).sum();
            Class { kept, above, others, number }
        };
        let classes = kept.into_iter().zip(tallies.classes()).map(class).collect();
        ClassCells { bins: bins.count, samples: rows.len() as u64, classes }
    }

    /// Of the resample with `copies[i]` copies of row i, as many in all as there are rows.
    pub(super) fn statistics(&self, copies: &[u64]) -> ClassStatistics {
        let n = self.samples as f64;
        let (mut width, mut mass, mut brier) = (0.0, 0.0, BrierParts::default());
        let mut bins = vec![BinSums::default(); self.bins];
        for class in &self.classes {
            bins.fill(BinSums::default());
            let mut drawn = 0;
            for one in &class.kept {
                let copies = copies[one.sample as usize];
                drawn += copies;
                bins[one.bin as usize].add(copies as f64, f64::from(one.p), one.positive);
            }
            if drawn < self.samples {
                let share = (self.samples - drawn) as f64 / class.number;
                for (bin, others) in bins.iter_mut().zip(&class.others) {
                    bin.n += share * others.n;
                    bin.p += share * others.p;
                    bin.p_squared += share * others.p_squared;
                }
            }
            width += bins.iter().map(|bin| (bin.positives - bin.p).abs()).sum::<f64>();
            brier.add_class(&bins, n);

            let above = &class.kept[class.above..];
            let copies = |one: &Kept| copies[one.sample as usize];
            let total = above.iter().map(copies).sum();
            let items = above.iter().map(|one| (f64::from(one.p), one.positive, copies(one)));
            mass += equal_mass_bins(items, total, self.bins).iter().map(|bin| bin.2.abs()).sum::<f64>();
        }
        let mean = |sum: f64| sum / n / self.classes.len() as f64;
        ClassStatistics { class_ece: mean(width), tace: mean(mass), brier }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scores::Visit;
    use super::super::{Accumulator, Options, Scores, evaluate};
    use super::*;
    use crate::rng::{Domain, Stream};

    fn logits(n: usize, classes: usize, scale: f64) -> (Vec<f32>, Vec<u32>) {
        let mut random = Stream::new(classes as u64, Domain::Bootstrap, 0, 12);
        let logits = (0..n * classes).map(|_| (scale * random.normal()) as f32).collect();
        (logits, (0..n).map(|_| random.below(classes as u32)).collect())
    }

    /// The statistics of `copies` of each sample.
    fn resampled(logits: &[f32], labels: &[u32], classes: usize, bins: usize, copies: &[u64]) -> [f64; 6] {
        let (mut rows, mut accumulator) = (Rows::default(), Accumulator::with_bins(classes, bins));
        let add = |visit: Visit| match visit {
            Visit::Narrow(narrow) => (0..narrow.len()).for_each(|r| rows.add(&narrow.row(r), narrow.labels()[r])),
            Visit::Row { row, probs, .. } => rows.add(probs, labels[row]),
        };
        Scores::Logits(logits).for_each(labels, classes, add).unwrap();
        accumulator.add_logits(logits, labels).unwrap();
        let bins = Bins { count: bins, ..Bins::STANDARD };
        let rows: Vec<Row> = rows.iter().collect();
        let of = ClassCells::new(&rows, accumulator.one_vs_rest(), bins).statistics(copies);
        let brier = of.brier;
        [of.class_ece, of.tace, brier.reliability, brier.resolution, brier.uncertainty, brier.within_bin]
    }

    /// The same of the metrics.
    fn exact(logits: &[f32], labels: &[u32], classes: usize, bins: usize) -> [f64; 6] {
        let options = Options { bins, ..Options::default() };
        let m = evaluate(Scores::Logits(logits), labels, classes, &options).unwrap().metrics;
        let brier = [m.brier_reliability, m.brier_resolution, m.brier_uncertainty, m.brier_within_bin];
        [m.class_ece, m.tace.unwrap(), brier[0], brier[1], brier[2], brier[3]]
    }

    fn assert_close(found: [f64; 6], expected: [f64; 6], tolerance: f64) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
        }
    }

    #[test]
    fn one_copy_of_each_sample_gives_the_metrics_themselves() {
        for (classes, scale, bins) in [(2, 1.0, 15), (10, 3.0, 15), (40, 2.0, 15), (10, 3.0, 200), (10, 3.0, 1)] {
            let (logits, labels) = logits(300, classes, scale);
            let found = resampled(&logits, &labels, classes, bins, &[1; 300]);
            assert_close(found, exact(&logits, &labels, classes, bins), 1e-8);
        }
    }

    // Copies written out: exact where every probability is above 0.01, and beyond that good to what those below add up to.
    #[test]
    fn copies_of_a_sample_count_as_so_many_samples() {
        for (classes, scale, tolerance) in [(3, 0.5, 1e-8), (10, 3.0, 5e-4)] {
            let (logits, labels) = logits(400, classes, scale);
            let mut random = Stream::new(1, Domain::Bootstrap, 0, 13);
            let mut copies = vec![0; 400];
            (0..400).for_each(|_| copies[random.below(400) as usize] += 1);
            let drawn: Vec<usize> = (0..400).flat_map(|i| vec![i; copies[i] as usize]).collect();
            let many: Vec<f32> = drawn.iter().flat_map(|i| logits[i * classes..][..classes].to_vec()).collect();
            let their: Vec<u32> = drawn.iter().map(|&i| labels[i]).collect();
            let found = resampled(&logits, &labels, classes, 15, &copies);
            assert_close(found, exact(&many, &their, classes, 15), tolerance);
        }
    }
}
