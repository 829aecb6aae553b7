//! Vector scaling (Guo et al. 2017): logits w_k z_k + b_k, fitted by the least NLL.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::super::softmax::argmax;
use super::super::temperature;
use crate::{Error, Result};

/// Steps at most: on separable data the NLL falls without end.
const STEPS: usize = 300;

/// Pairs of the last steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// The largest slope at which it stops, in nats per unit of a parameter.
const FLAT: f64 = 1e-8;

/// Rows that are summed up as one part. A constant, so that sums do not depend on the number of threads.
const ROWS: usize = 256;

/// The factors w and shifts b with the least NLL of logits, row-major (N, C), against N labels.
///
/// The NLL is convex in both. L-BFGS (Nocedal 1980) starts from the best temperature, w = 1 / T and b = 0, and only ever
/// takes steps that lower the NLL, so that the result is never worse than temperature scaling. On separable data, whose
/// NLL has no minimum, it ends after 300 steps. Data is assumed to have been checked, but for -infinity.
pub(super) fn fit(logits: &[f64], labels: &[u32], classes: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    if let Some(at) = logits.iter().position(|z| !z.is_finite()) {
        let detail = format!("row {} holds {}, expected finite logits", at / classes, logits[at]);
        return Err(Error::shape("vector scaling", detail));
    }
    let temperature = temperature::fit(logits, labels, classes)?;
    let mut at = vec![1.0 / temperature; classes];
    at.resize(2 * classes, 0.0);
    let loss = |at: &[f64]| nll_and_slope(logits, labels, classes, at);
    minimise(&mut at, loss);
    let shift = at.split_off(classes);
    Ok((at, shift))
}

/// Walks from `at` downhill to where the slope is flat; `value` gives a function's value and gradient.
fn minimise(at: &mut Vec<f64>, value: impl Fn(&[f64]) -> (f64, Vec<f64>)) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let (mut here, mut slope) = value(at);
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for _ in 0..STEPS {
        if slope.iter().all(|s| s.abs() < FLAT) {
            return;
        }
        // The two loops of L-BFGS: the inverse curvature of the last steps times the slope.
        let mut direction: Vec<f64> = slope.iter().map(|s| -s).collect();
        let mut shares = Vec::with_capacity(memory.len());
        for (step, change, curvature) in memory.iter().rev() {
            let share = dot(step, &direction) / curvature;
            direction.iter_mut().zip(change).for_each(|(d, c)| *d -= share * c);
            shares.push(share);
        }
        if let Some((_, change, curvature)) = memory.back() {
            let scale = curvature / dot(change, change);
            direction.iter_mut().for_each(|d| *d *= scale);
        }
        for ((step, change, curvature), share) in memory.iter().zip(shares.into_iter().rev()) {
            let back = share - dot(change, &direction) / curvature;
            direction.iter_mut().zip(step).for_each(|(d, s)| *d += back * s);
        }
        let fall = dot(&direction, &slope);
        if fall >= 0.0 {
            return;
        }
        // Halve the step until it lowers the value by a part of what the slope promises (Armijo).
        let mut length = 1.0;
        let (next, next_value, next_slope) = loop {
            let next: Vec<f64> = at.iter().zip(&direction).map(|(a, d)| a + length * d).collect();
            let (next_value, next_slope) = value(&next);
            if next_value <= here + 1e-4 * length * fall {
                break (next, next_value, next_slope);
            }
            length *= 0.5;
            if length < 1e-10 {
                return;
            }
        };
        let step: Vec<f64> = next.iter().zip(at.iter()).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_slope.iter().zip(&slope).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 1e-12 * dot(&change, &change).sqrt() * dot(&step, &step).sqrt() {
            memory.push_back((step, change, curvature));
            if memory.len() > MEMORY {
                memory.pop_front();
            }
        }
        (*at, here, slope) = (next, next_value, next_slope);
    }
}

/// The mean NLL, and its gradient by the factors and shifts.
fn nll_and_slope(logits: &[f64], labels: &[u32], classes: usize, at: &[f64]) -> (f64, Vec<f64>) {
    let (scale, shift) = at.split_at(classes);
    let part = |(rows, labels): (&[f64], &[u32])| {
        let (mut total, mut slope, mut scores) = (0.0, vec![0.0; 2 * classes], vec![0.0; classes]);
        for (row, &label) in rows.chunks_exact(classes).zip(labels) {
            for k in 0..classes {
                scores[k] = scale[k] * row[k] + shift[k];
            }
            let (label, max) = (label as usize, scores[argmax(&scores)]);
            let own = scores[label];
            scores.iter_mut().for_each(|z| *z = (*z - max).exp());
            let sum: f64 = scores.iter().sum();
            total += sum.ln() + max - own;
            for k in 0..classes {
                let excess = scores[k] / sum - f64::from(u8::from(k == label));
                slope[k] += excess * row[k];
                slope[classes + k] += excess;
            }
        }
        (total, slope)
    };
    let parts: Vec<(f64, Vec<f64>)> =
        logits.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS)).map(part).collect();
    let (mut total, mut slope) = (0.0, vec![0.0; 2 * classes]);
    for (more, by) in parts {
        total += more;
        slope.iter_mut().zip(by).for_each(|(s, b)| *s += b);
    }
    let n = labels.len() as f64;
    slope.iter_mut().for_each(|s| *s /= n);
    (total / n, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The minimum of (x - 3)^2 + 10 (y + 1)^2.
    #[test]
    fn a_quadratic_bowl_has_its_minimum_found() {
        let mut at = vec![0.0, 0.0];
        minimise(&mut at, |at| {
            let (x, y) = (at[0] - 3.0, at[1] + 1.0);
            (x * x + 10.0 * y * y, vec![2.0 * x, 20.0 * y])
        });
        assert!((at[0] - 3.0).abs() < 1e-8 && (at[1] + 1.0).abs() < 1e-8, "{at:?}");
    }

    // With equal logits only the shifts count: softmax(b) is the share of each class, here 1/2, 1/4, 1/4.
    #[test]
    fn shifts_learn_the_shares_of_the_classes() {
        let (_, shift) = fit(&[0.0; 24], &[0, 0, 1, 2, 0, 0, 1, 2], 3).unwrap();
        assert!((shift[0] - shift[1] - 2f64.ln()).abs() < 1e-6 && (shift[1] - shift[2]).abs() < 1e-6, "{shift:?}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let logits: Vec<f64> = (0..60).map(|i| f64::from(i * 71 % 97 - 48) * 0.05).collect();
        let labels: Vec<u32> = (0..20).map(|i| i * 13 % 3).collect();
        let at = [0.7, 1.2, 0.4, 0.1, -0.3, 0.2];
        let (_, slope) = nll_and_slope(&logits, &labels, 3, &at);
        for k in 0..6 {
            let shifted = |by: f64| {
                let mut at = at;
                at[k] += by;
                nll_and_slope(&logits, &labels, 3, &at).0
            };
            let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert!((slope[k] - numeric).abs() < 1e-8, "parameter {k}: {} {numeric}", slope[k]);
        }
    }

    #[test]
    fn a_class_that_was_ruled_out_is_an_error() {
        let message = fit(&[0.0, 1.0, 0.0, f64::NEG_INFINITY], &[0, 0], 2).unwrap_err().to_string();
        assert!(message.contains("row 1 holds -inf"), "{message}");
    }
}
