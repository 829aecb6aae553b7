//! Target distributions of a batch: label smoothing and mixup.

use super::Mixup;
use crate::{Error, Result};

/// Writes the targets of a batch to `out` (N, classes), row-major.
///
/// Row i is `(1 - smoothing) onehot(labels[i]) + smoothing / classes` (Szegedy et al., "Rethinking the Inception architecture",
/// CVPR 2016, section 7); with mixup the same mixture of two rows as of the two images. Every row sums to 1.
/// A label that is no class, or buffers that do not fit, are an [`Error::Shape`].
pub fn soft_targets(
    labels: &[u32],
    classes: usize,
    smoothing: f32,
    mixup: Option<&Mixup>,
    out: &mut [f32],
) -> Result<()> {
    let n = labels.len();
    if out.len() != n * classes || mixup.is_some_and(|mixup| mixup.partner.len() != n) {
        let partners = mixup.map_or(n, |mixup| mixup.partner.len());
        let detail = format!("{} values and {partners} partners, expected {n} rows of {classes}", out.len());
        return Err(Error::shape("targets", detail));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        return Err(Error::shape("targets", format!("label {label}, expected below {classes}")));
    }
    out.fill(smoothing / classes as f32);
    for i in 0..n {
        let row = &mut out[i * classes..][..classes];
        match mixup {
            None => row[labels[i] as usize] += 1.0 - smoothing,
            Some(mixup) => {
                row[labels[i] as usize] += (1.0 - smoothing) * mixup.lambda;
                row[labels[mixup.partner[i] as usize] as usize] += (1.0 - smoothing) * (1.0 - mixup.lambda);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(smoothing: f32, mixup: Option<&Mixup>) -> Vec<f32> {
        let mut out = vec![f32::NAN; 12];
        soft_targets(&[1, 3, 1], 4, smoothing, mixup, &mut out).unwrap();
        out
    }

    fn assert_near(got: &[f32], expected: &[f32]) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn without_smoothing_or_mixup_targets_are_one_hot() {
        assert_eq!(targets(0.0, None), [0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0., 0.]);
    }

    #[test]
    fn smoothing_moves_epsilon_to_all_classes_alike() {
        assert_near(&targets(0.1, None)[..8], &[0.025, 0.925, 0.025, 0.025, 0.025, 0.025, 0.025, 0.925]);
    }

    #[test]
    fn mixup_shares_the_target_between_the_pair_and_adds_where_labels_agree() {
        let mixup = Mixup { lambda: 0.75, partner: vec![2, 0, 1] };
        assert_near(&targets(0.0, Some(&mixup)), &[0., 1., 0., 0., 0., 0.25, 0., 0.75, 0., 0.75, 0., 0.25]);
        assert_near(&targets(0.2, Some(&mixup))[4..8], &[0.05, 0.25, 0.05, 0.65]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message =
            |labels: &[u32], out: &mut [f32]| soft_targets(labels, 4, 0.0, None, out).unwrap_err().to_string();
        assert_eq!(message(&[4], &mut [0.0; 4]), "targets: label 4, expected below 4");
        assert_eq!(message(&[1], &mut [0.0; 3]), "targets: 3 values and 1 partners, expected 1 rows of 4");
    }
}
