//! What a sparse network costs, as ratios to the dense one (RigL, appendix H; method.md section 7).
//!
//! A multiply-add counts as two operations; only masked tensors count. A training step is one forward and two backward
//! products: 3 f_D operations dense, where f_D is the forward pass of the dense network and f_S of the sparse one.

/// The dense cost of one masked tensor and the part of it that is active.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerCost {
    /// Multiply-adds per image of the dense layer, see [`macs`].
    pub macs: u64,
    /// Ones in the mask over elements, in [0, 1].
    pub density: f64,
}

/// Multiply-adds per image of a dense layer: the elements of `shape` ((O, I, kH, kW) or (out, in)) times the output
/// positions (1 for a linear layer).
pub fn macs(shape: &[usize], positions: usize) -> u64 {
    shape.iter().map(|&dim| dim as u64).product::<u64>() * positions as u64
}

/// f_S / f_D: the sparse network's forward operations over the dense one's. 1 for a network without masked tensors.
pub fn inference_ratio(layers: &[LayerCost]) -> f64 {
    let dense: f64 = layers.iter().map(|layer| layer.macs as f64).sum();
    if dense == 0.0 {
        return 1.0;
    }
    layers.iter().map(|layer| layer.macs as f64 * layer.density).sum::<f64>() / dense
}

/// What a step of training computes densely, hence its cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainingCost {
    /// Dense, static and SET (dense being f_S = f_D): 3 f_S.
    Static,
    /// RigL: a step in dT + 1 has a dense weight gradient.
    RigL {
        /// Steps from one mask update to the next.
        delta_t: u64,
    },
    /// SNFS: a dense weight gradient at every step, 2 f_S + f_D.
    Snfs,
    /// Gradual magnitude pruning: 3 f_D E[1 - s_t].
    Gmp {
        /// E[1 - s_t], see [`super::schedule::PruningSchedule::mean_density`].
        mean_density: f64,
    },
}

impl TrainingCost {
    /// Training operations over those of dense training, 3 f_D a step, given `inference` = f_S / f_D.
    pub fn ratio(self, inference: f64) -> f64 {
        match self {
            TrainingCost::Static => inference,
            TrainingCost::RigL { delta_t } => {
                let dt = delta_t as f64;
                (3.0 * inference * dt + 2.0 * inference + 1.0) / (3.0 * (dt + 1.0))
            }
            TrainingCost::Snfs => (2.0 * inference + 1.0) / 3.0,
            TrainingCost::Gmp { mean_density } => mean_density,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::density::tests::{Layer, resnet50_cifar, shapes, wrn_22_2};
    use crate::sparse::density::{Distribution, layer_densities};

    fn costs(layers: &[Layer], density: f64) -> Vec<LayerCost> {
        let densities = layer_densities(Distribution::Erk, density, &shapes(layers), false).unwrap();
        let costs = layers.iter().zip(densities);
        costs.map(|((shape, side), d)| LayerCost { macs: macs(shape, side * side), density: d.density }).collect()
    }

    #[test]
    fn ratios_are_those_of_the_specification() {
        let (r50, wrn) = (resnet50_cifar(100), wrn_22_2(10));
        for (layers, density, inference, training) in [
            (&r50, 0.20, 0.3851, 0.3872),
            (&r50, 0.10, 0.2247, 0.2273),
            (&r50, 0.05, 0.1136, 0.1165),
            (&r50, 0.01, 0.0227, 0.0259),
            (&wrn, 0.20, 0.3521, 0.3542),
            (&wrn, 0.10, 0.1735, 0.1763),
            (&wrn, 0.05, 0.0881, 0.0911),
            (&wrn, 0.01, 0.0176, 0.0208),
        ] {
            let got = inference_ratio(&costs(layers, density));
            assert!((got - inference).abs() <= 5e-5, "{got} for {inference}");
            let got = TrainingCost::RigL { delta_t: 100 }.ratio(got);
            assert!((got - training).abs() <= 5e-5, "{got} for {training}");
        }
    }

    #[test]
    fn resnet_50_takes_1_298_gmac_an_image() {
        let total: u64 = costs(&resnet50_cifar(10), 1.0).iter().map(|layer| layer.macs).sum();
        assert_eq!((total as f64 / 1e6).round(), 1298.0);
    }

    #[test]
    fn a_dense_network_costs_what_a_dense_network_costs() {
        assert_eq!(inference_ratio(&costs(&wrn_22_2(10), 1.0)), 1.0);
        let dense = TrainingCost::Gmp { mean_density: 1.0 };
        for cost in [TrainingCost::Static, TrainingCost::RigL { delta_t: 20 }, TrainingCost::Snfs, dense] {
            assert!((cost.ratio(1.0) - 1.0).abs() < 1e-15, "{cost:?}");
        }
    }

    #[test]
    fn a_dense_gradient_at_every_step_costs_a_third_of_dense_training() {
        assert!((TrainingCost::Snfs.ratio(0.0) - 1.0 / 3.0).abs() < 1e-15);
        assert!((TrainingCost::RigL { delta_t: 9 }.ratio(0.0) - 1.0 / 30.0).abs() < 1e-15);
        assert_eq!(TrainingCost::Static.ratio(0.1), 0.1);
    }
}
