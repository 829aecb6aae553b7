//! Temperature scaling (Guo et al. 2017): logits divided by one scalar T, fitted on validation data.
//!
//! T > 1 softens an over-confident classifier. Predictions, and so accuracy, stay as they are.

use rayon::prelude::*;

use super::scores::{Score, Scores};
use super::softmax::argmax;
use crate::{Error, Result};

/// The bracket of the search.
pub const BRACKET: [f64; 2] = [0.01, 100.0];

/// Halvings of the bracket in log T: ln(10^4) / 2^50 is below 1e-14.
const HALVINGS: usize = 50;

/// The temperature in [`BRACKET`] that minimises the NLL of logits, row-major (N, C), against N labels.
///
/// The NLL is convex in 1 / T, with derivative `mean(E_p[z] - z_y)` under p = softmax(z / T); its only sign change is found
/// by halving the bracket of log T. It cannot diverge: on separable data, where the NLL falls to 0 with T, and on data
/// worse than chance the answer is the bracket's end.
///
/// # Errors
/// See [`Scores::check`]; also when there are no samples, and when a label's logit is -infinity, for then the NLL is
/// infinite at every temperature.
pub fn fit<T: Score>(logits: &[T], labels: &[u32], classes: usize) -> Result<f64> {
    Scores::Logits(logits).check(labels, classes)?;
    if labels.is_empty() {
        return Err(Error::shape("temperature scaling", "no samples, expected at least 1"));
    }
    for (row, (scores, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
        if scores[label as usize].into() == f64::NEG_INFINITY {
            let detail = format!("the logit of row {row}'s label is -inf, so the NLL is infinite at every temperature");
            return Err(Error::shape("temperature scaling", detail));
        }
    }
    let [mut low, mut high] = BRACKET.map(f64::ln);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        // Positive: more weight on the large logits than the labels bear out, so the logits must shrink.
        if over_confidence(logits, labels, classes, middle.exp()) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((0.5 * (low + high)).exp().clamp(BRACKET[0], BRACKET[1]))
}

/// Divides logits by a temperature in place.
pub fn apply(logits: &mut [f32], temperature: f64) {
    for logit in logits {
        *logit = (f64::from(*logit) / temperature) as f32;
    }
}

/// Rows that are summed up as one part. A constant, so that sums do not depend on the number of threads.
const ROWS: usize = 256;

/// The derivative of the summed NLL by 1 / T: sum over the rows of `E_p[z] - z_y`.
fn over_confidence<T: Score>(logits: &[T], labels: &[u32], classes: usize, temperature: f64) -> f64 {
    let row_excess = |(row, &label): (&[T], &u32)| {
        let max: f64 = row[argmax(row)].into();
        let (mut mass, mut moment) = (0.0, 0.0);
        for below in row.iter().map(|&z| z.into() - max).filter(|below| below.is_finite()) {
            let weight = (below / temperature).exp();
            mass += weight;
            moment += weight * below;
        }
        moment / mass - (row[label as usize].into() - max)
    };
    let part = |(rows, labels): (&[T], &[u32])| rows.chunks_exact(classes).zip(labels).map(row_excess).sum::<f64>();
    let parts: Vec<f64> = logits.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS)).map(part).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calibration::Accumulator;

    proptest! {
        #[test]
        fn a_fitted_temperature_never_changes_a_prediction_and_never_raises_the_nll_it_was_fitted_on(
            rows in prop::collection::vec((prop::collection::vec(-20f32..20.0, 4), 0u32..4), 1..40),
        ) {
            let logits: Vec<f32> = rows.iter().flat_map(|row| row.0.clone()).collect();
            let labels: Vec<u32> = rows.iter().map(|row| row.1).collect();
            let mut scaled = logits.clone();
            apply(&mut scaled, fit(&logits, &labels, 4).unwrap());
            let metrics = |logits: &[f32]| {
                let mut accumulator = Accumulator::new(4);
                accumulator.add_logits(logits, &labels).unwrap();
                accumulator.metrics().unwrap()
            };
            let (before, after) = (metrics(&logits), metrics(&scaled));
            prop_assert!(after.nll <= before.nll + 1e-6, "{} became {}", before.nll, after.nll);
            for (old, new) in logits.chunks(4).zip(scaled.chunks(4)) {
                prop_assert!(new[argmax(old)] == new[argmax(new)]);
            }
        }
    }

    // Two classes, logits (z, 0), right in 3 of 4: the NLL is least where sigmoid(z / T) = 3/4, T = z / ln 3.
    #[test]
    fn two_classes_have_the_closed_form_optimum() {
        for z in [0.5f32, 5.0, 40.0] {
            let logits = [z, 0.0].repeat(4);
            let fitted = fit(&logits, &[0, 0, 1, 0], 2).unwrap();
            assert!((fitted / (f64::from(z) / 3f64.ln()) - 1.0).abs() < 1e-12, "{z}: {fitted}");
        }
    }

    #[test]
    fn separable_data_and_data_worse_than_chance_end_at_the_bracket() {
        let logits = [2.0f32, 0.0, 0.0, 3.0];
        assert!((fit(&logits, &[0, 1], 2).unwrap() / BRACKET[0] - 1.0).abs() < 1e-9);
        assert!((fit(&logits, &[1, 0], 2).unwrap() / BRACKET[1] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn scaling_by_a_power_of_two_scales_the_temperature_alike() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 71 % 97) as f32 - 48.0) * 0.1).collect();
        let labels: Vec<u32> = (0..100).map(|i| i * 13 % 3).collect();
        let mut halved = logits.clone();
        apply(&mut halved, 2.0);
        let (whole, half) = (fit(&logits, &labels, 3).unwrap(), fit(&halved, &labels, 3).unwrap());
        assert!((whole / half - 2.0).abs() < 1e-10 || whole > 99.0, "{whole} and {half}");
    }

    #[test]
    fn a_label_that_was_ruled_out_is_an_error() {
        let message = fit(&[0.0f32, f32::NEG_INFINITY], &[1], 2).unwrap_err().to_string();
        assert!(message.contains("row 0"), "{message}");
    }
}
