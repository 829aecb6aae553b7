//! Optimiser steps and the running average of weights.

use rayon::prelude::*;

use super::Cpu;
use super::masks::Layer;
use super::memory::Place;
use super::simd::{Lanes, WORDS_AHEAD, dispatch, prefetch};
use crate::backend::{Adam, Effective, Masking, Sgd, Span, Update, Weight};

/// Elements a task takes.
const CHUNK: usize = 16 * 1024;

/// What an element may do in this step.
#[derive(Clone, Copy, PartialEq)]
enum Moves {
    /// Gradient, momentum and value change.
    Freely,
    /// Nothing changes.
    Not,
    /// The gradient is 0, the rest as ever.
    WithoutGradient,
    /// The value stays, minus its update is the leak.
    IntoLeak,
    /// Outside M: value and momentum are 0.
    Outside,
    /// Outside M, but its momentum goes on.
    OnlyMomentum,
}

/// What element i of a masked weight may do, and the factor of its gradient.
fn moves(layers: &[Layer], masked: Option<(Weight, Masking)>) -> impl Fn(usize) -> (Moves, f32) + Sync {
    let layer = masked.map(|(weight, masking)| (&layers[weight.layer], masking));
    move |i| {
        let Some((layer, masking)) = layer else { return (Moves::Freely, 1.0) };
        let (inside, kept) = (layer.mask.get(i), layer.random.get(i));
        match masking {
            Masking::Deterministic if inside => (Moves::Freely, 1.0),
            Masking::DenseMomentum if inside => (Moves::Freely, 1.0),
            Masking::DenseMomentum => (Moves::OnlyMomentum, 1.0),
            Masking::Leaky(_) if inside && kept => (Moves::Freely, layer.scale),
            Masking::Leaky(_) if inside => (Moves::IntoLeak, 1.0),
            // A stale value outside M dies as soon as Z keeps it; until then the released code holds on to it.
            Masking::Leaky(_) if !kept => (Moves::Not, 1.0),
            Masking::Frozen | Masking::Decay if inside && kept => (Moves::Freely, layer.scale),
            Masking::Frozen if inside => (Moves::Not, 1.0),
            Masking::Decay if inside => (Moves::WithoutGradient, 1.0),
            _ => (Moves::Outside, 1.0),
        }
    }
}

/// The masks of a few words of a weight.
#[derive(Clone, Copy)]
struct Masks<'a> {
    /// M.
    inside: &'a [u32],
    /// Z.
    kept: &'a [u32],
    /// Whether what Z drops stays as it is; else its gradient is 0.
    frozen: bool,
    /// The gradient's factor.
    scale: f32,
    /// Value and momentum are 0 outside M already: words without an element of it need not be looked at.
    cleared: bool,
}

/// An SGD step of whole words of elements.
#[inline(always)]
unsafe fn sgd_words<L: Lanes>(
    rule: Sgd,
    decay: f32,
    masks: Option<Masks>,
    value: &mut [f32],
    velocity: &mut [f32],
    grad: &[f32],
) {
    let step = |word: usize, i: usize, w: &mut f32, v: &mut f32, grad: f32| {
        let (inside, kept, frozen, scale) = match masks {
            None => (true, true, false, 1.0),
            Some(Masks { inside, kept, frozen, scale, .. }) => {
                (inside[word] >> i & 1 == 1, kept[word] >> i & 1 == 1, frozen, scale)
            }
        };
        let g = if kept { scale * grad + decay * *w } else { 0.0 };
        let moved = rule.momentum * *v + g;
        let by = rule.lr * if rule.nesterov { g + rule.momentum * moved } else { moved };
        let moves = kept | !frozen;
        let (new_w, new_v) = (if moves { *w - by } else { *w }, if moves { moved } else { *v });
        (*w, *v) = if inside { (new_w, new_v) } else { (0.0, 0.0) };
    };
    let passed_over = |word: usize| masks.is_some_and(|masks| masks.cleared && masks.inside.get(word) == Some(&0));
    let words = value.len().div_ceil(32);
    let gaps = 2 * (0..words).filter(|&word| passed_over(word)).count() > words;
    for word in 0..words {
        let later = word + WORDS_AHEAD;
        if gaps && !passed_over(later) {
            // Two lines of each.
            for at in [32 * later, 32 * later + 16] {
                [value.get(at), velocity.get(at), grad.get(at)].into_iter().for_each(prefetch);
            }
        }
        if passed_over(word) {
            continue;
        }
        let part = 32 * word..(32 * word + 32).min(value.len());
        let (w, v, g) = (&mut value[part.clone()], &mut velocity[part.clone()], &grad[part]);
        let whole =
            (<&mut [f32; 32]>::try_from(&mut *w), <&mut [f32; 32]>::try_from(&mut *v), <&[f32; 32]>::try_from(g));
        if let (Ok(w), Ok(v), Ok(g)) = whole {
            (0..32).for_each(|i| step(word, i, &mut w[i], &mut v[i], g[i]));
        } else {
            (0..w.len()).for_each(|i| step(word, i, &mut w[i], &mut v[i], g[i]));
        }
    }
}

