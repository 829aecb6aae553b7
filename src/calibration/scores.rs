//! A classifier's outputs with their labels, and what may not be among them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::narrow_rows::{NarrowRows, ROWS};
use super::outcome::{BLOCK, Outcome, RowBuffer};
use super::softmax::argmax;
use crate::{Error, Result};

/// How far the probabilities of a row may be from adding up to 1: files often hold three decimals of many classes.
pub(super) const SUM_TOLERANCE: f64 = 0.01;

/// How far above 1 a probability may be: softmaxes in f32 round to 1.0000001. It then counts as 1.
pub(super) const TOP_OF_PROBABILITIES: f32 = 1.0 + 1e-5;

/// What scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Unnormalised log-probabilities.
    Logits,
    /// Probabilities, each row adding up to 1.
    Probs,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Logits => "logits",
            Kind::Probs => "probabilities",
        })
    }
}

/// The type of a score: `f32` or `f64`. Files of `f16` are read as `f32`, which holds every such number.
///
/// Sums, losses and ranks of f64 scores are taken in f64; confidences are rounded to f32 before they are binned.
pub trait Score: Copy + PartialOrd + Into<f64> + Send + Sync {
    /// Reads a row into the buffer; none where it is not in order.
    #[doc(hidden)] // RowBuffer cannot be named outside, so nothing else can be a Score
    fn read(row: &[Self], kind: Kind, label: usize, buffer: &mut RowBuffer) -> Option<Outcome>;

