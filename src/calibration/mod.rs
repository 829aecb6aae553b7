//! How far a classifier's confidence can be trusted: calibration metrics of predictions, with no network and no GPU.
//!
//! * [`Accumulator`] takes logits or probabilities batch by batch, in any order, and can be merged with others: accuracy,
//!   NLL, Brier score, ECE and its relatives, in O(classes x bins) memory. Its results are equal to the last bit however
//!   the samples were ordered or split.
//! * [`Histogram`] is what a device adds up in one pass over its logits: accuracy, NLL, Brier score and ECE.
//! * [`Evaluator`] does the same on all cores and adds what needs the samples' order (equal-mass bins, the risk-coverage
//!   curve), 95 % bootstrap intervals and ECE against the number of bins. [`evaluate`] is that in one call.
//! * [`Reliability`] is the reliability diagram's data; `report::plot` draws it.
//! * [`Recalibrator`] mends over-confidence after training: temperature, vector scaling, histogram binning, isotonic
//!   regression, each fitted on validation predictions.
//! * [`Separation`] says how well confidence tells one set from another: AUROC, AUPR, FPR at 95 % TPR.
//! * [`predictions`] reads files of predictions from any framework, chunk by chunk.
//!
//! N samples, C classes; scores are row-major (N, C) f32 or f64, labels u32 below C. The prediction is the lowest index among the
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
mod bin_sweep;
mod bins;
mod bootstrap;
mod brier_parts;
mod class_resampling;
mod evaluator;
mod exact_sum;
mod histogram;
mod metrics;
mod narrow_rows;
mod one_vs_rest;
mod outcome;
pub mod predictions;
mod radix_sort;
pub mod recalibration;
mod reliability;
mod scores;
mod separation;
pub mod softmax;
mod tace;
pub mod temperature;

pub use accumulator::Accumulator;
pub use bin_sweep::BinCount;
pub use bins::{Bins, Closed};
pub use bootstrap::{Intervals, LARGE_N, Method, RESAMPLES};
pub use evaluator::{Evaluation, Evaluator, Options, Scheme, TACE_PAIRS};
pub use exact_sum::ExactSum;
pub use histogram::{Histogram, LARGEST_LOSS, WORDS};
pub use metrics::Metrics;
pub use outcome::Outcome;
pub use recalibration::Recalibrator;
pub use reliability::{Bin, Reliability};
pub use scores::{Kind, Score, Scores};
pub use separation::{Confidences, Separation, SeparationIntervals};

use crate::Result;

/// Evaluates N samples at once, on all cores: an [`Evaluator`] with a single batch.
///
/// # Errors
/// See [`Scores::check`]; also when there are no samples.
pub fn evaluate<T: Score>(scores: Scores<T>, labels: &[u32], classes: usize, options: &Options) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(classes, *options);
    evaluator.add(scores, labels)?;
    evaluator.finish()
}

#[cfg(test)]
mod tests;
