//! Recalibration: a map fitted on validation predictions that mends the confidence of others.
//!
//! | method | what it is | predictions |
//! |---|---|---|
//! | temperature | logits / T (Guo et al. 2017) | stay |
//! | vector | w z + b, class by class (Guo et al. 2017) | may change |
//! | histogram | the hit rate of the bin (Zadrozny & Elkan 2001) | may change; on the top label only: stay |
//! | isotonic | a rising step curve (Zadrozny & Elkan 2002) | may change; on the top label only: stay |
//!
//! Probabilities enter the first two as logarithms, floored at 10^-12. The last two map each class's probability (one
//! against the rest) and divide by the sum, the uniform distribution standing in for a row of zeros; or, on the top label
//! only, the confidence, what is left being shared by the other classes in their proportions. Their zeros count as 10^-12
//! in the NLL, which would be infinite otherwise.

mod curve;
mod vector;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use curve::Curve;

use super::Bins;
use super::outcome::{Outcome, RowBuffer};
use super::predictions::MOST_CLASSES;
use super::scores::{Kind, Score, Scores};
use super::softmax::argmax;
use super::temperature;
use crate::{Error, Result};

/// The least probability whose logarithm is taken.
pub const FLOOR: f64 = 1e-12;

/// A way to recalibrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One scalar.
    Temperature,
    /// A factor and a shift for each class.
    Vector,
    /// Histogram binning over 15 equal-width bins.
    Histogram,
    /// Isotonic regression.
    Isotonic,
}

/// A fitted map for a number of classes; as JSON it is the file that `cigl calibrate --save` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recalibrator {
    classes: usize,
    #[serde(flatten)]
    map: Map,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum Map {
    /// Divides logits.
    Temperature {
        /// By this.
        temperature: f64,
    },
    /// Multiplies and shifts logits.
    Vector {
        /// Factor of each class.
        scale: Vec<f64>,
        /// Shift of each class.
        shift: Vec<f64>,
        /// What it was fitted on, for it fits nothing else: a row's logarithms differ from its logits by a number, which each class would multiply by
        /// its own factor.
        kind: Kind,
    },
    /// Maps probabilities by the hit rates of bins.
    Histogram {
        /// Whether it maps the confidence rather than each class.
        top_label: bool,
        /// One for each class, or one for the confidence.
        curves: Vec<Curve>,
    },
    /// Maps probabilities by rising curves.
    Isotonic {
        /// Whether it maps the confidence rather than each class.
        top_label: bool,
        /// One for each class, or one for the confidence.
        curves: Vec<Curve>,
    },
}

/// Room for one row.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    row: Vec<f64>,
    buffer: RowBuffer,
}

impl Scratch {
    pub(super) fn new(classes: usize) -> Self {
        Scratch { row: vec![0.0; classes], buffer: RowBuffer::new(classes) }
    }

    /// The recalibrated probabilities, filled up with zeros.
    pub(super) fn probs(&self) -> &[f32] {
        self.buffer.probs()
    }
}

impl Recalibrator {
    /// Fits on validation predictions, row-major (N, C). `top_label` makes histogram binning and isotonic regression map the
    /// confidence alone; the other two have no such form.
    ///
    /// # Errors
    /// See [`Scores::check`]; no samples; `top_label` with temperature or vector scaling; for temperature a label whose logit
    /// is -infinity, for vector scaling any such logit.
    pub fn fit<T: Score>(
        method: Method,
        top_label: bool,
        scores: Scores<T>,
        labels: &[u32],
        classes: usize,
    ) -> Result<Self> {
        scores.check(labels, classes)?;
        if labels.is_empty() {
            return Err(Error::shape("recalibration", "no samples, expected at least 1"));
        }
        if top_label && matches!(method, Method::Temperature | Method::Vector) {
            return Err(Error::Usage("temperature and vector scaling map whole rows, not the top label alone".into()));
        }
        let map = match method {
            Method::Temperature => Map::Temperature {
                temperature: match scores {
                    Scores::Logits(logits) => temperature::fit(logits, labels, classes)?,
                    Scores::Probs(_) => temperature::fit(&logits_of(scores), labels, classes)?,
                },
            },
            Method::Vector => {
                let (scale, shift) = vector::fit(&logits_of(scores), labels, classes)?;
                Map::Vector { scale, shift, kind: scores.kind() }
            }
            Method::Histogram => Map::Histogram {
                top_label,
                curves: curves(scores, labels, classes, top_label, |pairs| Curve::histogram(pairs, Bins::STANDARD)),
            },
            Method::Isotonic => {
                Map::Isotonic { top_label, curves: curves(scores, labels, classes, top_label, Curve::isotonic) }
            }
        };
        Ok(Recalibrator { classes, map })
    }

