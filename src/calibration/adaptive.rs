//! Metrics that need the samples' order: equal-mass bins and the risk-coverage curve.

use rayon::prelude::*;

use super::metrics::Gaps;
use super::radix_sort;
use super::reliability::{Bin, Reliability};
use crate::backend::cpu::simd;

/// TACE leaves out probabilities up to this one.
pub(super) const TACE_THRESHOLD: f32 = 0.01;

/// A probability in [0, 1 + 2^-16] and whether it was a hit, as one integer: in the order of (probability, hit), so that equal
/// pairs are the only ties and the order of the input never matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Pair(u32);

impl Pair {
    /// Floats that are not negative order as their bits do; the highest of these is never set.
    #[inline(always)]
    pub(super) fn new(probability: f32, hit: bool) -> Self {
        Pair(probability.to_bits() << 1 | u32::from(hit))
    }

    pub(super) fn probability(self) -> f32 {
        f32::from_bits(self.0 >> 1)
    }

    pub(super) fn hit(self) -> bool {
        self.0 & 1 == 1
    }

    /// What it is ordered by.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

/// Copies the pairs of a probability above `threshold` to the front of `out`, which is as long, and says how many there are.
pub(super) fn keep_above(pairs: &[Pair], threshold: f32, out: &mut [Pair]) -> usize {
    let bound = Pair::new(threshold, true);
    simd::keep_above(bytemuck::cast_slice(pairs), bound.0, bytemuck::cast_slice_mut(out))
}

/// Each of `count` equal-mass bins' (n, hits, hits less the sum of probabilities), for (probability, hit, copies) in sorted
/// order.
///
/// Bin b holds the samples floor(b total / count) .. floor((b + 1) total / count), so sizes differ by at most one; `total` is
/// the number of copies.
pub(super) fn equal_mass_bins(
    sorted: impl Iterator<Item = (f64, bool, u64)>,
    total: u64,
    count: usize,
) -> Vec<(u64, u64, f64)> {
    let end = |bin: usize| ((bin as u128 + 1) * u128::from(total) / count as u128) as u64;
    let (mut bins, mut bin, mut seen, mut bin_end) = (vec![(0, 0, 0.0); count], 0, 0, end(0));
    for (probability, hit, mut copies) in sorted {
        while copies > 0 {
            while seen == bin_end {
                bin += 1;
                bin_end = end(bin);
            }
            let taken = copies.min(bin_end - seen);
            let hits = if hit { taken } else { 0 };
            let (n, all_hits, surplus) = &mut bins[bin];
            *n += taken;
            *all_hits += hits;
            *surplus += hits as f64 - taken as f64 * probability;
            seen += taken;
            copies -= taken;
        }
    }
    bins
}

/// All pairs of the lists in order.
pub(super) fn sorted(lists: &[Vec<Pair>]) -> Vec<Pair> {
    let keys: Vec<&[u32]> = lists.iter().map(|list| bytemuck::cast_slice(list)).collect();
    bytemuck::allocation::cast_vec(radix_sort::sorted(&keys))
}

/// Bin `bin` of [`equal_mass_bins`], of sorted pairs.
pub(super) fn equal_mass_bin(sorted: &[Pair], bin: usize, count: usize) -> (u64, u64, f64) {
    let start = |bin: usize| (bin as u128 * sorted.len() as u128 / count as u128) as usize;
    let pairs = &sorted[start(bin)..start(bin + 1)];
    let (mut hits, mut surplus) = (0, 0.0);
    for pair in pairs {
        hits += u64::from(pair.hit());
        surplus += f64::from(u8::from(pair.hit())) - f64::from(pair.probability());
    }
    (pairs.len() as u64, hits, surplus)
}

/// All of them, on all cores.
fn all_equal_mass_bins(sorted: &[Pair], count: usize) -> Vec<(u64, u64, f64)> {
    (0..count).into_par_iter().map(|bin| equal_mass_bin(sorted, bin, count)).collect()
}

/// The errors of top-label pairs, sorted, over `count` equal-mass bins.
pub(super) fn gaps(sorted: &[Pair], count: usize) -> Gaps {
    Gaps::of(all_equal_mass_bins(sorted, count).into_iter())
}

/// How equal-mass bins are stated.
pub(super) fn stated(count: usize) -> String {
    format!("{count} equal-mass bins")
}

/// The reliability diagram of sorted top-label pairs over `count` equal-mass bins. An inner edge is the largest confidence
/// below it.
pub(super) fn reliability(sorted: &[Pair], count: usize) -> Reliability {
    let (total, mut taken, mut lo) = (sorted.len() as u64, 0, 0.0);
    let filled = all_equal_mass_bins(sorted, count);
    let last = filled.iter().rposition(|bin| bin.0 > 0).unwrap_or(0);
    let bin = |(b, (n, hits, surplus)): (usize, (u64, u64, f64))| {
        taken += n as usize;
        let hi = if b >= last { 1.0 } else { sorted[..taken].last().map_or(0.0, |pair| f64::from(pair.probability())) };
        let mean = |sum: f64| (n > 0).then(|| sum / n as f64);
        let bin = Bin { lo, hi, n, accuracy: mean(hits as f64), confidence: mean(hits as f64 - surplus) };
        lo = hi;
        bin
    };
    Reliability { n: total, binning: stated(count), bins: filled.into_iter().enumerate().map(bin).collect() }
}

/// Area under the risk-coverage curve: the mean over i = 1..N of the error rate among the i most confident samples, of
/// sorted top-label pairs. Samples of equal confidence share their expected risk, as if their order were random.
pub(super) fn aurc(sorted: &[Pair]) -> f64 {
    let (mut area, mut accepted, mut errors) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.probability() == b.probability()).rev() {
        // The same in short, since most stand alone.
        if let [pair] = tied {
            errors += f64::from(u8::from(!pair.hit()));
            accepted += 1.0;
            area += errors / accepted;
            continue;
        }
        let rate = tied.iter().filter(|pair| !pair.hit()).count() as f64 / tied.len() as f64;
        for j in 1..=tied.len() {
            area += (errors + j as f64 * rate) / (accepted + j as f64);
        }
        accepted += tied.len() as f64;
        errors += rate * tied.len() as f64;
    }
    area / sorted.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(f32, bool)]) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = of.iter().map(|&(p, hit)| Pair::new(p, hit)).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn pairs_order_by_probability_and_then_by_hit() {
        let sorted = pairs(&[(1.0, false), (0.5, true), (0.25, true), (0.5, false), (0.0, false)]);
        let read: Vec<(f32, bool)> = sorted.iter().map(|pair| (pair.probability(), pair.hit())).collect();
        assert_eq!(read, [(0.0, false), (0.25, true), (0.5, false), (0.5, true), (1.0, false)]);
    }

    #[test]
    fn ace_of_as_many_samples_as_bins_is_the_mean_gap() {
        let of: Vec<(f32, bool)> = (0..15).map(|i| (0.5 + i as f32 / 32.0, i % 2 == 0)).collect();
        let by_hand = of.iter().map(|p| (f64::from(u8::from(p.1)) - f64::from(p.0)).abs()).sum::<f64>() / 15.0;
        assert!((gaps(&pairs(&of), 15).ece - by_hand).abs() < 1e-15);
    }

    // 30 samples, two to a bin: one right and one wrong at confidence 1/2 cancel, two right leave 1/4.
    #[test]
    fn ace_bins_two_neighbours_together() {
        let mut of = vec![(0.5, false), (0.5, true)];
        of.extend([(0.75, true); 28]);
        assert!((gaps(&pairs(&of), 15).ece - 28.0 * 0.25 / 30.0).abs() < 1e-15);
    }

    // Three bins of five samples: 1, 2 and 2 of them.
    #[test]
    fn equal_mass_bins_tile_the_confidences() {
        let of = [(0.2, false), (0.4, true), (0.5, false), (0.7, true), (0.9, true)];
        let found = reliability(&pairs(&of), 3);
        let bins: Vec<(f64, f64, u64)> = found.bins.iter().map(|bin| (bin.lo, bin.hi, bin.n)).collect();
        let (low, middle) = (f64::from(0.2f32), f64::from(0.5f32));
        assert_eq!(bins, [(0.0, low, 1), (low, middle, 2), (middle, 1.0, 2)]);
        assert_eq!(found.bins[1].accuracy, Some(0.5));
        assert!((found.bins[2].confidence.unwrap() - 0.8).abs() < 1e-7);
        assert_eq!(found.binning, "3 equal-mass bins");
    }

    #[test]
    fn fewer_samples_than_bins_leave_some_empty() {
        let found = reliability(&pairs(&[(0.5, true), (0.75, false)]), 5);
        assert_eq!(found.bins.iter().map(|bin| bin.n).sum::<u64>(), 2);
        assert_eq!((found.bins[0].lo, found.bins[4].hi), (0.0, 1.0));
        assert!(found.bins.windows(2).all(|pair| pair[0].hi == pair[1].lo));
    }

    #[test]
    fn copies_count_as_so_many_samples() {
        let cells = [(0.25, false, 7), (0.5, true, 20), (0.875, true, 5), (0.875, false, 4)];
        let expanded = cells.iter().flat_map(|&(p, hit, copies)| (0..copies).map(move |_| (p, hit, 1)));
        let (whole, single) = (equal_mass_bins(cells.into_iter(), 36, 15), equal_mass_bins(expanded, 36, 15));
        for (a, b) in whole.iter().zip(&single) {
            assert!((a.0, a.1) == (b.0, b.1) && (a.2 - b.2).abs() < 1e-12);
        }
    }

    #[test]
    fn aurc_by_hand_with_the_error_last_and_first() {
        assert!((aurc(&pairs(&[(0.6, false), (0.7, true), (0.8, true)])) - (1.0 / 3.0) / 3.0).abs() < 1e-15);
        let first = aurc(&pairs(&[(0.6, true), (0.7, true), (0.8, false)]));
        assert!((first - (1.0 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
    }

    // The error is first, second or third with equal chance: risks 1/3, 1/3, 1/3.
    #[test]
    fn aurc_of_ties_is_the_expectation_over_their_orders() {
        assert!((aurc(&pairs(&[(0.5, false), (0.5, true), (0.5, true)])) - 1.0 / 3.0).abs() < 1e-15);
    }
}
