//! How well the confidence tells in-distribution samples from others.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::scores::{Score, Scores};
use crate::{Error, Result};

/// The largest probability of each sample of a set, 4 bytes each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confidences {
    values: Vec<f32>,
}

impl Confidences {
    /// None yet.
    pub fn new() -> Self {
        Confidences::default()
    }

    /// Adds a batch of scores, row-major (N, C); labels are not needed.
    ///
    /// # Errors
    /// See [`Scores::check`].
    pub fn add<T: Score>(&mut self, scores: Scores<T>, classes: usize) -> Result<()> {
        self.add_from(scores, classes, 0).map_err(|detail| Error::shape("calibration", detail))
    }

    /// [`Self::add`] whose errors call the batch's first row `first`.
    pub(super) fn add_from<T: Score>(&mut self, scores: Scores<T>, classes: usize, first: u64) -> Result<(), String> {
        let labels = vec![0; scores.values().len().checked_div(classes).unwrap_or(0)];
        if let Some(fault) = scores.shape_fault(&labels, classes) {
            return Err(fault);
        }
        let added = scores.for_each(&labels, classes, |_, _, outcome| self.values.push(outcome.confidence));
        added.map_err(|_| scores.fault(&labels, classes, first).unwrap_or_else(|| "a row cannot be read".into()))
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Detection of out-of-distribution samples by their confidence, in-distribution being positive (Hendrycks & Gimpel 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Separation {
    /// Area under the ROC curve: the chance that an in-distribution sample is the more confident one, ties counting half.
    pub auroc: f64,
    /// Area under the precision-recall curve as average precision: the sum of precision x the rise of recall, by threshold.
    pub aupr: f64,
    /// False positive rate at the highest threshold that accepts at least 95 % of the in-distribution samples.
    pub fpr95: f64,
}

impl Separation {
    /// Of two sets, each of at least one sample. Samples of equal confidence are accepted together.
    ///
    /// # Errors
    /// [`Error::Shape`] when one is empty.
    pub fn new(inside: &Confidences, outside: &Confidences) -> Result<Self> {
        if inside.is_empty() || outside.is_empty() {
            let detail = format!("{} samples against {}, expected at least 1 each", inside.len(), outside.len());
            return Err(Error::shape("separation", detail));
        }
        let (positives, negatives) = (inside.len() as u64, outside.len() as u64);
        let pairs = |of: &Confidences, positive| of.values.par_iter().map(move |&c| (c, positive)).collect::<Vec<_>>();
        let mut all = pairs(inside, true);
        all.extend(pairs(outside, false));
        all.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0));

        let (mut accepted, mut wrongly, mut halves) = (0u64, 0u64, 0u128);
        let (mut aupr, mut fpr95) = (0.0, None);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let hits = tied.iter().filter(|sample| sample.1).count() as u64;
            let misses = tied.len() as u64 - hits;
            // Each of these outsiders loses to the insiders accepted before and draws with those of this threshold.
            halves += u128::from(misses) * u128::from(2 * accepted + hits);
            (accepted, wrongly) = (accepted + hits, wrongly + misses);
            aupr += hits as f64 / positives as f64 * (accepted as f64 / (accepted + wrongly) as f64);
            if fpr95.is_none() && 100 * u128::from(accepted) >= 95 * u128::from(positives) {
                fpr95 = Some(wrongly as f64 / negatives as f64);
            }
        }
        let auroc = halves as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64;
        Ok(Separation { auroc, aupr, fpr95: fpr95.unwrap_or(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separation(inside: &[f32], outside: &[f32]) -> Separation {
        let of = |values: &[f32]| Confidences { values: values.to_vec() };
        Separation::new(&of(inside), &of(outside)).unwrap()
    }

    #[test]
    fn sets_that_do_not_overlap_are_told_apart_or_taken_for_each_other() {
        let found = separation(&[0.9, 0.8], &[0.5, 0.6]);
        assert_eq!(found, Separation { auroc: 1.0, aupr: 1.0, fpr95: 0.0 });
        let found = separation(&[0.1, 0.2], &[0.5, 0.6]);
        assert_eq!((found.auroc, found.fpr95), (0.0, 1.0));
        // Precision 1/3 at half the recall, 2/4 at the other half.
        assert!((found.aupr - (1.0 / 3.0 + 0.5) / 2.0).abs() < 1e-15);
    }

    #[test]
    fn ties_count_half() {
        assert_eq!(separation(&[0.5; 4], &[0.5; 6]), Separation { auroc: 0.5, aupr: 0.4, fpr95: 1.0 });
    }

    // Insiders .9 .7 .7 .4, outsiders .8 .7 .3. Pairs won: .9 beats 3, each .7 beats .3 and draws .7, .4 beats .3: 3 + 3 + 1 of 12.
    #[test]
    fn a_mixed_case_by_hand() {
        let found = separation(&[0.9, 0.7, 0.7, 0.4], &[0.8, 0.7, 0.3]);
        assert!((found.auroc - 7.0 / 12.0).abs() < 1e-15);
        assert!((found.aupr - (0.25 * 1.0 + 0.5 * (3.0 / 5.0) + 0.25 * (4.0 / 6.0))).abs() < 1e-15);
        assert!((found.fpr95 - 2.0 / 3.0).abs() < 1e-15);
    }

    // 20 insiders: 19 are 95 % exactly, so the last threshold need not be reached.
    #[test]
    fn the_threshold_accepts_95_percent_and_no_more_than_it_must() {
        let mut inside = vec![0.9; 19];
        inside.push(0.1);
        assert_eq!(separation(&inside, &[0.5, 0.2]).fpr95, 0.0);
        inside.push(0.05);
        assert_eq!(separation(&inside, &[0.5, 0.2]).fpr95, 1.0);
    }

    #[test]
    fn confidences_need_no_labels_and_an_empty_set_is_an_error() {
        let mut inside = Confidences::new();
        inside.add(Scores::Probs(&[0.25f32, 0.75, 0.5, 0.5]), 2).unwrap();
        assert_eq!(inside.values, [0.75, 0.5]);
        assert!(inside.add(Scores::Probs(&[0.25f32, 0.8]), 2).unwrap_err().to_string().contains("row 0"));
        assert!(Separation::new(&inside, &Confidences::new()).unwrap_err().to_string().contains("2 samples against 0"));
    }
}
