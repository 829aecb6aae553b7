//! ECE against the number of bins, with what a perfectly calibrated model of the same confidences would show.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::adaptive::{self, Pair};
use super::bins::Bins;
use super::metrics::Gaps;

/// Numbers of bins that are tried: 1 to this one.
const MOST: usize = 50;

/// The errors with one number of bins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinCount {
    /// Number of bins.
    pub bins: usize,
    /// ECE over equal-width bins (lo, hi].
    pub ece: f64,
    /// ECE over equal-mass bins.
    pub ace: f64,
    /// About the ECE over equal-width bins that a perfectly calibrated model with the same confidences would show by chance:
    /// `sum_b n_b / N sqrt(2 v_b / (pi n_b))`, the mean absolute value of a normal gap of variance v_b / n_b, with v_b the
    /// bin's mean of c (1 - c).
    pub by_chance: f64,
}

/// From 1 to 50 bins, of sorted top-label pairs.
pub(super) fn sweep(sorted: &[Pair]) -> Vec<BinCount> {
    (1..=MOST).into_par_iter().map(|bins| with(sorted, bins)).collect()
}

fn with(sorted: &[Pair], count: usize) -> BinCount {
    let bins = Bins { count, ..Bins::STANDARD };
    let mut filled = vec![(0u64, 0u64, 0f64); count];
    let mut variances = vec![0f64; count];
    for pair in sorted {
        let at = bins.index(pair.probability());
        let (n, hits, surplus) = &mut filled[at];
        let (hit, c) = (pair.hit(), f64::from(pair.probability()));
        *n += 1;
        *hits += u64::from(hit);
        *surplus += f64::from(u8::from(hit)) - c;
        variances[at] += c * (1.0 - c);
    }
    // n_b sqrt(2 v_b / (pi n_b)) is sqrt(2 / pi) times the root of the bin's sum of variances.
    let spread: f64 = variances.iter().map(|sum| (sum * std::f64::consts::FRAC_2_PI).sqrt()).sum();
    BinCount {
        bins: count,
        ece: Gaps::of(filled.into_iter()).ece,
        ace: adaptive::gaps(sorted, count).ece,
        by_chance: spread / sorted.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Domain, Stream};

    // One bin: |accuracy - mean confidence|, whatever the scheme.
    #[test]
    fn one_bin_shows_the_difference_of_the_means() {
        let pairs = [Pair::new(0.25, false), Pair::new(0.75, true), Pair::new(1.0, false)];
        let found = sweep(&pairs);
        assert_eq!(found.len(), MOST);
        assert!((found[0].ece - 1.0 / 3.0).abs() < 1e-15 && (found[0].ace - 1.0 / 3.0).abs() < 1e-15);
        // Variances 3/16, 3/16 and 0.
        assert!((found[0].by_chance - (0.375 * std::f64::consts::FRAC_2_PI).sqrt() / 3.0).abs() < 1e-15);
    }

    // spec/calibration.md: .027 at n = 2,000 for uniform confidences and 15 bins.
    #[test]
    fn a_perfectly_calibrated_model_shows_what_chance_predicts() {
        let mut stream = Stream::new(3, Domain::Bootstrap, 0, 6);
        let mut pairs: Vec<Pair> = (0..2000)
            .map(|_| {
                let confidence = stream.uniform() as f32;
                Pair::new(confidence, stream.uniform() < f64::from(confidence))
            })
            .collect();
        pairs.sort_unstable();
        let found = with(&pairs, 15);
        assert!((found.by_chance - 0.027).abs() < 0.001, "{}", found.by_chance);
    }
}