    /// One with a known map.
    ///
    /// # Errors
    /// A map that is not for so many classes, or whose numbers are not finite or not in range.
    pub fn new(classes: usize, map: Map) -> Result<Self> {
        let found = Recalibrator { classes, map };
        found.fault().map_or(Ok(found), |detail| Err(Error::shape("recalibration", detail)))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// Text that is something else; see [`Self::new`].
    pub fn from_json(text: &str) -> Result<Self> {
        let found: Recalibrator = serde_json::from_str(text)
            .map_err(|e| Error::shape("recalibration", format!("not a saved recalibration: {e}")))?;
        Recalibrator::new(found.classes, found.map)
    }

    /// As text, for a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("every number in it is finite, and it has no maps with other keys than strings")
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What it does.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match &self.map {
            Map::Temperature { .. } => "temperature",
            Map::Vector { .. } => "vector scaling",
            Map::Histogram { top_label: true, .. } => "histogram binning of the top label",
            Map::Histogram { .. } => "histogram binning",
            Map::Isotonic { top_label: true, .. } => "isotonic regression of the top label",
            Map::Isotonic { .. } => "isotonic regression",
        }
    }

    /// Whether predictions, and so accuracy, stay as they are.
    pub fn keeps_predictions(&self) -> bool {
        match &self.map {
            Map::Temperature { .. } => true,
            Map::Vector { .. } => false,
            Map::Histogram { top_label, .. } | Map::Isotonic { top_label, .. } => *top_label,
        }
    }

    /// What keeps it from scores of this kind, if anything does.
    pub(super) fn kind_fault(&self, given: Kind) -> Option<String> {
        match self.map {
            Map::Vector { kind, .. } if kind != given => {
                Some(format!("vector scaling that was fitted on {kind} cannot be applied to {given}"))
            }
            _ => None,
        }
    }

    /// Recalibrates scores, row-major (N, C): logits by temperature and vector scaling, probabilities by the other two.
    ///
    /// # Errors
    /// See [`Scores::check`]; also vector scaling that was fitted on scores of the other kind.
    pub fn apply<T: Score>(&self, scores: Scores<T>) -> Result<(Kind, Vec<f64>)> {
        let rows = scores.values().len() / self.classes;
        scores.check(&vec![0; rows], self.classes)?;
        if let Some(detail) = self.kind_fault(scores.kind()) {
            return Err(Error::shape("recalibration", detail));
        }
        let mut mended = Vec::with_capacity(scores.values().len());
        let mut row = vec![0.0; self.classes];
        for values in scores.values().chunks_exact(self.classes) {
            self.apply_row(values, scores.kind(), &mut row);
            mended.extend_from_slice(&row);
        }
        Ok((self.kind(), mended))
    }

    /// What [`Self::apply`] gives.
    fn kind(&self) -> Kind {
        match self.map {
            Map::Temperature { .. } | Map::Vector { .. } => Kind::Logits,
            Map::Histogram { .. } | Map::Isotonic { .. } => Kind::Probs,
        }
    }

    /// The outcome of one recalibrated row, and whether its prediction changed; none for a row that is not in order.
    pub(super) fn outcome<T: Score>(
        &self,
        values: &[T],
        kind: Kind,
        label: u32,
        scratch: &mut Scratch,
    ) -> Option<(Outcome, bool)> {
        let label = label as usize;
        if label >= self.classes {
            return None;
        }
        let before = T::read(values, kind, label, &mut scratch.buffer)?;
        let prediction = self.apply_row(values, kind, &mut scratch.row);
        let mut outcome = f64::read(&scratch.row, self.kind(), label, &mut scratch.buffer)?;
        if self.kind() == Kind::Probs {
            outcome.nll = -scratch.row[label].clamp(FLOOR, 1.0).ln() + 0.0;
        }
        if self.keeps_predictions() {
            // A mapped confidence may fall below another class's share; the prediction, and what it ranks, stays.
            if self.kind() == Kind::Probs {
                outcome.confidence = scratch.row[prediction] as f32;
            }
            (outcome.correct, outcome.top5) = (before.correct, before.top5);
            return Some((outcome, false));
        }
        Some((outcome, argmax(&scratch.row) != prediction))
    }

    /// Recalibrates a row that is in order; returns the prediction it had.
    fn apply_row<T: Score>(&self, values: &[T], kind: Kind, row: &mut [f64]) -> usize {
        let prediction = argmax(values);
        match &self.map {
            Map::Temperature { temperature } => {
                to_logits(values, kind, row);
                row.iter_mut().for_each(|z| *z /= temperature);
            }
            Map::Vector { scale, shift, .. } => {
                to_logits(values, kind, row);
                for (z, (w, b)) in row.iter_mut().zip(scale.iter().zip(shift)) {
                    // A class that was ruled out stays so.
                    *z = if *z == f64::NEG_INFINITY { *z } else { w * *z + b };
                }
            }
            Map::Histogram { top_label, curves } | Map::Isotonic { top_label, curves } => {
                to_probs(values, kind, row);
                if *top_label {
                    map_top_label(row, prediction, &curves[0]);
                } else {
                    row.iter_mut().zip(curves).for_each(|(p, curve)| *p = curve.at(*p));
                    normalise(row);
                }
            }
        }
        prediction
    }

