//! Optimiser steps element by element, as method.md section 3 and the documentation of [`Masking`] say.

use super::Reference;
use crate::backend::parity::bounded::Bounded;
use crate::backend::{Adam, Masking, Sgd, Span, Update};

const ZERO: Bounded = Bounded { value: 0.0, error: 0.0 };

impl Reference {
    /// (inside M, kept by Z, the factor that Z gave the weight) of element i.
    fn masks(&self, update: &Update, i: usize) -> (bool, bool, Bounded) {
        update.masked.map_or((true, true, Bounded::exact(1.0)), |(weight, masking)| {
            let layer = &self.layers[weight.layer];
            let drawn = !matches!(masking, Masking::Deterministic | Masking::DenseMomentum);
            let scale = if drawn { layer.scale } else { Bounded::exact(1.0) };
            (layer.mask[i], !drawn || layer.random[i], scale)
        })
    }

    pub(super) fn step_sgd(&mut self, rule: Sgd, update: &Update) {
        let [lr, mu, decay] = [rule.lr, rule.momentum, update.weight_decay].map(Bounded::from);
        let masking = update.masked.map(|(_, masking)| masking);
        for i in 0..update.value.len {
            let (inside, kept, scale) = self.masks(update, i);
            let (w, v) = (self.memory[update.value.at + i], self.memory[update.velocity.at + i]);
            let grad = self.memory[update.grad.at + i];
            // (new momentum, what to subtract) for a gradient.
            let step = |g: Bounded| {
                let v = mu * v + g;
                (v, lr * if rule.nesterov { g + mu * v } else { v })
            };
            let (new_w, new_v) = match masking {
                // What Z drops outside M is left to itself by the released code.
                Some(Masking::Leaky(_)) if !inside && !kept => (w, v),
                Some(Masking::DenseMomentum) if !inside => (w, step(grad).0),
                _ if !inside => (ZERO, ZERO),
                None | Some(_) if kept => {
                    let (v, moves) = step(grad * scale + decay * w);
                    (w - moves, v)
                }
                Some(Masking::Decay) => {
                    let (v, moves) = step(ZERO);
                    (w - moves, v)
                }
                Some(Masking::Leaky(leak)) => {
                    // The network holds 0 there, so the decay term is 0.
                    let (v, moves) = step(grad);
                    self.memory[leak.at + i] = -moves;
                    (w, v)
                }
                _ => (w, v),
            };
            if let (Some(Masking::Leaky(leak)), false, true) = (masking, inside, kept) {
                self.memory[leak.at + i] = ZERO;
            }
            self.memory[update.value.at + i] = new_w;
            self.memory[update.velocity.at + i] = new_v;
        }
    }

    pub(super) fn step_adam(&mut self, rule: Adam, update: &Update, second: Span) {
        let [lr, b1, b2, epsilon] = [rule.lr, rule.betas[0], rule.betas[1], rule.epsilon].map(Bounded::from);
        let one = Bounded::exact(1.0);
        let unbias = |b: f32| 1.0 - f64::from(b).powi(rule.t as i32);
        let [u1, u2] = rule.betas.map(unbias).map(|x| Bounded::after(1.0, x, x));
        for i in 0..update.value.len {
            let (inside, kept, scale) = self.masks(update, i);
            let [w, m, s, g] =
                [update.value, update.velocity, second, update.grad].map(|span| self.memory[span.at + i]);
            let moved = |g: Bounded| {
                let (m, s) = (b1 * m + (one - b1) * g, b2 * s + (one - b2) * (g * g));
                (w - lr * (m / u1) / ((s / u2).sqrt() + epsilon), m, s)
            };
            let new = match update.masked {
                Some((_, Masking::DenseMomentum)) if !inside => (w, moved(g).1, moved(g).2),
                _ if !inside => (ZERO, ZERO, ZERO),
                _ if kept => moved(g * scale + Bounded::from(update.weight_decay) * w),
                Some((_, Masking::Decay)) => moved(ZERO),
                Some((_, Masking::Leaky(_))) => panic!("Adam has no leaky form"),
                _ => (w, m, s),
            };
            let places = [update.value, update.velocity, second].map(|span| span.at + i);
            places.into_iter().zip([new.0, new.1, new.2]).for_each(|(at, x)| self.memory[at] = x);
        }
    }
}
