//! Metrics that need the samples' order: equal-mass bins and the risk-coverage curve.

use std::cmp::Ordering;

/// Bins of equal mass, as many as of equal width.
pub(super) const EQUAL_MASS_BINS: u64 = 15;

/// TACE leaves out probabilities up to this one.
const TACE_THRESHOLD: f32 = 0.01;

/// Orders (confidence, correct) so that equal pairs are the only ties and the order of the input never matters.
pub(super) fn by_confidence(a: &(f32, bool), b: &(f32, bool)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Sum over 15 equal-mass bins of |sum of hits - sum of probabilities|, for (probability, hit, copies) in sorted order.
///
/// Bin b holds the samples floor(b total / 15) .. floor((b + 1) total / 15), so sizes differ by at most one; `total` is the
/// number of copies.
pub(super) fn equal_mass_gaps(sorted: impl Iterator<Item = (f64, bool, u64)>, total: u64) -> f64 {
    let end = |bin: u64| (u128::from(bin + 1) * u128::from(total) / u128::from(EQUAL_MASS_BINS)) as u64;
    let (mut sum, mut surplus, mut bin, mut seen) = (0f64, 0f64, 0, 0);
    for (probability, hit, mut copies) in sorted {
        while copies > 0 {
            while seen == end(bin) {
                sum += surplus.abs();
                surplus = 0.0;
                bin += 1;
            }
            let taken = copies.min(end(bin) - seen);
            surplus += taken as f64 * (f64::from(u8::from(hit)) - probability);
            seen += taken;
            copies -= taken;
        }
    }
    sum + surplus.abs()
}

/// What [`super::Metrics::binning`] says of ACE and TACE.
pub(super) fn binning() -> [(String, String); 2] {
    let bins = format!("{EQUAL_MASS_BINS} equal-mass bins");
    [
        ("ace".into(), format!("{bins}, l1")),
        ("tace".into(), format!("{bins} of each class's probabilities above {TACE_THRESHOLD}, l1")),
    ]
}

/// Adaptive calibration error of (confidence, correct) pairs sorted by [`by_confidence`].
pub(super) fn ace(sorted: &[(f32, bool)]) -> f64 {
    let items = sorted.iter().map(|&(confidence, correct)| (f64::from(confidence), correct, 1));
    equal_mass_gaps(items, sorted.len() as u64) / sorted.len() as f64
}

/// Thresholded adaptive calibration error of probabilities, row-major (N, C): for each class its p_k > 0.01, sorted by
/// (p_k, [y = k]), in equal-mass bins weighted n_b / N with N all samples; then the mean over the classes.
pub(super) fn tace(probs: &[f32], labels: &[u32], classes: usize) -> f64 {
    let class_error = |k: usize| {
        let mut kept: Vec<(f32, bool)> = (probs.chunks_exact(classes).zip(labels))
            .map(|(row, &label)| (row[k], label as usize == k))
            .filter(|pair| pair.0 > TACE_THRESHOLD)
            .collect();
        kept.sort_unstable_by(by_confidence);
        let items = kept.iter().map(|&(p, hit)| (f64::from(p), hit, 1));
        equal_mass_gaps(items, kept.len() as u64) / labels.len() as f64
    };
    (0..classes).map(class_error).sum::<f64>() / classes as f64
}

/// Area under the risk-coverage curve: the mean over i = 1..N of the error rate among the i most confident samples, of
/// pairs sorted by [`by_confidence`]. Samples of equal confidence share their expected risk, as if their order were random.
pub(super) fn aurc(sorted: &[(f32, bool)]) -> f64 {
    let (mut area, mut accepted, mut errors) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0).rev() {
        let rate = tied.iter().filter(|pair| !pair.1).count() as f64 / tied.len() as f64;
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

    #[test]
    fn ace_of_as_many_samples_as_bins_is_the_mean_gap() {
        let pairs: Vec<(f32, bool)> = (0..15).map(|i| (0.5 + i as f32 / 32.0, i % 2 == 0)).collect();
        let by_hand = pairs.iter().map(|p| (f64::from(u8::from(p.1)) - f64::from(p.0)).abs()).sum::<f64>() / 15.0;
        assert!((ace(&pairs) - by_hand).abs() < 1e-15);
    }

    // 30 samples, two to a bin: one right and one wrong at confidence 1/2 cancel, two right leave 1/2.
    #[test]
    fn ace_bins_two_neighbours_together() {
        let mut pairs = vec![(0.5, false), (0.5, true)];
        pairs.extend([(0.75, true); 28]);
        assert!((ace(&pairs) - 28.0 * 0.25 / 30.0).abs() < 1e-15);
    }

    #[test]
    fn copies_count_as_so_many_samples() {
        let cells = [(0.25, false, 7), (0.5, true, 20), (0.875, true, 5), (0.875, false, 4)];
        let expanded = cells.iter().flat_map(|&(p, hit, copies)| (0..copies).map(move |_| (p, hit, 1)));
        assert!((equal_mass_gaps(cells.into_iter(), 36) - equal_mass_gaps(expanded, 36)).abs() < 1e-12);
    }

    // Class 0: p = .5 (hit), .005 left out: gap .5. Class 1: p = .5 (miss), .995 (hit), one a bin: .5 + .005. N = 2, C = 2.
    #[test]
    fn tace_leaves_out_small_probabilities() {
        let error = tace(&[0.5, 0.5, 0.005, 0.995], &[0, 1], 2);
        assert!((error - (0.5 / 2.0 + (0.5 + 0.005) / 2.0) / 2.0).abs() < 1e-7);
    }

    #[test]
    fn aurc_by_hand_with_the_error_last_and_first() {
        assert!((aurc(&[(0.6, false), (0.7, true), (0.8, true)]) - (1.0 / 3.0) / 3.0).abs() < 1e-15);
        assert!((aurc(&[(0.6, true), (0.7, true), (0.8, false)]) - (1.0 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
    }

    // The error is first, second or third with equal chance: risks 1/3, 1/3, 1/3.
    #[test]
    fn aurc_of_ties_is_the_expectation_over_their_orders() {
        assert!((aurc(&[(0.5, false), (0.5, true), (0.5, true)]) - 1.0 / 3.0).abs() < 1e-15);
    }
}
