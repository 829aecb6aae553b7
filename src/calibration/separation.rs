//! How well the confidence tells in-distribution samples from others.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bootstrap::{CELLS, FRACTION, LARGE_N, Method, Resamples, draw_multinomial, draw_samples};
use super::scores::{Score, Scores, Visit};
use crate::rng::Stream;
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
        let added = scores.for_each(&labels, classes, |visit| match visit {
            Visit::Narrow(rows) => self.values.extend_from_slice(rows.confidences()),
            Visit::Row { outcome, .. } => self.values.push(outcome.confidence),
        });
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
        Ok(Separation::of(thresholds(inside, outside).into_iter()))
    }

    /// Of each threshold's (insiders, outsiders), the highest confidence first; there is one at least of both.
    fn of(thresholds: impl Iterator<Item = (u64, u64)> + Clone) -> Self {
        let (positives, negatives) = thresholds.clone().fold((0, 0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
        let (mut accepted, mut wrongly, mut halves) = (0u64, 0u64, 0u128);
        let (mut aupr, mut fpr95) = (0.0, None);
        for (hits, misses) in thresholds.filter(|&at| at != (0, 0)) {
            // Each of these outsiders loses to the insiders accepted before and draws with those of this threshold.
            halves += u128::from(misses) * u128::from(2 * accepted + hits);
            (accepted, wrongly) = (accepted + hits, wrongly + misses);
            aupr += hits as f64 / positives as f64 * (accepted as f64 / (accepted + wrongly) as f64);
            if fpr95.is_none() && 100 * u128::from(accepted) >= 95 * u128::from(positives) {
                fpr95 = Some(wrongly as f64 / negatives as f64);
            }
        }
        let auroc = halves as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64;
        Separation { auroc, aupr, fpr95: fpr95.unwrap_or(1.0) }
    }

    /// 95 % intervals: basic bootstrap as that of [`super::Intervals`], each set drawn on its own, its size kept.
    ///
    /// # Errors
    /// [`Error::Shape`] when one is empty.
    pub fn intervals(inside: &Confidences, outside: &Confidences, seed: u64) -> Result<SeparationIntervals> {
        let estimate = Separation::new(inside, outside)?;
        let (positives, negatives) = (inside.len() as u64, outside.len() as u64);
        let mut cells = thresholds(inside, outside);
        let method = if positives + negatives > LARGE_N as u64 { Method::EqualMass } else { Method::Samples };
        if method == Method::EqualMass {
            cells = equal_mass_cells(&cells);
        }
        let quantities = |of: Separation| [of.auroc, of.aupr, of.fpr95];
        let (ours, theirs): (Vec<u64>, Vec<u64>) = cells.iter().copied().unzip();
        let resamples = Resamples::new(seed, 1, quantities(Separation::of(cells.iter().copied())), |mut stream| {
            let mut draw = |counts: &[u64], n| match method {
                Method::Samples => draw_copies(counts, n, &mut stream),
                _ => draw_multinomial(counts, n, &mut stream),
            };
            let (hits, misses) = (draw(&ours, positives), draw(&theirs, negatives));
            quantities(Separation::of(hits.iter().copied().zip(misses.iter().copied())))
        });
        Ok(SeparationIntervals {
            auroc_ci95: resamples.interval(0, Some(estimate.auroc), FRACTION),
            aupr_ci95: resamples.interval(1, Some(estimate.aupr), FRACTION),
            fpr95_ci95: resamples.interval(2, Some(estimate.fpr95), FRACTION),
            separation_ci95_method: Some(method),
        })
    }
}

/// 95 % intervals [low, high] of a [`Separation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeparationIntervals {
    /// Of `auroc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_ci95: Option<[f64; 2]>,
    /// Of `aupr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aupr_ci95: Option<[f64; 2]>,
    /// Of `fpr95`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpr95_ci95: Option<[f64; 2]>,
    /// How they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_ci95_method: Option<Method>,
}

/// (insiders, outsiders) of each confidence that occurs, the highest first.
fn thresholds(inside: &Confidences, outside: &Confidences) -> Vec<(u64, u64)> {
    let pairs = |of: &Confidences, positive| of.values.par_iter().map(move |&c| (c, positive)).collect::<Vec<_>>();
    let mut all = pairs(inside, true);
    all.extend(pairs(outside, false));
    all.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let count = |tied: &[(f32, bool)]| {
        let hits = tied.iter().filter(|sample| sample.1).count();
        (hits as u64, (tied.len() - hits) as u64)
    };
    all.chunk_by(|a, b| a.0 == b.0).map(count).collect()
}

/// Neighbouring thresholds together, at most [`CELLS`] of them: these quantities depend on the order of the confidences alone,
/// so cells of equal width would lump together what lies near 1.
fn equal_mass_cells(thresholds: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let total: u64 = thresholds.iter().map(|at| at.0 + at.1).sum();
    let mut cells: Vec<(u64, u64)> = Vec::new();
    let (mut seen, mut current) = (0u64, None);
    for &(hits, misses) in thresholds {
        let cell = (u128::from(seen) * CELLS as u128 / u128::from(total)) as usize;
        seen += hits + misses;
        match cells.last_mut().filter(|_| current == Some(cell)) {
            Some(last) => *last = (last.0 + hits, last.1 + misses),
            None => cells.push((hits, misses)),
        }
        current = Some(cell);
    }
    cells
}

