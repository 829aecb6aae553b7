//! CigL as variational inference in a deep Gaussian process (Lei et al. 2023, section 3): what its loss says beyond cross-entropy.
//!
//! With W | Z, U, M ~ Z N(M U, s^2) + (1 - Z) N(0, s^2) and one sample of Z a step, minimising the divergence from the posterior is
//! minimising the cross-entropy over tau plus sum_l (p_l / 2 |U_l|^2 + 1/2 |u_l|^2) for a prior of length scale 1: p_l is the keep
//! probability of layer l, U_l its masked weights, u_l its biases.

use crate::Result;
use crate::config::Config;
use crate::graph::Role;
use crate::model::Model;

/// The weight decay lambda = p l^2 / (2 tau N) of a layer kept with probability `keep`, for a prior of length scale l, observations of
/// precision tau and N training images.
///
/// `train.weight_decay` is the factor of W itself in the gradient, which is twice that of |W|^2 in the loss: give it 2 lambda.
pub fn weight_decay(keep: f64, length_scale: f64, precision: f64, images: usize) -> f64 {
    keep * length_scale.powi(2) / (2.0 * precision * images as f64)
}

/// The divergence's part that depends on the weights, sum_l (p_l / 2 |U_l|^2 + 1/2 |u_l|^2), of the weights as they are.
pub(super) fn divergence(config: &Config, model: &mut Model) -> Result<f64> {
    let mut sum = 0.0;
    for (id, p) in model.parameters().clone().iter() {
        let factor = match p.role {
            Role::Weight => config.keep(&p.name),
            Role::Bias => 1.0,
            _ => continue,
        };
        let span = model.value(id);
        let values = model.backend().read(span)?;
        sum += factor / 2.0 * values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Gal and Ghahramani 2016, equation 7, with p the probability to be kept: l = 10, tau = 2, N = 1,000, p = .9 is 90 / 4,000.
    #[test]
    fn decay_follows_from_length_scale_and_precision() {
        assert!((weight_decay(0.9, 10.0, 2.0, 1_000) - 0.0225).abs() < 1e-15);
    }
}
