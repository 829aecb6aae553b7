//! A classifier's outputs with their labels, and what one row of them says.

use super::softmax::{argmax, nll, softmax};
use crate::{Error, Result};

/// How far the probabilities of a row may be from adding up to 1: files often hold three decimals of many classes.
const SUM_TOLERANCE: f64 = 0.01;

/// How far above 1 a probability may be: softmaxes in f32 round to 1.0000001. It then counts as 1.
const ROUNDING: f32 = 1e-5;

/// A classifier's outputs for N samples and C classes, row-major (N, C).
#[derive(Clone, Copy, Debug)]
pub enum Scores<'a> {
    /// Unnormalised log-probabilities. Minus infinity stands for a class that was ruled out.
    Logits(&'a [f32]),
    /// Probabilities, each row adding up to 1.
    Probs(&'a [f32]),
}

/// What one sample contributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The probability of the predicted class.
    pub confidence: f32,
    /// Whether the prediction, the lowest index among the maxima, is the label.
    pub correct: bool,
    /// Whether the label is among the five largest, the lower index first among equals.
    pub top5: bool,
    /// -log of the label's probability; infinite where that is 0.
    pub nll: f64,
    /// Sum over the classes of (p_k - [y = k])^2, between 0 and 2.
    pub brier: f64,
}

