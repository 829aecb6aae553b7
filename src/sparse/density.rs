//! How a global density is spread over the layers: uniform, Erdős-Rényi (ER) and Erdős-Rényi-kernel (ERK).
//!
//! ER is from Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired
//! by network science" (2018), ERK from Evci et al., "Rigging the lottery" (2020), section 3.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How densities differ between layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// The global density everywhere.
    Uniform,
    /// Density proportional to (in + out) / (in out).
    Er,
    /// Density proportional to the sum of the kernel's dimensions over their product: small layers stay denser.
    Erk,
}

impl Distribution {
    /// The unscaled density of a tensor of `shape`: (O, I, kH, kW), or (out, in) for a linear layer.
    fn raw(self, shape: &[usize]) -> f64 {
        let dims = match self {
            Distribution::Uniform => return 1.0,
            Distribution::Er => &shape[..2],
            Distribution::Erk => shape,
        };
        dims.iter().sum::<usize>() as f64 / elements(dims) as f64
    }
}

/// What one masked tensor gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerDensity {
    /// Fraction of the elements that are active, in [0, 1].
    pub density: f64,
    /// Ones in the mask: `density` times the number of elements, halves rounded up.
    pub n_active: usize,
}

impl LayerDensity {
    fn new(density: f64, shape: &[usize]) -> Self {
        LayerDensity { density, n_active: decimal_floor(density * elements(shape) as f64 + 0.5) as usize }
    }

    /// A layer of density 1 takes no part in mask updates.
    pub fn is_dense(&self) -> bool {
        self.density == 1.0
    }
}

/// The densities of all masked tensors at a global `density` in (0, 1].
///
/// `shapes` holds, in forward order, (O, I, kH, kW) of each convolution and (out, in) of each linear layer; the rank
/// matters, for ERK counts a 1x1 kernel's two ones and a linear layer has none. `dense_first` leaves the first
/// convolution dense; under [`Distribution::Uniform`] the other layers keep the global density, as in RigL's ImageNet
/// set-up, else they make up for it.
///
/// # Errors
/// A density outside (0, 1], a shape that is neither of rank 2 nor 4 or is empty, `dense_first` without a convolution,
/// and a density that the dense first convolution alone exceeds.
pub fn layer_densities<S: AsRef<[usize]>>(
    distribution: Distribution,
    density: f64,
    shapes: &[S],
    dense_first: bool,
) -> Result<Vec<LayerDensity>> {
    if !(density > 0.0 && density <= 1.0) {
        return Err(Error::Usage(format!("density {density} is not above 0 and at most 1")));
    }
    let shapes: Vec<&[usize]> = shapes.iter().map(AsRef::as_ref).collect();
    if let Some(bad) = shapes.iter().find(|s| !matches!(s.len(), 2 | 4) || s.contains(&0)) {
        return Err(Error::shape("layer densities", format!("a masked tensor of shape {bad:?}, expected rank 2 or 4")));
    }
    let mut dense = vec![density == 1.0; shapes.len()];
    if dense_first {
        let first = shapes.iter().position(|s| s.len() == 4).ok_or_else(|| {
            Error::Usage("sparse.dense_first = true: the network has no convolution to leave dense".into())
        })?;
        dense[first] = true;
    }
    let scale = match distribution {
        Distribution::Uniform => density,
        Distribution::Er | Distribution::Erk => scale(distribution, density, &shapes, &mut dense)?,
    };
    Ok(shapes
        .iter()
        .zip(dense)
        .map(|(shape, dense)| LayerDensity::new(if dense { 1.0 } else { scale * distribution.raw(shape) }, shape))
        .collect())
}