    fn fault(&self) -> Option<String> {
        if !(1..=MOST_CLASSES).contains(&(self.classes as u64)) {
            return Some(format!("{} classes, expected 1 to {MOST_CLASSES}", self.classes));
        }
        let length = |name: &str, got: usize, expected: usize| {
            (got != expected).then(|| format!("{got} {name} for {} classes, expected {expected}", self.classes))
        };
        match &self.map {
            Map::Temperature { temperature } => (!(*temperature > 0.0 && temperature.is_finite()))
                .then(|| format!("a temperature of {temperature}, expected one above 0")),
            Map::Vector { scale, shift, .. } => length("factors", scale.len(), self.classes)
                .or_else(|| length("shifts", shift.len(), self.classes))
                .or_else(|| {
                    let finite = scale.iter().chain(shift).all(|x| x.is_finite());
                    (!finite).then(|| "a factor or shift that is not finite".into())
                }),
            Map::Histogram { top_label, curves } | Map::Isotonic { top_label, curves } => {
                length("curves", curves.len(), if *top_label { 1 } else { self.classes })
                    .or_else(|| curves.iter().find_map(Curve::fault))
            }
        }
    }
}

/// What it is, with its one number where it has one: `temperature 1.8412`.
impl fmt::Display for Recalibrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.map {
            Map::Temperature { temperature } => write!(f, "temperature {temperature:.4}"),
            _ => f.write_str(self.name()),
        }
    }
}

/// Fits a curve to each class's (p_k, [y = k]), or one to (confidence, correct).
fn curves<T: Score>(
    scores: Scores<T>,
    labels: &[u32],
    classes: usize,
    top_label: bool,
    fit: impl Fn(Vec<(f64, bool)>) -> Curve,
) -> Vec<Curve> {
    let mut row = vec![0.0; classes];
    let mut pairs = vec![Vec::with_capacity(labels.len()); if top_label { 1 } else { classes }];
    for (values, &label) in scores.values().chunks_exact(classes).zip(labels) {
        to_probs(values, scores.kind(), &mut row);
        if top_label {
            let prediction = argmax(values);
            pairs[0].push((row[prediction], prediction == label as usize));
        } else {
            let hits = (0..classes).map(|k| k == label as usize);
            pairs.iter_mut().zip(row.iter().zip(hits)).for_each(|(pairs, (&p, hit))| pairs.push((p, hit)));
        }
    }
    pairs.into_iter().map(fit).collect()
}

/// Gives the predicted class its mapped confidence, and the others what is left, in their proportions.
fn map_top_label(row: &mut [f64], prediction: usize, curve: &Curve) {
    let confidence = curve.at(row[prediction]);
    let others: f64 = row.iter().enumerate().filter(|(k, _)| *k != prediction).map(|(_, p)| p).sum();
    let (left, count) = (1.0 - confidence, row.len() - 1);
    for (k, p) in row.iter_mut().enumerate() {
        *p = match k == prediction {
            true if count == 0 => 1.0,
            true => confidence,
            false if others > 0.0 => *p * left / others,
            false => left / count as f64,
        };
    }
}

/// Divides a row by its sum; a row of zeros becomes the uniform distribution.
fn normalise(row: &mut [f64]) {
    let sum: f64 = row.iter().sum();
    let uniform = 1.0 / row.len() as f64;
    row.iter_mut().for_each(|p| *p = if sum > 0.0 { *p / sum } else { uniform });
}

/// The rows as logits.
fn logits_of<T: Score>(scores: Scores<T>) -> Vec<f64> {
    let mut logits = vec![0.0; scores.values().len()];
    to_logits(scores.values(), scores.kind(), &mut logits);
    logits
}

fn to_logits<T: Score>(values: &[T], kind: Kind, out: &mut [f64]) {
    for (out, &value) in out.iter_mut().zip(values) {
        let value: f64 = value.into();
        *out = if kind == Kind::Probs { value.max(FLOOR).ln() } else { value };
    }
}

/// One row as probabilities that add up to 1.
fn to_probs<T: Score>(values: &[T], kind: Kind, row: &mut [f64]) {
    let max: f64 = values[argmax(values)].into();
    for (p, &value) in row.iter_mut().zip(values) {
        let value: f64 = value.into();
        *p = if kind == Kind::Logits { (value - max).exp() } else { value };
    }
    if kind == Kind::Logits {
        normalise(row);
    }
}

#[cfg(test)]
mod tests;