impl Cpu {
    pub(super) fn step_sgd(&mut self, rule: Sgd, update: &Update) {
        let leak = match update.masked {
            Some((_, Masking::Leaky(leak))) => leak,
            Some((_, Masking::DenseMomentum)) => Span::default(),
            _ => return self.step_sgd_by_words(rule, update),
        };
        if let Some((weight, _)) = update.masked {
            self.layers[weight.layer].cleared = false;
        }
        let moves = moves(&self.layers, update.masked);
        let [value, grad, velocity, leak] =
            self.memory.apart([update.value.range(), update.grad.range(), update.velocity.range(), leak.range()]);
        let grad = &*grad;
        // Most updates have no leak; their chunks of it are empty.
        let mut leaks: Vec<&mut [f32]> = leak.chunks_mut(CHUNK).collect();
        leaks.resize_with(value.len().div_ceil(CHUNK), Default::default);
        value.par_chunks_mut(CHUNK).zip(velocity.par_chunks_mut(CHUNK).zip(leaks)).enumerate().for_each(
            |(chunk, (value, (velocity, leak)))| {
                for (at, (w, v)) in value.iter_mut().zip(velocity).enumerate() {
                    let (moves, scale) = moves(chunk * CHUNK + at);
                    let gradient = || scale * grad[chunk * CHUNK + at];
                    let mut step = |g: f32| {
                        *v = rule.momentum * *v + g;
                        rule.lr * if rule.nesterov { g + rule.momentum * *v } else { *v }
                    };
                    match moves {
                        Moves::Freely => *w -= step(gradient() + update.weight_decay * *w),
                        Moves::WithoutGradient => *w -= step(0.0),
                        Moves::IntoLeak => leak[at] = -step(gradient()),
                        Moves::OnlyMomentum => {
                            step(gradient());
                        }
                        Moves::Outside => {
                            (*w, *v) = (0.0, 0.0);
                            if let Some(leak) = leak.get_mut(at) {
                                *leak = 0.0;
                            }
                        }
                        Moves::Not => {}
                    }
                }
            },
        );
    }

    /// The common maskings, 32 elements at a time.
    fn step_sgd_by_words(&mut self, rule: Sgd, update: &Update) {
        let level = self.level;
        let [value, grad, velocity] =
            self.memory.apart([update.value.range(), update.grad.range(), update.velocity.range()]);
        let masked = update.masked.map(|(weight, masking)| (&self.layers[weight.layer], masking));
        let grad = grad.par_chunks(CHUNK);
        let tasks = value.par_chunks_mut(CHUNK).zip(velocity.par_chunks_mut(CHUNK)).zip(grad).enumerate();
        tasks.for_each(|(chunk, ((value, velocity), grad))| {
            let masks = masked.map(|(layer, masking)| {
                let [inside, random] = [&layer.mask, &layer.random].map(|mask| &mask.words()[chunk * (CHUNK / 32)..]);
                let cleared = layer.cleared;
                match masking {
                    Masking::Deterministic => Masks { inside, kept: inside, frozen: false, scale: 1.0, cleared },
                    _ => {
                        let frozen = masking == Masking::Frozen;
                        Masks { inside, kept: random, frozen, scale: layer.scale, cleared }
                    }
                }
            });
            dispatch!(level, sgd_words(
                rule: Sgd = rule,
                decay: f32 = update.weight_decay,
                masks: Option<Masks<'_>> = masks,
                value: &mut [f32] = value,
                velocity: &mut [f32] = velocity,
                grad: &[f32] = grad,
            ));
        });
        if let Some((weight, _)) = update.masked {
            self.layers[weight.layer].cleared = true;
        }
    }

    pub(super) fn step_adam(&mut self, rule: Adam, update: &Update, second: Span) {
        let moves = moves(&self.layers, update.masked);
        let [value, grad, first, second] =
            self.memory.apart([update.value.range(), update.grad.range(), update.velocity.range(), second.range()]);
        let grad = &*grad;
        let [b1, b2] = rule.betas;
        let unbias = |beta: f32| (1.0 - f64::from(beta).powf(rule.t as f64)) as f32;
        let (u1, u2) = (unbias(b1), unbias(b2));
        value
            .par_chunks_mut(CHUNK)
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .enumerate()
            .for_each(|(chunk, (value, (first, second)))| {
                for (at, ((w, m), s)) in value.iter_mut().zip(first).zip(second).enumerate() {
                    let (moves, scale) = moves(chunk * CHUNK + at);
                    let g = match moves {
                        Moves::Freely | Moves::IntoLeak | Moves::OnlyMomentum => {
                            scale * grad[chunk * CHUNK + at] + update.weight_decay * *w
                        }
                        Moves::WithoutGradient => 0.0,
                        Moves::Not => continue,
                        Moves::Outside => {
                            (*w, *m, *s) = (0.0, 0.0, 0.0);
                            continue;
                        }
                    };
                    *m = b1 * *m + (1.0 - b1) * g;
                    *s = b2 * *s + (1.0 - b2) * g * g;
                    if moves != Moves::OnlyMomentum {
                        *w -= rule.lr * (*m / u1) / ((*s / u2).sqrt() + rule.epsilon);
                    }
                }
            });
    }

    pub(super) fn average_in(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) {
        let share = 1.0 / (n as f32 + 1.0);
        let leak = masked.and_then(|(_, _, leak)| leak);
        let [value, average, leaks] =
            self.memory.apart([value.range(), average.range(), leak.map_or(0..0, Place::range)]);
        let (value, leaks) = (&*value, leak.is_some().then_some(&*leaks));
        let sample = |i: usize| match masked {
            Some((weight, which, _)) => self.layers[weight.layer].sample(which, value, leaks, i),
            None => value[i],
        };
        // The first sample replaces what is there: nothing of an older average is left by rounding.
        average.par_iter_mut().with_min_len(CHUNK).enumerate().for_each(|(i, a)| {
            let x = sample(i);
            *a = if n == 0 { x } else { *a + (x - *a) * share };
        });
    }
}