/// Solves for eps, the factor from raw to final densities, and marks the layers that it would fill as dense.
///
/// Every dense layer takes more than its share; eps falls until the others make up for it. The rounding of the two
/// sums is that of RigL's `sparse_utils.py`.
fn scale(distribution: Distribution, density: f64, shapes: &[&[usize]], dense: &mut [bool]) -> Result<f64> {
    let raw: Vec<f64> = shapes.iter().map(|shape| distribution.raw(shape)).collect();
    while dense.contains(&false) {
        let (mut budget, mut weight, mut largest) = (0.0, 0.0, 0.0_f64);
        for ((shape, &raw), &dense) in shapes.iter().zip(&raw).zip(&*dense) {
            let n = elements(shape) as f64;
            if dense {
                budget -= decimal_floor(n * (1.0 - density));
            } else {
                budget += decimal_floor(n * density);
                weight += raw * n;
                largest = largest.max(raw);
            }
        }
        if budget < 0.0 {
            return Err(Error::Usage(format!("density {density} is below what the dense first convolution takes")));
        }
        let eps = budget / weight;
        if eps * largest <= 1.0 {
            return Ok(eps);
        }
        for (dense, &raw) in dense.iter_mut().zip(&raw) {
            *dense |= raw == largest;
        }
    }
    Ok(1.0)
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Floor, where a product a rounding error below an integer counts as that integer: 1 - 0.9 is not quite 0.1.
fn decimal_floor(x: f64) -> f64 {
    (x + 1e-6).floor()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A masked tensor's shape and the side of its square output.
    pub(crate) type Layer = (Vec<usize>, usize);

    /// ResNet-50 for CIFAR, method.md section 6, from the text alone.
    pub(crate) fn resnet50_cifar(classes: usize) -> Vec<Layer> {
        let mut layers = vec![(vec![64, 3, 3, 3], 32)];
        let (mut channels, mut side) = (64, 32);
        for (blocks, width, stride) in [(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)] {
            for block in 0..blocks {
                layers.push((vec![width, channels, 1, 1], side));
                if block == 0 {
                    side /= stride;
                }
                layers.push((vec![width, width, 3, 3], side));
                layers.push((vec![4 * width, width, 1, 1], side));
                if block == 0 {
                    layers.push((vec![4 * width, channels, 1, 1], side));
                }
                channels = 4 * width;
            }
        }
        layers.push((vec![classes, 2048], 1));
        layers
    }

    /// WRN-22-2, method.md section 6.
    pub(crate) fn wrn_22_2(classes: usize) -> Vec<Layer> {
        let mut layers = vec![(vec![16, 3, 3, 3], 32)];
        let (mut channels, mut side) = (16, 32);
        for (width, stride) in [(32, 1), (64, 2), (128, 2)] {
            side /= stride;
            for block in 0..3 {
                layers.push((vec![width, channels, 3, 3], side));
                layers.push((vec![width, width, 3, 3], side));
                if block == 0 {
                    layers.push((vec![width, channels, 1, 1], side));
                }
                channels = width;
            }
        }
        layers.push((vec![classes, 128], 1));
        layers
    }

    pub(crate) fn shapes(layers: &[Layer]) -> Vec<&[usize]> {
        layers.iter().map(|(shape, _)| shape.as_slice()).collect()
    }

    #[test]
    fn the_layers_written_down_here_have_the_specified_totals() {
        let cases = [
            (resnet50_cifar(10), 54, 23_467_712),
            (resnet50_cifar(100), 54, 23_652_032),
            (wrn_22_2(10), 23, 1_076_912),
            (wrn_22_2(100), 23, 1_088_432),
        ];
        for (layers, tensors, maskable) in cases {
            assert_eq!(layers.len(), tensors);
            assert_eq!(shapes(&layers).into_iter().map(elements).sum::<usize>(), maskable);
        }
    }

    #[test]
    fn erk_finds_the_specified_scale_and_dense_layers() {
        let (r50, wrn) = (resnet50_cifar(100), wrn_22_2(10));
        let cases: [(_, _, _, &[usize]); 8] = [
            (&r50, 0.20, 93.951792, &[0, 1, 3, 4, 5, 7, 8, 10, 11]),
            (&r50, 0.10, 46.072154, &[0, 1]),
            (&r50, 0.05, 23.001517, &[]),
            (&r50, 0.01, 4.599809, &[]),
            (&wrn, 0.20, 75.600969, &[0, 3, 10, 17, 22]),
            (&wrn, 0.10, 35.931550, &[0, 3, 10, 22]),
            (&wrn, 0.05, 17.342406, &[0, 3, 22]),
            (&wrn, 0.01, 3.373785, &[]),
        ];
        for (layers, density, eps, expected) in cases {
            // A density as it comes from a sparsity, with its rounding error.
            for density in [density, 1.0 - (1.0 - density)] {
                let mut dense = vec![false; layers.len()];
                let got = scale(Distribution::Erk, density, &shapes(layers), &mut dense).unwrap();
                assert!((got - eps).abs() < 6e-7, "{got} for {eps}");
                let dense: Vec<usize> = (0..dense.len()).filter(|&i| dense[i]).collect();
                assert_eq!(dense, expected, "density {density}");
            }
        }
    }

    #[test]
    fn erk_gives_single_layers_the_specified_densities() {
        let cases: [(_, &[usize], f64); 8] = [
            (resnet50_cifar(100), &[64, 64, 3, 3], 0.167471),
            (resnet50_cifar(100), &[256, 64, 1, 1], 0.905471),
            (resnet50_cifar(100), &[512, 512, 3, 3], 0.020114),
            (resnet50_cifar(100), &[2048, 512, 1, 1], 0.112569),
            (resnet50_cifar(100), &[100, 2048], 0.483218),
            (wrn_22_2(10), &[32, 16, 3, 3], 0.421073),
            (wrn_22_2(10), &[32, 32, 3, 3], 0.272918),
            (wrn_22_2(10), &[128, 128, 3, 3], 0.063843),
        ];
        for (layers, shape, expected) in cases {
            let densities = layer_densities(Distribution::Erk, 0.1, &shapes(&layers), false).unwrap();
            let at = layers.iter().position(|(s, _)| s == shape).unwrap();
            assert!((densities[at].density - expected).abs() < 6e-7, "{shape:?}: {}", densities[at].density);
        }
    }

    #[test]
    fn uniform_leaves_only_the_first_convolution_dense_and_only_when_asked() {
        let layers = wrn_22_2(10);
        for dense_first in [false, true] {
            let got = layer_densities(Distribution::Uniform, 0.25, &shapes(&layers), dense_first).unwrap();
            assert_eq!(got[0].n_active, if dense_first { 432 } else { 108 });
            assert!(got[1..].iter().all(|layer| layer.density == 0.25));
        }
    }

    // (in + out) / (in out) of (4, 8) is 12 / 32 and of (2, 4) 6 / 8: eps = (32 + 8) / 4 / (12 + 6).
    #[test]
    fn er_divides_the_units_by_the_connections_and_ignores_the_kernel() {
        let eps = 10.0 / 18.0;
        let linear = layer_densities(Distribution::Er, 0.25, &[[4, 8], [2, 4]], false).unwrap();
        assert!((linear[0].density - eps * 12.0 / 32.0).abs() < 1e-12);
        assert!((linear[1].density - eps * 6.0 / 8.0).abs() < 1e-12);
        let conv = layer_densities(Distribution::Er, 0.25, &[[4, 8, 3, 3], [2, 4, 3, 3]], false).unwrap();
        assert!((conv[0].density / conv[1].density - 0.5).abs() < 1e-12);
    }

    #[test]
    fn halves_are_rounded_up() {
        let got = layer_densities(Distribution::Uniform, 0.25, &[[1, 2], [2, 3]], false).unwrap();
        assert_eq!((got[0].n_active, got[1].n_active), (1, 2));
    }

    #[test]
    fn a_density_of_one_keeps_every_weight() {
        for distribution in [Distribution::Uniform, Distribution::Er, Distribution::Erk] {
            let layers = layer_densities(distribution, 1.0, &[vec![4, 3, 3, 3], vec![10, 4]], false).unwrap();
            assert!(layers.iter().all(LayerDensity::is_dense));
            assert_eq!((layers[0].n_active, layers[1].n_active), (108, 40));
        }
    }

    #[test]
    fn impossible_requests_are_errors() {
        let conv = [vec![8, 8, 3, 3], vec![10, 8]];
        for density in [0.0, -0.5, 1.5, f64::NAN] {
            assert!(layer_densities(Distribution::Erk, density, &conv, false).is_err());
        }
        assert!(layer_densities(Distribution::Erk, 0.1, &[[3, 3, 3]], false).is_err());
        assert!(layer_densities(Distribution::Erk, 0.1, &[[3, 0]], false).is_err());
        assert!(layer_densities(Distribution::Uniform, 0.1, &[[30, 20]], true).is_err());
        assert!(layer_densities(Distribution::Erk, 0.1, &conv, true).is_err());
    }

    proptest! {
        // Each layer is rounded once, and each floor in the budget loses less than one weight.
        #[test]
        fn the_total_is_as_asked_within_one_weight_a_layer(
            shapes in prop::collection::vec((1usize..40, 1usize..40, 1usize..4), 1..12),
            density in 0.01f64..1.0,
            er in any::<bool>(),
        ) {
            let shapes: Vec<Vec<usize>> =
                shapes.into_iter().map(|(o, i, k)| if k == 2 { vec![o, i] } else { vec![o, i, k, k] }).collect();
            let distribution = if er { Distribution::Er } else { Distribution::Erk };
            let layers = layer_densities(distribution, density, &shapes, false).unwrap();
            let total: usize = layers.iter().map(|layer| layer.n_active).sum();
            let asked = density * shapes.iter().map(|s| elements(s)).sum::<usize>() as f64;
            prop_assert!((total as f64 - asked).abs() <= 1.5 * shapes.len() as f64, "{total} for {asked}");
            for (layer, shape) in layers.iter().zip(&shapes) {
                prop_assert!(layer.density <= 1.0 && layer.n_active <= elements(shape));
            }
        }
    }
}
