//! How far a classifier's confidence can be trusted: calibration metrics of predictions, with no network and no GPU.
//!
//! * [`Accumulator`] takes logits or probabilities batch by batch, in any order, and can be merged with others: accuracy,
//!   NLL, Brier score, ECE and its relatives, in O(classes x bins) memory. Its results are equal to the last bit however
//!   the samples were ordered or split.
//! * [`Histogram`] is what a device adds up in one pass over its logits: accuracy, NLL, Brier score and ECE.
//! * [`evaluate`] takes all samples at once and adds what needs their order (equal-mass bins, the risk-coverage curve) and
//!   95 % bootstrap intervals.
//! * [`Reliability`] is the reliability diagram's data; `report::plot` draws it.
//! * [`temperature`] fits one scalar on validation data to mend over-confidence.
//!
//! N samples, C classes; scores are row-major (N, C) f32, labels u32 below C. The prediction is the lowest index among the
//! maxima, its probability the confidence. All metrics are fractions; [`Metrics`] defines each.
//!
//! ECE is biased upwards in small samples: a perfectly calibrated model with uniform confidences shows .125 at n = 100,
//! .027 at 2,000 and .012 at 10,000. `l2_debiased_sq` averages 0 there.
//!
//! ```
//! use cigl::calibration::{Options, Scores, evaluate};
//!
//! // Three samples, two classes: confident and right, confident and wrong, undecided and right.
//! let probs = [0.9, 0.1, 0.8, 0.2, 0.4, 0.6];
//! let evaluation = evaluate(Scores::Probs(&probs), &[0, 1, 1], 2, &Options::default())?;
//! let metrics = &evaluation.metrics;
//! assert!((metrics.accuracy - 2.0 / 3.0).abs() < 1e-9);
//! // |1 - .9| / 3 + |0 - .8| / 3 + |1 - .6| / 3: three bins of one sample each.
//! assert!((metrics.ece - 1.3 / 3.0).abs() < 1e-6);
//! assert_eq!(metrics.top5, None);
//! # Ok::<(), cigl::Error>(())
//! ```

mod accumulator;
mod adaptive;
mod bins;
mod bootstrap;
mod exact_sum;
mod histogram;
mod metrics;
mod reliability;
mod scores;
pub mod softmax;
pub mod temperature;

use serde::{Deserialize, Serialize};

pub use accumulator::Accumulator;
pub use bins::{Bins, Closed};
pub use bootstrap::{Intervals, LARGE_N, Method, RESAMPLES};
pub use exact_sum::ExactSum;
pub use histogram::{Histogram, LARGEST_LOSS, WORDS};
pub use metrics::Metrics;
pub use reliability::{Bin, Reliability};
pub use scores::{Outcome, Scores};

use crate::Result;

/// What [`evaluate`] computes beyond the point estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to add 95 % bootstrap intervals.
    pub intervals: bool,
    /// Their seed.
    pub seed: u64,
}

/// Metrics and the reliability diagram's data of one set of predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Every metric.
    pub metrics: Metrics,
    /// Accuracy and confidence of the 15 bins behind `metrics.ece`.
    pub reliability: Reliability,
}

/// Evaluates N samples at once. Memory is O(N C) for logits, O(N) beyond the input for probabilities.
///
/// # Errors
/// See [`Scores::check`]; also when there are no samples.
pub fn evaluate(scores: Scores, labels: &[u32], classes: usize, options: &Options) -> Result<Evaluation> {
    scores.check(labels, classes)?;
    let mut accumulator = Accumulator::new(classes);
    let mut outcomes = Vec::with_capacity(labels.len());
    let mut softmaxes = Vec::new();
    scores.for_each(labels, classes, |row, probs, outcome| {
        accumulator.add_row(probs, labels[row], &outcome);
        outcomes.push(outcome);
        if let Scores::Logits(_) = scores {
            softmaxes.extend_from_slice(probs);
        }
    });
    let probs = if let Scores::Probs(given) = scores { given } else { &softmaxes };

    let mut metrics = accumulator.metrics()?;
    let mut sorted: Vec<(f32, bool)> = outcomes.iter().map(|o| (o.confidence, o.correct)).collect();
    sorted.sort_unstable_by(adaptive::by_confidence);
    metrics.ace = Some(adaptive::ace(&sorted));
    metrics.tace = Some(adaptive::tace(probs, labels, classes));
    metrics.aurc = Some(adaptive::aurc(&sorted));
    metrics.binning.extend(adaptive::binning());
    if options.intervals {
        metrics.intervals = bootstrap::intervals(outcomes, &metrics, options.seed);
    }
    Ok(Evaluation { metrics, reliability: accumulator.reliability() })
}

#[cfg(test)]
mod tests;
