//! The training loop of the replay: SGD under the masks, and mask updates.

use std::collections::BTreeMap;

use crate::layers::Maps;
use crate::model::Model;
use crate::network::{Network, Pass};
use crate::rigl::{Schedule, update_mask};

/// A run in progress.
pub(crate) struct Training {
    pub(crate) network: Network,
    pub(crate) model: Model,
    momenta: BTreeMap<String, Vec<f64>>,
    optimiser: Sgd,
    schedule: Schedule,
}

/// SGD with Nesterov momentum as PyTorch has it: `v = momentum v + g`, `w -= rate (g + momentum v)`, where g includes
/// `weight_decay w` for tensors of rank > 1.
pub(crate) struct Sgd {
    pub(crate) rate: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
}

impl Sgd {
    fn step(&self, weights: &mut [f64], momentum: &mut [f64], gradient: &[f64], decay: f64) {
        for ((w, v), g) in weights.iter_mut().zip(momentum).zip(gradient) {
            let g = g + decay * *w;
            *v = self.momentum * *v + g;
            *w -= self.rate * (g + self.momentum * *v);
        }
    }
}

impl Training {
    pub(crate) fn new(network: Network, model: Model, optimiser: Sgd, schedule: Schedule) -> Self {
        Training { network, model, momenta: BTreeMap::new(), optimiser, schedule }
    }

    /// Does the 0-based `step` on a batch: an SGD step, or a mask update in its place. Returns the loss before it.
    pub(crate) fn step(&mut self, step: usize, images: Maps, labels: &[u8]) -> f64 {
        let Pass { loss, gradients, statistics } = self.network.pass(&self.model, images, labels);
        for (name, batch) in statistics {
            let running = &mut self.model.tensors.get_mut(&name).unwrap().values;
            running.iter_mut().zip(batch).for_each(|(running, batch)| *running = 0.9 * *running + 0.1 * batch);
        }
        for (name, mut gradient) in gradients {
            let weights = self.model.tensors.get_mut(&name).unwrap();
            let momentum = self.momenta.entry(name.clone()).or_insert_with(|| vec![0.0; gradient.len()]);
            let mask = self.model.masks.get_mut(&name);
            if self.schedule.is_update(step) {
                if let Some(mask) = mask {
                    let fraction = self.schedule.drop_fraction(step);
                    update_mask(mask, &mut weights.values, momentum, &gradient, fraction);
                }
                continue;
            }
            if let Some(mask) = mask {
                gradient.iter_mut().zip(mask).for_each(|(g, &mut bit)| *g = if bit { *g } else { 0.0 });
            }
            let decay = if weights.shape.len() > 1 { self.optimiser.weight_decay } else { 0.0 };
            self.optimiser.step(&mut weights.values, momentum, &gradient, decay);
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand, from w = 1 with gradients 1, 1, rate 1, momentum .5 and decay .5:
    // g = 1.5, v = 1.5, w = 1 - (1.5 + .75) = -1.25; g = .375, v = 1.125, w = -1.25 - (.375 + .5625) = -2.1875.
    #[test]
    fn nesterov_momentum_and_decay_follow_the_hand_calculation() {
        let sgd = Sgd { rate: 1.0, momentum: 0.5, weight_decay: 0.5 };
        let (mut w, mut v) = ([1.0], [0.0]);
        sgd.step(&mut w, &mut v, &[1.0], sgd.weight_decay);
        assert_eq!((w, v), ([-1.25], [1.5]));
        sgd.step(&mut w, &mut v, &[1.0], sgd.weight_decay);
        assert_eq!((w, v), ([-2.1875], [1.125]));
    }
}
