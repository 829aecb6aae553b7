//! The metrics of a set of predictions, as `summary.json` and `--json` hold them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bootstrap::Intervals;

/// Metrics of N samples and C classes, all fractions. A key that does not exist for the data is left out, never 0.
///
/// Unless a field or [`Metrics::binning`] says otherwise: top-label confidence, 15 equal-width bins (lo, hi], absolute gaps
/// weighted by n_b / N.
/// ECE falls when accuracy collapses, so print it with accuracy and NLL beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Number of samples.
    pub n: u64,
    /// Fraction whose prediction, the lowest index among the maxima, is the label.
    pub accuracy: f64,
    /// Fraction whose label is among the five largest; needs five classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean negative log-likelihood -log p_y in nats; infinite (in JSON null) when a label's probability is 0.
    #[serde(serialize_with = "null_if_infinite", deserialize_with = "infinite_if_null")]
    pub nll: f64,
    /// Samples whose label has probability 0: what a warning about an infinite `nll` should say. Left out when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nll_infinite: u64,
    /// Brier score: mean over the samples of sum_k (p_k - [y = k])^2, between 0 and 2.
    pub brier: f64,
    /// Sum over classes and bins of n_b / N (mean p - rate)^2 (Murphy 1973).
    pub brier_reliability: f64,
    /// Sum over classes and bins of n_b / N (rate - base rate)^2; enters the Brier score with a minus.
    pub brier_resolution: f64,
    /// Sum over classes of base rate (1 - base rate).
    pub brier_uncertainty: f64,
    /// Variance of p less twice its covariance with [y = k] inside the bins (Stephenson et al. 2008):
    /// brier = reliability - resolution + uncertainty + within_bin.
    pub brier_within_bin: f64,
    /// Expected calibration error (Guo et al. 2017): sum_b n_b / N |accuracy_b - confidence_b|.
    pub ece: f64,
    /// ECE as in the CigL paper's code: 10 bins [lo, hi), 1 in the last.
    pub ece_10: f64,
    /// Root mean square calibration error: sqrt(sum_b n_b / N gap_b^2).
    pub rmsce: f64,
    /// Maximum calibration error: the largest gap of a non-empty bin.
    pub mce: f64,
    /// Adaptive calibration error of the top label: as `ece`, over 15 bins of equal mass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ace: Option<f64>,
    /// Class-wise ECE: mean over the classes of the ECE of p_k against [y = k].
    pub class_ece: f64,
    /// Thresholded adaptive calibration error (Nixon et al. 2019): class-wise, p_k > 0.01 only, 15 bins of equal mass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tace: Option<f64>,
    /// Debiased squared calibration error (Kumar et al. 2019): may be negative; needs a bin of two samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_debiased_sq: Option<f64>,
    /// Area under the risk-coverage curve (Geifman et al. 2019).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aurc: Option<f64>,
    /// Number, scheme and edges of the bins behind each calibration error above, and the norm of their gaps, by key: `ece` has
    /// `15 equal-width bins (lo, hi], l1`. The Brier score's terms have the bins of `class_ece`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binning: BTreeMap<String, String>,
    /// 95 % intervals, where asked for: keys `..._ci95`, and none where not.
    #[serde(flatten, default)]
    pub intervals: Intervals,
}

impl Metrics {
    /// Takes the errors that depend on the scheme from other bins, stated as `bins`.
    pub(super) fn use_gaps(&mut self, gaps: Gaps, bins: &str) {
        (self.ece, self.rmsce, self.mce) = (gaps.ece, gaps.rmsce, gaps.mce);
        self.l2_debiased_sq = gaps.l2_debiased_sq;
        for (key, norm) in [("ece", "l1"), ("rmsce", "l2"), ("mce", "max")] {
            self.binning.insert(key.into(), format!("{bins}, {norm}"));
        }
        match gaps.l2_debiased_sq {
            Some(_) => self.binning.insert("l2_debiased_sq".into(), format!("{bins}, l2 squared")),
            None => self.binning.remove("l2_debiased_sq"),
        };
    }
}

/// The errors that are functions of the bins' gaps alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps {
    pub(super) ece: f64,
    pub(super) rmsce: f64,
    pub(super) mce: f64,
    pub(super) l2_debiased_sq: Option<f64>,
}

impl Gaps {
    /// From each bin's (n, correct, n (accuracy - confidence)).
    pub(super) fn of(bins: impl Iterator<Item = (u64, u64, f64)>) -> Self {
        let (mut n, mut absolute, mut square, mut mce) = (0, 0.0, 0.0, 0f64);
        let mut debiased = None;
        for (count, correct, surplus) in bins.filter(|bin| bin.0 > 0) {
            let mass = count as f64;
            let gap = surplus / mass;
            n += count;
            absolute += surplus.abs();
            square += gap * surplus;
            mce = mce.max(gap.abs());
            if count > 1 {
                let accuracy = correct as f64 / mass;
                *debiased.get_or_insert(0.0) += mass * (gap * gap - accuracy * (1.0 - accuracy) / (mass - 1.0));
            }
        }
        let n = n as f64;
        Gaps { ece: absolute / n, rmsce: (square / n).sqrt(), mce, l2_debiased_sq: debiased.map(|sum: f64| sum / n) }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn null_if_infinite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}

fn infinite_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two bins of 4 and 1: accuracies 3/4 and 0, confidences .9 and .4; the second is too small to be debiased.
    #[test]
    fn gaps_of_two_bins_by_hand() {
        let gaps = Gaps::of([(4, 3, 3.0 - 3.6), (0, 0, 0.0), (1, 0, -0.4)].into_iter());
        assert!((gaps.ece - (0.6 + 0.4) / 5.0).abs() < 1e-15);
        assert!((gaps.rmsce - ((4.0 * 0.0225 + 0.16) / 5.0f64).sqrt()).abs() < 1e-15);
        assert!((gaps.mce - 0.4).abs() < 1e-15);
        assert!((gaps.l2_debiased_sq.unwrap() - 0.8 * (0.0225 - 0.1875 / 3.0)).abs() < 1e-15);
    }

    #[test]
    fn without_a_bin_of_two_nothing_can_be_debiased() {
        assert_eq!(Gaps::of([(1, 1, 0.25)].into_iter()).l2_debiased_sq, None);
    }
}