/// The counts of `n` draws with replacement from the samples that `counts` are of, `n` in all.
fn draw_copies(counts: &[u64], n: u64, stream: &mut Stream) -> Vec<u64> {
    let copies = draw_samples(n as usize, stream);
    let mut left = &copies[..];
    let of_cell = |&count: &u64| {
        let (cell, after) = left.split_at(count as usize);
        left = after;
        cell.iter().sum()
    };
    counts.iter().map(of_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Domain;

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

    // Normal confidences one standard deviation apart: the AUROC is Phi(1 / sqrt 2) = .7602, and below 32 of 40 has a chance of
    // one in 7,000.
    #[test]
    fn intervals_hold_the_true_auroc() {
        let holds = |seed: &u32| {
            let (inside, outside) = normals(*seed, 200, 150);
            let found = Separation::intervals(&inside, &outside, 1).unwrap();
            let [low, high] = found.auroc_ci95.unwrap();
            low < 0.7602 && 0.7602 < high
        };
        assert!((0..40).filter(holds).count() >= 32);
    }

    /// Standard error of the AUROC of n and m normal numbers one standard deviation apart: the Mann-Whitney statistic's (Bamber
    /// 1975), with A = .7602 and P(X1, X2 > Y) = P(X > Y1, Y2) = .6337 by quadrature.
    fn standard_error(n: f64, m: f64) -> f64 {
        const A: f64 = 0.760_250;
        let excess = 0.633_702 - A * A;
        ((A * (1.0 - A) + (n + m - 2.0) * excess) / (n * m)).sqrt()
    }

    #[test]
    fn auroc_intervals_have_the_width_of_the_mann_whitney_statistic() {
        let (inside, outside) = normals(7, 3000, 2000);
        let [low, high] = Separation::intervals(&inside, &outside, 2).unwrap().auroc_ci95.unwrap();
        let width = 2.0 * 1.96 * standard_error(3000.0, 2000.0);
        assert!(((high - low) / width - 1.0).abs() < 0.12, "{} against {width}", high - low);
    }

    // Insiders all alike leave no doubt about the threshold, so FPR95 is a mean over outsiders.
    #[test]
    fn fpr_intervals_have_the_binomials_width_where_the_threshold_is_certain() {
        let of = |values: Vec<f32>| Confidences { values };
        let (inside, outside) = (of(vec![0.5; 400]), of([0.25, 0.75, 0.25, 0.25].repeat(250)));
        let found = Separation::intervals(&inside, &outside, 3).unwrap();
        let [low, high] = found.fpr95_ci95.unwrap();
        let width = 2.0 * 1.96 * (0.25f64 * 0.75 / 1000.0).sqrt();
        assert!(((high - low) / width - 1.0).abs() < 0.1, "{} against {width}", high - low);
        assert!(low < 0.25 && 0.25 < high);
        assert_eq!(found.separation_ci95_method, Some(Method::Samples));
    }

    #[test]
    fn intervals_of_sets_that_do_not_overlap_have_no_width() {
        let of = |values: &[f32]| Confidences { values: values.to_vec() };
        let found = Separation::intervals(&of(&[0.8, 0.9]), &of(&[0.5, 0.6, 0.7]), 1).unwrap();
        let all = [found.auroc_ci95, found.aupr_ci95, found.fpr95_ci95];
        assert_eq!(all, [Some([1.0; 2]), Some([1.0; 2]), Some([0.0; 2])]);
    }

    #[test]
    fn intervals_depend_on_the_seed_and_not_on_the_order() {
        let (inside, outside) = normals(5, 60, 50);
        let turned = Confidences { values: inside.values.iter().rev().copied().collect() };
        let given = |inside: &Confidences, seed| Separation::intervals(inside, &outside, seed).unwrap();
        assert_eq!(given(&inside, 1), given(&turned, 1));
        assert_ne!(given(&inside, 1), given(&inside, 2));
    }

    // Cells of about 50 samples: AUROC moves by less than a cell's share, and its interval keeps its width.
    #[test]
    fn large_sets_are_resampled_by_cell_and_say_so() {
        let (inside, outside) = normals(3, 120_000, 90_000);
        let found = Separation::intervals(&inside, &outside, 1).unwrap();
        assert_eq!(found.separation_ci95_method, Some(Method::EqualMass));
        let [low, high] = found.auroc_ci95.unwrap();
        let width = 2.0 * 1.96 * standard_error(120_000.0, 90_000.0);
        assert!(((high - low) / width - 1.0).abs() < 0.12, "{} against {width}", high - low);
        let cells = equal_mass_cells(&thresholds(&inside, &outside));
        assert!(cells.len() <= CELLS, "{} cells", cells.len());
        assert_eq!(cells.iter().map(|cell| cell.0 + cell.1).sum::<u64>(), 210_000);
    }

    /// Two sets of normal numbers one standard deviation apart.
    fn normals(seed: u32, inside: u32, outside: u32) -> (Confidences, Confidences) {
        let mut random = Stream::new(u64::from(seed), Domain::Bootstrap, 0, 11);
        let mut draw =
            |n: u32, mean: f64| Confidences { values: (0..n).map(|_| (mean + random.normal()) as f32).collect() };
        (draw(inside, 1.0), draw(outside, 0.0))
    }
}