    /// The values as f32, if that is what they are: those have a faster way for narrow rows.
    #[doc(hidden)]
    fn as_f32(_values: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Score for f32 {
    fn read(row: &[Self], kind: Kind, label: usize, buffer: &mut RowBuffer) -> Option<Outcome> {
        buffer.read_f32(row, kind, label)
    }

    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
}

impl Score for f64 {
    fn read(row: &[Self], kind: Kind, label: usize, buffer: &mut RowBuffer) -> Option<Outcome> {
        buffer.read_f64(row, kind, label)
    }
}

/// A classifier's outputs for N samples and C classes, row-major (N, C).
#[derive(Clone, Copy, Debug)]
pub enum Scores<'a, T = f32> {
    /// Unnormalised log-probabilities. Minus infinity stands for a class that was ruled out.
    Logits(&'a [T]),
    /// Probabilities, each row adding up to 1.
    Probs(&'a [T]),
}

impl<'a, T: Score> Scores<'a, T> {
    /// Scores of the given kind.
    pub fn new(kind: Kind, values: &'a [T]) -> Self {
        match kind {
            Kind::Logits => Scores::Logits(values),
            Kind::Probs => Scores::Probs(values),
        }
    }

    /// What they are.
    pub fn kind(self) -> Kind {
        match self {
            Scores::Logits(_) => Kind::Logits,
            Scores::Probs(_) => Kind::Probs,
        }
    }

    /// All scores, row by row.
    pub fn values(self) -> &'a [T] {
        match self {
            Scores::Logits(values) | Scores::Probs(values) => values,
        }
    }

    /// Checks shapes and values, so that nothing after it can fail.
    ///
    /// # Errors
    /// [`Error::Shape`], naming the first bad row (0-based): lengths that do not fit, no classes, a label out of range, NaN,
    /// a logit of +infinity, a row of nothing but -infinity, a probability outside [0, 1], a row that does not add up to 1.
    pub fn check(self, labels: &[u32], classes: usize) -> Result<()> {
        let fault = self.shape_fault(labels, classes).or_else(|| self.fault(labels, classes, 0));
        fault.map_or(Ok(()), |detail| Err(Error::shape("calibration", detail)))
    }

    /// What is wrong with the number of scores, if anything is.
    pub(super) fn shape_fault(self, labels: &[u32], classes: usize) -> Option<String> {
        if classes == 0 {
            return Some("0 classes, expected at least 1".into());
        }
        let (got, rows) = (self.values().len(), labels.len());
        (Some(got) != rows.checked_mul(classes))
            .then(|| format!("{got} scores for {rows} labels, expected {rows} rows of {classes} classes"))
    }

    /// What is wrong with the first bad row, if there is one; the first row of these is called `first`.
    pub(super) fn fault(self, labels: &[u32], classes: usize, first: u64) -> Option<String> {
        let mut buffer = RowBuffer::new(classes);
        for (i, (scores, &label)) in self.values().chunks_exact(classes).zip(labels).enumerate() {
            let row = first + i as u64;
            if label as usize >= classes {
                return Some(format!("row {row} has label {label}, expected one below {classes}"));
            }
            if T::read(scores, self.kind(), label as usize, &mut buffer).is_none() {
                return Some(self.row_fault(scores, row));
            }
        }
        None
    }

    /// What is wrong with a row that could not be read.
    fn row_fault(self, scores: &[T], row: u64) -> String {
        let wide = || scores.iter().map(|&score| -> f64 { score.into() });
        if wide().any(f64::is_nan) {
            return format!("row {row} holds NaN");
        }
        if let Scores::Logits(_) = self {
            let max: f64 = scores[argmax(scores)].into();
            return format!("the largest logit of row {row} is {max}, expected a finite one");
        }
        match wide().find(|p| !(0.0..=f64::from(TOP_OF_PROBABILITIES)).contains(p)) {
            Some(p) => format!("row {row} holds {p}, expected probabilities in 0..1 (are these logits?)"),
            None => {
                let sum: f64 = wide().sum();
                format!("row {row} adds up to {sum:.4}, expected 1 (are these logits?)")
            }
        }
    }

    /// Calls `visit` for all rows in order.
    ///
    /// Fails with the index of the first row that is not in order.
    pub(super) fn for_each(self, labels: &[u32], classes: usize, mut visit: impl FnMut(Visit)) -> Result<(), usize> {
        let mut first = 0;
        if let (Kind::Logits, Some(logits), ..=BLOCK) = (self.kind(), T::as_f32(self.values()), classes) {
            let mut narrow = NarrowRows::new(classes);
            for (logits, labels) in logits.chunks(classes * ROWS).zip(labels.chunks(ROWS)) {
                let in_order = narrow.read(logits, labels);
                visit(Visit::Narrow(&narrow));
                first += narrow.len();
                if !in_order {
                    // One by one below, to find which.
                    break;
                }
            }
        }
        let mut buffer = RowBuffer::new(classes);
        let rows = self.values().chunks_exact(classes).zip(labels).enumerate().skip(first);
        for (row, (scores, &label)) in rows {
            let known = (label as usize) < classes;
            let read = known.then(|| T::read(scores, self.kind(), label as usize, &mut buffer)).flatten();
            let Some(outcome) = read else { return Err(row) };
            visit(Visit::Row { row, probs: buffer.probs(), outcome: &outcome });
        }
        Ok(())
    }
}

/// What [`Scores::for_each`] hands out.
pub(super) enum Visit<'a> {
    /// Some rows of few logits, in columns.
    Narrow(&'a NarrowRows),
    /// One row; its C probabilities come first, and zeros fill them up to whole blocks.
    Row { row: usize, probs: &'a [f32], outcome: &'a Outcome },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome<T: Score>(scores: Scores<T>, label: u32, classes: usize) -> Outcome {
        let mut found = None;
        let visit = |visit: Visit| {
            if let Visit::Row { outcome, .. } = visit {
                found = Some(*outcome);
            }
        };
        scores.for_each(&[label], classes, visit).unwrap();
        found.unwrap()
    }

    #[test]
    fn a_row_of_probabilities_gives_the_hand_computed_terms() {
        let expected =
            Outcome { confidence: 0.5, correct: false, top5: true, nll: 4f64.ln(), brier: 0.25 + 0.5625 + 0.0625 };
        assert_eq!(outcome(Scores::Probs(&[0.5f32, 0.25, 0.25]), 1, 3), expected);
        assert_eq!(outcome(Scores::Probs(&[0.5f64, 0.25, 0.25]), 1, 3), expected);
    }

    #[test]
    fn a_zero_probability_of_the_label_is_an_infinite_loss_and_a_certain_one_none() {
        assert_eq!(outcome(Scores::Probs(&[1.0f32, 0.0]), 1, 2).nll, f64::INFINITY);
        assert_eq!(outcome(Scores::Probs(&[1.0f32, 0.0]), 0, 2).nll.to_bits(), 0);
    }

    // 1e-60 is 0 in f32.
    #[test]
    fn a_tiny_f64_probability_keeps_its_loss() {
        let loss = outcome(Scores::Probs(&[1.0f64, 1e-60]), 1, 2).nll;
        assert!((loss - 60.0 * 10f64.ln()).abs() < 1e-12, "{loss}");
    }

    // In f32 both logits are 1 and the lower index wins.
    #[test]
    fn f64_logits_that_f32_cannot_tell_apart_are_ranked() {
        assert!(outcome(Scores::Logits(&[1.0, 1.0 + 1e-12]), 1, 2).correct);
    }

    #[test]
    fn f32_and_f64_logits_agree_on_every_width_of_row() {
        for classes in [1, 2, 10, 15, 16, 17, 31, 32, 33, 48, 100, 1000] {
            let narrow: Vec<f32> = (0..classes).map(|k| ((k * 37 % 101) as f32 - 50.0) * 0.13).collect();
            let wide: Vec<f64> = narrow.iter().map(|&z| f64::from(z)).collect();
            for label in [0, classes / 2, classes - 1] {
                let found = outcome(Scores::Logits(&narrow), label as u32, classes);
                let total: f64 = wide.iter().map(|z| z.exp()).sum();
                let p = |k: usize| wide[k].exp() / total;
                let brier: f64 = (0..classes).map(|k| (p(k) - f64::from(u8::from(k == label))).powi(2)).sum();
                assert!((found.nll + p(label).ln()).abs() < 1e-13, "{classes} classes: {}", found.nll);
                assert!((found.brier - brier).abs() < 1e-6, "{classes} classes: {} {brier}", found.brier);
                let other = outcome(Scores::Logits(&wide), label as u32, classes);
                assert!((found.nll - other.nll).abs() < 1e-14 && (found.brier - other.brier).abs() < 1e-6);
                assert!((found.confidence - other.confidence).abs() < 1e-6);
                assert_eq!((found.correct, found.top5), (other.correct, other.top5));
            }
        }
    }

    // ln(1 + e^-40) is e^-40 to all digits; a logarithm of the sum would give 0.
    #[test]
    fn the_loss_keeps_the_digits_of_a_confident_row() {
        let loss = outcome(Scores::Logits(&[40.0f32, 0.0]), 0, 2).nll;
        assert!((loss / (-40f64).exp() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_probabilities_of_a_row_are_those_of_softmax_to_the_bit() {
        for classes in [1, 10, 16, 17, 33, 100, 1000] {
            let logits: Vec<f32> = (0..classes).map(|k| ((k * 37 % 101) as f32 - 50.0) * 0.13).collect();
            let mut expected = vec![0.0; classes];
            crate::calibration::softmax::softmax(&logits, &mut expected);
            let (mut buffer, row) = (RowBuffer::new(classes), &logits[..]);
            f32::read(row, Kind::Logits, 0, &mut buffer).unwrap();
            assert_eq!(buffer.probs()[..classes], expected, "{classes} classes");
            assert!(buffer.probs()[classes..].iter().all(|&p| p == 0.0));
        }
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
        let flat = [0.0f32; 7];
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
            let wide: Vec<f64> = scores.values().iter().map(|&s| f64::from(s)).collect();
            let message = Scores::new(scores.kind(), &wide).check(labels, classes).unwrap_err().to_string();
            assert!(message.contains(expected), "f64: {message:?} lacks {expected:?}");
        }
    }
}
