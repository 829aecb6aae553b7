//! The reliability diagram's data: accuracy against confidence, bin by bin (Niculescu-Mizil & Caruana 2005).

use serde::{Deserialize, Serialize};

use super::bins::Bins;
use super::exact_sum::{ExactSum, units};

/// Counts of one confidence bin; the confidences' sum is in units of 2^-32, as [`ExactSum`]'s.
///
/// 64 bits hold the sums of 2^32 - 1 samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) n: u64,
    pub(super) correct: u64,
    pub(super) confidence: u64,
}

impl Tally {
    #[inline(always)]
    pub(super) fn add(&mut self, confidence: f32, correct: bool) {
        self.n += 1;
        self.correct += u64::from(correct);
        self.confidence += units(f64::from(confidence)) as u64;
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.n += other.n;
        self.correct += other.correct;
        self.confidence += other.confidence;
    }

    /// n (accuracy - mean confidence), rounded once.
    pub(super) fn surplus(&self) -> f64 {
        ExactSum::from_units(self.confidence).below(self.correct)
    }
}

/// One bin of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge.
    pub lo: f64,
    /// Upper edge.
    pub hi: f64,
    /// Samples in the bin.
    pub n: u64,
    /// Fraction of them predicted correctly; absent for an empty bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Their mean confidence; absent for an empty bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

impl Bin {
    /// Samples predicted correctly.
    pub fn correct(&self) -> u64 {
        (self.accuracy.unwrap_or(0.0) * self.n as f64).round() as u64
    }

    /// 95 % interval of the bin's accuracy (Wilson's score interval, which stays within [0, 1] for a handful of samples).
    pub fn accuracy_interval(&self) -> Option<(f64, f64)> {
        const Z: f64 = 1.959_963_984_540_054;
        let (p, n) = (self.accuracy?, self.n as f64);
        let centre = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        Some((((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)))
    }
}

/// Accuracy and confidence over bins of the top-label confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Number of samples.
    pub n: u64,
    /// Number, scheme and edges of the bins: `15 equal-width bins (lo, hi]`.
    pub binning: String,
    /// The bins from 0 to 1, empty ones included.
    pub bins: Vec<Bin>,
}

impl Reliability {
    pub(super) fn new(bins: Bins, tallies: &[Tally]) -> Self {
        let bin = |(k, tally): (usize, &Tally)| {
            let mean = |total: f64| (tally.n > 0).then(|| total / tally.n as f64);
            Bin {
                lo: k as f64 / bins.count as f64,
                hi: (k + 1) as f64 / bins.count as f64,
                n: tally.n,
                accuracy: mean(tally.correct as f64),
                confidence: mean(ExactSum::from_units(tally.confidence).value()),
            }
        };
        Reliability {
            n: tallies.iter().map(|tally| tally.n).sum(),
            binning: bins.to_string(),
            bins: tallies.iter().enumerate().map(bin).collect(),
        }
    }

    /// Mean confidence over all samples.
    pub fn mean_confidence(&self) -> f64 {
        self.bins.iter().filter_map(|bin| Some(bin.confidence? * bin.n as f64)).sum::<f64>() / self.n as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::bins::Closed;
    use super::*;

    #[test]
    fn an_empty_bin_has_no_accuracy_and_no_key_for_it() {
        let mut tallies = [Tally::default(); 2];
        tallies[1].add(0.75, true);
        let reliability = Reliability::new(Bins { count: 2, closed: Closed::Right }, &tallies);
        let json = serde_json::to_string(&reliability).unwrap();
        let expected = r#"{"n":1,"binning":"2 equal-width bins (lo, hi]","bins":[{"lo":0.0,"hi":0.5,"n":0},{"lo":0.5,"hi":1.0,"n":1,"accuracy":1.0,"confidence":0.75}]}"#;
        assert_eq!(json, expected);
    }

    // Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 / 263 and 0 / 20.
    #[test]
    fn wilson_intervals_are_the_published_ones() {
        for (correct, n, low, high) in [(81.0, 263, 0.2553, 0.3662), (0.0, 20, 0.0, 0.1611)] {
            let bin = Bin { lo: 0.0, hi: 1.0, n, accuracy: Some(correct / n as f64), confidence: Some(0.5) };
            let (found_low, found_high) = bin.accuracy_interval().unwrap();
            assert!((found_low - low).abs() < 5e-5 && (found_high - high).abs() < 5e-5, "{found_low} {found_high}");
        }
    }
}
