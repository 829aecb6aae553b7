//! Plans that fuse batch norms with convolutions, beside those that do not.

use super::*;
use crate::backend::cpu::Cpu;
use crate::backend::{Extent, StepState};
use crate::inference::tests::altered;
use crate::model::{Images, Model};
use crate::nn::{NetworkOptions, network};
use crate::rng::{Domain, Stream};

/// The bits of loss, gradients and statistics after a training pass and one that re-estimates, and the 4-byte words of the arena.
fn pass(name: &str, image: [usize; 3], batch: usize, extent: Extent, on: Cpu) -> (Vec<Vec<u32>>, usize) {
    let options = NetworkOptions { width: 0.25, ..NetworkOptions::default() };
    let mut model = altered(Model::new(network(name, options).unwrap(), image, 5, Box::new(on)).unwrap());
    let mut draws = Stream::new(7, Domain::Weights, 0, 0);
    let images: Vec<f32> = (0..batch * image.iter().product::<usize>()).map(|_| draws.normal() as f32).collect();
    let targets: Vec<f32> = (0..5 * batch).map(|i| f32::from(u8::from(i % 5 == i / 5 % 5))).collect();
    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent };
    let seen = model.train_pass(Images::Values(&images), &targets, state).unwrap();
    let mut all = vec![vec![seen.loss]];
    for (id, parameter) in model.parameters().clone().iter() {
        let span = if parameter.role.trainable() { model.gradient(id) } else { model.value(id) };
        let values = model.backend().read(span).unwrap();
        all.push(match model.weight(id) {
            // Only what is inside M was asked for.
            Some(weight) => model.mask(weight.layer).unwrap().ones_at().map(|i| values[i]).collect(),
            None => values,
        });
    }
    all.push(model.forward(Mode::Reestimate, &images, state).unwrap());
    let words = model.plan(Mode::Train, batch).unwrap().live_maximum();
    (all.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect(), words)
}

#[test]
fn a_training_pass_that_fuses_batch_norms_leaves_the_bits_of_one_step_by_step_in_less_memory() {
    for (name, image, batch) in [
        ("wrn22-2", [3, 32, 32], 17),
        ("resnet50", [3, 32, 32], 5),
        ("resnet18", [3, 36, 33], 3),
        ("vgg16-bn", [3, 32, 32], 4),
    ] {
        for extent in [Extent::Active, Extent::Dense] {
            let (fused, fewer) = pass(name, image, batch, extent, Cpu::new());
            let (apart, words) = pass(name, image, batch, extent, Cpu::new().without_fusing());
            assert!(fused == apart, "{name}, {extent:?}");
            assert!(fewer < words, "{name}: {fewer} of {words}");
        }
    }
}
