//! Softmax regression with two masks, in f64: the smallest network in which section 3 of the method can be followed step by
//! step. Plain loops over one tensor as a program holds it, that share nothing with the crate but its random numbers.

use std::f64::consts::PI;

use cigl::data::{Limits, Source};
use cigl::rng::{Domain, keep_threshold, mask_word};

pub(crate) const CLASSES: usize = 10;
pub(crate) const PIXELS: usize = 64;
const WEIGHTS: usize = CLASSES * PIXELS;

/// Which elements of masked tensor `layer` the random mask of a step keeps, in element order.
pub(crate) fn kept(seed: u64, step: usize, layer: u32, keep: f64, elements: usize) -> Vec<bool> {
    let word = |w| mask_word(seed, Domain::RandomMask, step as u32, layer, w, keep_threshold(keep));
    (0..elements).map(|i| word(i as u32 / 32) >> (i % 32) & 1 == 1).collect()
}

/// The digits' training images in file order, normalised, and their labels.
pub(crate) fn digits(count: usize) -> Vec<([f64; PIXELS], usize)> {
    let train = Source::Digits.load(None, Limits::default()).unwrap().train;
    let image = |i: usize| {
        let bytes = train.image(i).unwrap();
        let pixels = std::array::from_fn(|at| (f64::from(bytes[at]) / 16.0 - 0.305) / 0.376);
        (pixels, train.labels()[i] as usize)
    };
    (0..count).map(image).collect()
}

/// What is done with the random mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Semantics {
    /// As published; momentum and value of what is dropped stay.
    Frozen,
    /// As published; the momentum of what is dropped decays and moves it.
    Decay,
    /// As the released code runs.
    Official,
}

/// The hyper-parameters.
pub(crate) struct Recipe {
    pub(crate) semantics: Semantics,
    pub(crate) seed: u64,
    pub(crate) keep: f64,
    /// What kept weights are multiplied with in the passes: 1, or 1 / keep.
    pub(crate) scale: f64,
    pub(crate) rate: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
    pub(crate) batch: usize,
    pub(crate) alpha: f64,
    pub(crate) delta_t: usize,
    pub(crate) t_end: usize,
}

/// A network in training.
pub(crate) struct Regression {
    pub(crate) recipe: Recipe,
    /// The tensor that a program holds: under the official semantics zeroed and leaking where Z drops.
    pub(crate) weight: Vec<f64>,
    /// Official: what was in the tensor where Z drops.
    pub(crate) aside: Vec<f64>,
    /// Official: the Z of the last optimiser step.
    pub(crate) random: Vec<bool>,
    pub(crate) mask: Vec<bool>,
    pub(crate) momentum: Vec<f64>,
    pub(crate) bias: Vec<f64>,
    bias_momentum: Vec<f64>,
    /// How many weights were grown while Z dropped them and then came back with a stale value.
    pub(crate) stale: usize,
}

impl Regression {
    pub(crate) fn new(recipe: Recipe, weight: Vec<f64>, mask: Vec<bool>, bias: Vec<f64>) -> Regression {
        Regression {
            recipe,
            aside: vec![0.0; WEIGHTS],
            random: vec![true; WEIGHTS],
            momentum: vec![0.0; WEIGHTS],
            bias_momentum: vec![0.0; CLASSES],
            weight,
            mask,
            bias,
            stale: 0,
        }
    }

    /// Step `g`, which takes the g-th batch of the images; returns the loss.
    pub(crate) fn step(&mut self, g: usize, images: &[([f64; PIXELS], usize)]) -> f64 {
        let batches = images.len() / self.recipe.batch;
        let batch = &images[g % batches * self.recipe.batch..][..self.recipe.batch];
        let Recipe { seed, keep, scale, .. } = self.recipe;
        let z = kept(seed, g, 0, keep, WEIGHTS);
        let official = self.recipe.semantics == Semantics::Official;
        let effective: Vec<f64> = match official {
            // The tensor as the last update left it: the gradient is under Z(g - 1).
            true => self.weight.clone(),
            false => (0..WEIGHTS).map(|i| if z[i] && self.mask[i] { scale * self.weight[i] } else { 0.0 }).collect(),
        };
        let (loss, gradient, bias_gradient) = loss_and_gradients(&effective, &self.bias, batch);
        if (g + 1).is_multiple_of(self.recipe.delta_t) && g < self.recipe.t_end {
            self.update_mask(g, &gradient);
            return loss;
        }
        match official {
            true => self.move_officially(z, &gradient),
            false => self.move_as_published(&z, &gradient),
        }
        let Recipe { rate, momentum, .. } = self.recipe;
        for ((b, v), g) in self.bias.iter_mut().zip(&mut self.bias_momentum).zip(bias_gradient) {
            *v = momentum * *v + g;
            *b -= rate * (g + momentum * *v);
        }
        loss
    }