impl<'a> Scores<'a> {
    /// Checks shapes and values, so that nothing after it can fail.
    ///
    /// # Errors
    /// [`Error::Shape`], naming the first bad row (0-based): lengths that do not fit, no classes, a label out of range, NaN,
    /// a logit of +infinity, a row of nothing but -infinity, a probability outside [0, 1], a row that does not add up to 1.
    pub fn check(self, labels: &[u32], classes: usize) -> Result<()> {
        let fail = |detail: String| Err(Error::shape("calibration", detail));
        let values = self.values();
        if classes == 0 {
            return fail("0 classes, expected at least 1".into());
        }
        if Some(values.len()) != labels.len().checked_mul(classes) {
            let (got, rows) = (values.len(), labels.len());
            return fail(format!("{got} scores for {rows} labels, expected {rows} rows of {classes} classes"));
        }
        for (row, (scores, &label)) in values.chunks_exact(classes).zip(labels).enumerate() {
            if label as usize >= classes {
                return fail(format!("row {row} has label {label}, expected one below {classes}"));
            }
            if scores.iter().any(|score| score.is_nan()) {
                return fail(format!("row {row} holds NaN"));
            }
            match self {
                Scores::Logits(_) => {
                    let max = scores[argmax(scores)];
                    if !max.is_finite() {
                        return fail(format!("the largest logit of row {row} is {max}, expected a finite one"));
                    }
                }
                Scores::Probs(_) => {
                    if let Some(p) = scores.iter().find(|p| !(0.0..=1.0 + ROUNDING).contains(*p)) {
                        return fail(format!(
                            "row {row} holds {p}, expected probabilities in 0..1 (are these logits?)"
                        ));
                    }
                    let sum: f64 = scores.iter().map(|&p| f64::from(p)).sum();
                    if (sum - 1.0).abs() > SUM_TOLERANCE {
                        return fail(format!("row {row} adds up to {sum:.4}, expected 1 (are these logits?)"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with (row, probabilities of length C, outcome) for each row in order. Call [`Scores::check`] first.
    pub(super) fn for_each(self, labels: &[u32], classes: usize, mut visit: impl FnMut(usize, &[f32], Outcome)) {
        let mut buffer = vec![0.0; classes];
        for (row, (scores, &label)) in self.values().chunks_exact(classes).zip(labels).enumerate() {
            let label = label as usize;
            let (probs, nll) = match self {
                Scores::Logits(_) => {
                    softmax(scores, &mut buffer);
                    (&buffer[..], nll(scores, label, 1.0))
                }
                // ln 0 is -infinity, hence an infinite loss; + 0.0 turns the -0 of a certain row into 0.
                Scores::Probs(_) => (scores, -f64::from(scores[label].min(1.0)).ln() + 0.0),
            };
            // Ranks come from the scores as given: two logits may differ and round to the same probability.
            let prediction = argmax(scores);
            let ahead = (scores.iter().enumerate())
                .filter(|&(k, &score)| score > scores[label] || (score == scores[label] && k < label))
                .count();
            let brier = (probs.iter().enumerate())
                .map(|(k, &p)| (f64::from(p) - f64::from(u8::from(k == label))).powi(2))
                .sum();
            let (confidence, correct, top5) = (probs[prediction].min(1.0), prediction == label, ahead < 5);
            visit(row, probs, Outcome { confidence, correct, top5, nll, brier });
        }
    }

    fn values(self) -> &'a [f32] {
        match self {
            Scores::Logits(values) | Scores::Probs(values) => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scores: Scores, label: u32, classes: usize) -> Outcome {
        let mut found = None;
        scores.for_each(&[label], classes, |_, _, outcome| found = Some(outcome));
        found.unwrap()
    }

    #[test]
    fn a_row_of_probabilities_gives_the_hand_computed_terms() {
        let row = outcome(Scores::Probs(&[0.5, 0.25, 0.25]), 1, 3);
        let expected =
            Outcome { confidence: 0.5, correct: false, top5: true, nll: 4f64.ln(), brier: 0.25 + 0.5625 + 0.0625 };
        assert_eq!(row, expected);
    }

    #[test]
    fn a_zero_probability_of_the_label_is_an_infinite_loss_and_a_certain_one_none() {
        assert_eq!(outcome(Scores::Probs(&[1.0, 0.0]), 1, 2).nll, f64::INFINITY);
        assert_eq!(outcome(Scores::Probs(&[1.0, 0.0]), 0, 2).nll.to_bits(), 0);
    }

    #[test]
    fn a_probability_that_rounded_to_more_than_one_counts_as_one() {
        let probs = [1.0f32.next_up(), 0.0];
        Scores::Probs(&probs).check(&[0], 2).unwrap();
        let row = outcome(Scores::Probs(&probs), 0, 2);
        assert_eq!((row.confidence, row.nll), (1.0, 0.0));
    }

    #[test]
    fn top_five_counts_the_lower_index_first_among_equals() {
        let flat = [0.0; 7];
        assert!(outcome(Scores::Logits(&flat), 4, 7).top5);
        assert!(!outcome(Scores::Logits(&flat), 5, 7).top5);
    }

    #[test]
    fn bad_rows_are_named() {
        let nan = [0.5, 0.5, f32::NAN, 0.5];
        let cases: [(Scores, &[u32], usize, &str); 9] = [
            (Scores::Logits(&[]), &[], 0, "0 classes"),
            (Scores::Logits(&[1.0; 5]), &[0, 1], 2, "5 scores for 2 labels"),
            (Scores::Logits(&[1.0; 4]), &[0, 2], 2, "row 1 has label 2"),
            (Scores::Logits(&nan), &[0, 1], 2, "row 1 holds NaN"),
            (Scores::Probs(&nan), &[0, 1], 2, "row 1 holds NaN"),
            (Scores::Logits(&[1.0, f32::INFINITY]), &[0], 2, "the largest logit of row 0 is inf"),
            (Scores::Logits(&[f32::NEG_INFINITY; 2]), &[0], 2, "the largest logit of row 0 is -inf"),
            (Scores::Probs(&[0.5, 0.5, 3.0, -2.0]), &[0, 0], 2, "row 1 holds 3"),
            (Scores::Probs(&[0.5, 0.4]), &[0], 2, "row 0 adds up to 0.9"),
        ];
        for (scores, labels, classes, expected) in cases {
            let message = scores.check(labels, classes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }
}
