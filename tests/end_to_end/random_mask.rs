//! Both semantics of the random mask, followed step by step by an independent reference on a one-layer network.

use crate::program::trained;
use crate::run_files::{Tensors, log, model};
use crate::softmax_regression::{Recipe, Regression, Semantics, digits};

const IMAGES: usize = 640;
const STEPS: usize = 20;

/// Two epochs in file order; masks are updated in every second of the 15 steps before T_end.
const SETTINGS: [&str; 15] = [
    "network.name=mlp",
    "network.hidden=[]",
    "sparsity=0.5",
    "seed=11",
    "train.epochs=2",
    "train.lr=0.05",
    "train.warmup_steps=0",
    "train.lr_milestones=[]",
    "train.weight_decay=0.02",
    "train.log_every=1",
    "data.shuffle=off",
    "sparse.delta_t=2",
    "sparse.t_end=15",
    "random_mask.keep=0.6",
    "train.momentum=0.9",
];

fn as_f64(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// Trains with the program and with the reference; asserts equal losses and masks, returns the checkpoint and the reference.
fn followed(semantics: Semantics, scale: f64, more: &[&str]) -> (Tensors, Regression) {
    let folder = tempfile::tempdir().unwrap();
    let settings = [&SETTINGS[..], more].concat();
    let start = model(&trained(folder.path(), "start", "rigl+wdp", &[&settings[..], &["train.steps=0"]].concat()));
    let run = trained(folder.path(), "run", "rigl+wdp", &settings);
    let recipe = Recipe {
        semantics,
        seed: 11,
        keep: 0.6,
        scale,
        rate: 0.05,
        momentum: 0.9,
        weight_decay: 0.02,
        batch: 64,
        alpha: 0.3,
        delta_t: 2,
        t_end: 15,
    };
    let (weight, bias) = (as_f64(start.floats("fc1.weight")), as_f64(start.floats("fc1.bias")));
    let mut reference = Regression::new(recipe, weight, start.mask("fc1.weight"), bias);
    let images = digits(IMAGES);
    let losses: Vec<f64> = log(&run).iter().filter_map(|point| point["loss"].as_f64()).collect();
    assert_eq!(losses.len(), STEPS);
    for (g, loss) in losses.into_iter().enumerate() {
        let expected = reference.step(g, &images);
        assert!((loss / expected - 1.0).abs() < 1e-5, "{semantics:?}, step {g}: loss {loss}, expected {expected}");
    }
    let last = Tensors::read(&run.join("checkpoint/last.safetensors"));
    assert_eq!(last.mask("fc1.weight"), reference.mask, "{semantics:?}");
    assert_ne!(start.mask("fc1.weight"), reference.mask);
    assert_near(&last.floats("fc1.bias"), &reference.bias, "bias");
    assert_near(&last.floats("fc1.weight.momentum"), &reference.momentum, "momentum");
    (last, reference)
}

fn assert_near(values: &[f32], expected: &[f64], what: &str) {
    for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((f64::from(*value) - expected).abs() < 1e-5, "{what} {i}: {value}, expected {expected}");
    }
}

#[test]
fn the_published_semantics_with_frozen_momentum_follow_the_reference() {
    let (last, reference) = followed(Semantics::Frozen, 1.0, &[]);
    assert_near(&last.floats("fc1.weight"), &reference.weight, "weight");
}

#[test]
fn the_published_semantics_with_decaying_momentum_follow_the_reference() {
    let (last, reference) = followed(Semantics::Decay, 1.0, &["random_mask.momentum=decay"]);
    assert_near(&last.floats("fc1.weight"), &reference.weight, "weight");
}

#[test]
fn inverted_scaling_follows_the_reference() {
    let (last, reference) = followed(Semantics::Frozen, 1.0 / 0.6, &["random_mask.rescale=inverted"]);
    assert_near(&last.floats("fc1.weight"), &reference.weight, "weight");
}

#[test]
fn the_official_semantics_follow_the_reference() {
    let (last, reference) = followed(Semantics::Official, 1.0, &["random_mask.semantics=official"]);
    let (values, leaks) = (last.floats("fc1.weight"), last.floats("fc1.weight.leak"));
    let mut leaking = 0;
    for (i, (value, leak)) in values.iter().zip(leaks).enumerate() {
        // The checkpoint holds the master values, and apart from them what the tensor holds where Z drops.
        let (master, tensor) = match reference.random[i] {
            true => (reference.weight[i], None),
            false => (reference.aside[i], Some(reference.weight[i])),
        };
        assert!((f64::from(*value) - master).abs() < 1e-5, "weight {i}: {value}, expected {master}");
        if let (Some(tensor), true) = (tensor, reference.mask[i]) {
            assert!((f64::from(leak) - tensor).abs() < 1e-5, "leak {i}: {leak}, expected {tensor}");
            leaking += usize::from(tensor != 0.0);
        }
    }
    assert!(leaking > 50 && reference.stale > 0, "{leaking} leaks, {} stale values came back", reference.stale);
}

// method.md section 9: sum over layers of p_l / 2 |U_l|^2 + 1/2 |u_l|^2, U_l the masked weights and u_l the biases.
#[test]
fn the_divergence_of_the_weights_is_logged_at_every_epochs_end() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["random_mask.keep=0.9", "random_mask.keep.fc.weight=0.5", "train.steps=40"];
    let run = trained(folder.path(), "run", "cigl", &settings);
    let end = Tensors::read(&run.join("checkpoint/last.safetensors"));
    let square = |name: &str| end.floats(name).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let convolutions: f64 = (1..=5).map(|layer| square(&format!("conv{layer}.weight"))).sum();
    let expected = 0.45 * convolutions + 0.25 * square("fc.weight") + 0.5 * square("fc.bias");
    let log = log(&run);
    let logged: Vec<f64> = log.iter().filter_map(|point| point["kl"].as_f64()).collect();
    assert_eq!(logged.len(), 4, "one an epoch");
    assert!((logged[3] / expected - 1.0).abs() < 1e-12, "{} is logged, the sum is {expected}", logged[3]);
}
