//! Mixup: training on mixtures of pairs of images (Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018).

use crate::rng::{Domain, Stream};
use crate::{Error, Result};

/// How the images of one batch are mixed: image i becomes `lambda x[i] + (1 - lambda) x[partner[i]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixup {
    /// The share of the image itself, in [0, 1], one for the whole batch.
    pub lambda: f32,
    /// A permutation of the batch.
    pub partner: Vec<u32>,
}

impl Mixup {
    /// Draws lambda from Beta(alpha, alpha), then the partners of `count` images, from (seed, step).
    ///
    /// An `alpha` that is not above 0 is an [`Error::Usage`].
    pub fn draw(seed: u64, step: u32, alpha: f64, count: usize) -> Result<Self> {
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(Error::Usage(format!("mixup's alpha is {alpha}, expected a number above 0")));
        }
        let mut stream = Stream::new(seed, Domain::Mixup, step, 0);
        // X / (X + Y) of two Gamma(alpha, 1) variables is Beta(alpha, alpha); logarithms keep tiny ones from vanishing.
        let (x, y) = (ln_gamma_variate(&mut stream, alpha), ln_gamma_variate(&mut stream, alpha));
        let lambda = (1.0 / (1.0 + (y - x).exp())) as f32;
        let mut partner: Vec<u32> = (0..count as u32).collect();
        stream.shuffle(&mut partner);
        Ok(Mixup { lambda, partner })
    }

    /// Mixes `images` (N, elements) in place, N being the number of partners.
    pub fn mix(&self, images: &mut [f32]) {
        let elements = images.len() / self.partner.len().max(1);
        let pure = images.to_vec();
        for (i, &partner) in self.partner.iter().enumerate() {
            let other = &pure[partner as usize * elements..][..elements];
            for (x, &y) in images[i * elements..][..elements].iter_mut().zip(other) {
                *x = self.lambda * *x + (1.0 - self.lambda) * y;
            }
        }
    }
}

/// The logarithm of a Gamma(shape, 1) variate (Marsaglia and Tsang, "A simple method for generating gamma variables", ACM
/// TOMS 26, 2000; for a shape below 1 by their section 6: Gamma(a) = Gamma(a + 1) U^(1/a)).
fn ln_gamma_variate(stream: &mut Stream, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - stream.uniform()).ln() / shape;
        return ln_gamma_variate(stream, shape + 1.0) + boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = stream.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && stream.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d.ln() + v.ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)), fourth central moment 3 / (16 (2a + 1) (2a + 3)).
    #[test]
    fn lambda_has_the_moments_of_the_beta_distribution() {
        let n = 40_000;
        for alpha in [0.2, 1.0, 3.0] {
            let draws = (0..n).map(|step| f64::from(Mixup::draw(8, step, alpha, 1).unwrap().lambda) - 0.5);
            let (mean, variance) = draws.fold((0.0, 0.0), |(m, v), x| (m + x / f64::from(n), v + x * x / f64::from(n)));
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            let fourth = 3.0 / (16.0 * (2.0 * alpha + 1.0) * (2.0 * alpha + 3.0));
            assert!(mean.abs() < 5.0 * (expected / f64::from(n)).sqrt(), "alpha {alpha}: mean {mean}");
            let error = 5.0 * ((fourth - expected * expected) / f64::from(n)).sqrt();
            assert!((variance - expected).abs() < error, "alpha {alpha}: variance {variance}, expected {expected}");
        }
    }

    #[test]
    fn images_are_mixed_with_their_partners_as_they_were() {
        let mut images = [0.0, 1.0, 10.0, 20.0, 100.0, 200.0];
        Mixup { lambda: 0.75, partner: vec![1, 2, 0] }.mix(&mut images);
        assert_eq!(images, [2.5, 5.75, 32.5, 65.0, 75.0, 150.25]);
    }

    #[test]
    fn a_step_has_one_draw_and_partners_are_a_permutation() {
        let mixup = Mixup::draw(1, 5, 0.2, 128).unwrap();
        assert_eq!(mixup, Mixup::draw(1, 5, 0.2, 128).unwrap());
        assert_ne!(mixup, Mixup::draw(1, 6, 0.2, 128).unwrap());
        let mut partner = mixup.partner;
        partner.sort();
        assert_eq!(partner, (0..128).collect::<Vec<_>>());
    }

    #[test]
    fn an_alpha_of_zero_and_a_tiny_one_are_told_apart() {
        assert!(matches!(Mixup::draw(1, 1, 0.0, 2), Err(Error::Usage(_))));
        assert!(matches!(Mixup::draw(1, 1, f64::NAN, 2), Err(Error::Usage(_))));
        for step in 0..100 {
            let lambda = Mixup::draw(1, step, 1e-9, 2).unwrap().lambda;
            assert!(lambda == 0.0 || lambda == 1.0, "{lambda}");
        }
    }
}