    /// W <- W - lr Z M update, Nesterov.
    fn move_as_published(&mut self, z: &[bool], gradient: &[f64]) {
        let Recipe { rate, momentum, weight_decay, semantics, scale, .. } = self.recipe;
        for i in (0..WEIGHTS).filter(|&i| self.mask[i]) {
            let g = match (z[i], semantics) {
                (true, _) => scale * gradient[i] + weight_decay * self.weight[i],
                (false, Semantics::Decay) => 0.0,
                (false, _) => continue,
            };
            self.momentum[i] = momentum * self.momentum[i] + g;
            self.weight[i] -= rate * (g + momentum * self.momentum[i]);
        }
    }

    /// What was aside comes back, Z is drawn and zeroes the tensor, then a plain step on all of it; only M masks the outcome.
    fn move_officially(&mut self, z: Vec<bool>, gradient: &[f64]) {
        let Recipe { rate, momentum, weight_decay, .. } = self.recipe;
        for i in 0..WEIGHTS {
            if !self.random[i] {
                self.weight[i] = self.aside[i];
            }
            if !z[i] {
                self.aside[i] = self.weight[i];
                self.weight[i] = 0.0;
            }
            let g = gradient[i] + weight_decay * self.weight[i];
            self.momentum[i] = momentum * self.momentum[i] + g;
            self.weight[i] -= rate * (g + momentum * self.momentum[i]);
            if !self.mask[i] {
                self.weight[i] = 0.0;
                self.momentum[i] = 0.0;
            }
        }
        self.random = z;
    }

    /// Drops the smallest of the tensor as it is, grows by |gradient|; what changed starts at 0 in the tensor.
    fn update_mask(&mut self, g: usize, gradient: &[f64]) {
        let Recipe { alpha, t_end, .. } = self.recipe;
        let active = self.mask.iter().filter(|&&inside| inside).count();
        let fraction = alpha / 2.0 * (1.0 + (PI * g as f64 / t_end as f64).cos());
        let count = (fraction * active as f64).ceil() as usize;
        let before = self.mask.clone();
        let mut inside: Vec<usize> = (0..WEIGHTS).filter(|&i| self.mask[i]).collect();
        inside.sort_by(|&a, &b| self.weight[a].abs().total_cmp(&self.weight[b].abs()).then(a.cmp(&b)));
        inside[..count].iter().for_each(|&i| self.mask[i] = false);
        let mut outside: Vec<usize> = (0..WEIGHTS).filter(|&i| !self.mask[i]).collect();
        outside.sort_by(|&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs()).then(a.cmp(&b)));
        outside[..count].iter().for_each(|&i| self.mask[i] = true);
        for i in (0..WEIGHTS).filter(|&i| !(before[i] && self.mask[i])) {
            self.weight[i] = 0.0;
            self.momentum[i] = 0.0;
            self.stale += usize::from(self.mask[i] && !self.random[i] && self.aside[i] != 0.0);
        }
    }
}

/// Mean cross-entropy of a batch and its gradients.
fn loss_and_gradients(weight: &[f64], bias: &[f64], batch: &[([f64; PIXELS], usize)]) -> (f64, Vec<f64>, Vec<f64>) {
    let (mut loss, mut weight_gradient, mut bias_gradient) = (0.0, vec![0.0; WEIGHTS], vec![0.0; CLASSES]);
    let share = 1.0 / batch.len() as f64;
    for (pixels, label) in batch {
        let row = |k: usize| &weight[k * PIXELS..(k + 1) * PIXELS];
        let logit = |k: usize| bias[k] + row(k).iter().zip(pixels).map(|(w, x)| w * x).sum::<f64>();
        let exponentials: Vec<f64> = (0..CLASSES).map(|k| logit(k).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        loss -= share * (exponentials[*label] / sum).ln();
        for k in 0..CLASSES {
            let d = share * (exponentials[k] / sum - if k == *label { 1.0 } else { 0.0 });
            bias_gradient[k] += d;
            weight_gradient[k * PIXELS..(k + 1) * PIXELS].iter_mut().zip(pixels).for_each(|(g, x)| *g += d * x);
        }
    }
    (loss, weight_gradient, bias_gradient)
}
