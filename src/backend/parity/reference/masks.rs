//! Masks bit by bit, and selections by sorting everything.

use super::{Reference, set};
use crate::backend::parity::bounded::Bounded;
use crate::backend::{Draw, Effective, Growth, PruneAndGrow, Span, Weight};
use crate::rng::{self, Domain};

pub(super) struct Layer {
    pub(super) weight: Weight,
    pub(super) mask: Vec<bool>,
    pub(super) random: Vec<bool>,
    pub(super) scale: Bounded,
    pub(super) effective: Vec<Bounded>,
}

impl Layer {
    pub(super) fn new(weight: Weight) -> Self {
        let (mask, effective) = (vec![true; weight.len()], vec![Bounded::default(); weight.len()]);
        Layer { weight, random: mask.clone(), mask, scale: Bounded::exact(1.0), effective }
    }
}

/// The `count` of `candidates` with the largest `score`, the lower index first on ties.
fn largest(mut candidates: Vec<usize>, count: usize, score: impl Fn(usize) -> f64) -> Vec<usize> {
    candidates.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    candidates.truncate(count);
    candidates
}

impl Reference {
    /// Element 32 w + 8 b + j is kept when the j-th 16-bit half, low half first, of the Philox block of counter (4 w + b, step,
    /// layer, domain) lies below round(keep 2^16).
    pub(super) fn draw_masks(&mut self, draw: &Draw) {
        for layer in &mut self.layers {
            let (number, keep) = (layer.weight.layer, draw.keep[layer.weight.layer]);
            let kept = |i: usize| {
                let counter = [(i / 8) as u32, draw.step, number as u32, draw.domain as u32];
                let word = rng::philox(rng::key(draw.seed), counter)[i % 8 / 2];
                let half = if i.is_multiple_of(2) { word & 0xFFFF } else { word >> 16 };
                keep == 1.0 || f64::from(half) < (keep * 65536.0).round()
            };
            layer.random = (0..layer.mask.len()).map(kept).collect();
            layer.scale = if draw.inverted { Bounded::exact(1.0) / Bounded::exact(keep) } else { Bounded::exact(1.0) };
        }
    }

    /// What a layer's values are under its masks.
    pub(super) fn sample(&self, layer: usize, value: Span, which: Effective, leak: Option<Span>) -> Vec<Bounded> {
        let (layer, value, leak) = (&self.layers[layer], self.bounded(value), leak.map(|leak| self.bounded(leak)));
        let scaled = |i: usize| if layer.scale == Bounded::exact(1.0) { value[i] } else { value[i] * layer.scale };
        let element = |i: usize| match (which, layer.mask[i], layer.random[i]) {
            (_, false, _) => Bounded::default(),
            (Effective::Deterministic, true, _) => value[i],
            (Effective::Random | Effective::Leaky, true, true) => scaled(i),
            (Effective::Random, true, false) => Bounded::default(),
            (Effective::Leaky, true, false) => leak.as_ref().expect("leaky weights have leaks")[i],
        };
        (0..layer.mask.len()).map(element).collect()
    }

    pub(super) fn update_mask(&mut self, job: &PruneAndGrow) {
        let number = job.weight.layer;
        let score = |span: Span| -> Vec<f64> { self.bounded(span).iter().map(|x| x.value.abs()).collect() };
        let (mask, random) = (self.layers[number].mask.clone(), self.layers[number].random.clone());
        let mut held = score(job.weight.value);
        if let Some(leak) = job.leak.map(score) {
            (0..held.len()).filter(|&i| !random[i]).for_each(|i| held[i] = leak[i]);
        }
        let mut new = mask.clone();
        let inside = (0..mask.len()).filter(|&i| mask[i]).collect();
        largest(inside, job.drop, |i| -held[i]).into_iter().for_each(|i| new[i] = false);
        let outside: Vec<usize> = (0..mask.len()).filter(|&i| !new[i]).collect();
        let by = |scores: Vec<f64>| largest(outside.clone(), job.grow, |i| scores[i]);
        let grown = match job.growth {
            Growth::Gradient => by(score(job.weight.grad)),
            Growth::Momentum => by(score(job.velocity)),
            Growth::Random { seed, step } => largest(outside.clone(), job.grow, |i| {
                -f64::from(rng::element_key(seed, Domain::Growth, step, number as u32, i as u32))
            }),
        };
        grown.into_iter().for_each(|i| new[i] = true);
        // Only what was inside and still is keeps its value and momentum.
        let clear = |reference: &mut Self, span: Span, keep: &dyn Fn(usize) -> bool| {
            let values = reference.bounded(span).into_iter().enumerate();
            reference.set(set(span), values.map(|(i, x)| if keep(i) { x } else { Bounded::default() }).collect());
        };
        let stays = |i: usize| mask[i] && new[i];
        clear(self, job.weight.value, &|i| stays(i) || job.leak.is_some() && !random[i]);
        if let Some(leak) = job.leak {
            clear(self, leak, &stays);
        }
        if !job.dense_momentum {
            clear(self, job.velocity, &stays);
        }
        self.layers[number].mask = new;
    }

    pub(super) fn keep_largest(&mut self, weights: &[(Weight, Span)], keep: usize) {
        let mut all: Vec<(usize, usize)> = Vec::new();
        for (place, (weight, _)) in weights.iter().enumerate() {
            let mask = &self.layers[weight.layer].mask;
            all.extend((0..mask.len()).filter(|&i| mask[i]).map(|i| (place, i)));
        }
        let score = |(place, i): (usize, usize)| self.memory[weights[place].0.value.at + i].value.abs();
        all.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        all.truncate(keep);
        for (place, &(weight, velocity)) in weights.iter().enumerate() {
            let mask: Vec<bool> = (0..weight.len()).map(|i| all.contains(&(place, i))).collect();
            for (i, _) in mask.iter().enumerate().filter(|(_, kept)| !**kept) {
                self.memory[weight.value.at + i] = Bounded::default();
                self.memory[velocity.at + i] = Bounded::default();
            }
            self.layers[weight.layer].mask = mask;
        }
    }
}
