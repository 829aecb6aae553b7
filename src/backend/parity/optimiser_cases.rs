//! Optimiser steps and averages.

use super::arena::{Arena, Output};
use super::{on_every_device, values};
use crate::backend::{Adam, Draw, Effective, Masking, Rule, Sgd, Span, Update, Weight};
use crate::bitmask::BitMask;
use crate::rng::Domain;

const DIMS: [usize; 4] = [7, 5, 3, 3];
const LEN: usize = 315;

/// A weight of density 1/2 with Z drawn at keep 0.7; values outside M are zero unless `stale`.
fn masked(arena: &mut Arena, inverted: bool, stale: bool) -> Weight {
    let mask = BitMask::from_fn(LEN, |i| i * 7 % 11 < 6);
    let value: Vec<f32> =
        values(LEN, 1).into_iter().enumerate().map(|(i, x)| if stale || mask.get(i) { x } else { 0.0 }).collect();
    let weight = arena.weight(DIMS, &value, &values(LEN, 2));
    arena.register(&[mask]);
    let draw = Draw { seed: 3, domain: Domain::RandomMask, step: 4, keep: &[0.7], inverted };
    arena.prepare(|on| on.random_mask(&draw));
    weight
}

fn rules() -> [Sgd; 3] {
    let rule = Sgd { lr: 0.1, momentum: 0.9, nesterov: true };
    [rule, Sgd { nesterov: false, ..rule }, Sgd { momentum: 0.0, ..rule }]
}

#[test]
fn sgd_of_a_masked_weight_follows_the_two_masks() {
    let maskings = |leak: Span| {
        [Masking::Deterministic, Masking::Frozen, Masking::Decay, Masking::Leaky(leak), Masking::DenseMomentum]
    };
    for which in 0..5 {
        for (number, rule) in rules().into_iter().enumerate() {
            for (inverted, decay) in [(false, 0.0), (false, 5e-4), (true, 5e-4)] {
                on_every_device(&format!("sgd, masking {which}, rule {number}, inverted {inverted}"), |arena| {
                    let weight = masked(arena, inverted, which == 3);
                    let (velocity, leak) = (arena.span(&values(LEN, 3)), arena.span(&values(LEN, 4)));
                    let masking = maskings(leak)[which];
                    let update = Update {
                        value: weight.value,
                        grad: weight.grad,
                        velocity,
                        masked: Some((weight, masking)),
                        weight_decay: decay,
                    };
                    let outputs = [weight.value, velocity, leak].map(Output::Span);
                    let changed = if which == 3 { &outputs[..] } else { &outputs[..2] };
                    arena.run(changed, |on| on.sgd(rule, &[update]));
                });
            }
        }
    }
}

/// Most words of the mask are empty: devices may leave those alone once they are 0, but not what somebody wrote there since.
#[test]
fn every_step_clears_what_was_written_outside_the_mask() {
    let mut cpu = super::Cpu::new();
    let outputs = Arena::play(&mut cpu, 0, &|arena| {
        let inside = |i: usize| (64..70).contains(&i) || i == 300;
        let weight = arena.weight(DIMS, &values(LEN, 1), &values(LEN, 2));
        arena.register(&[BitMask::from_fn(LEN, inside)]);
        let velocity = arena.span(&values(LEN, 3));
        let masked = Some((weight, Masking::Deterministic));
        let update = Update { value: weight.value, grad: weight.grad, velocity, masked, weight_decay: 0.0 };
        let rule = Sgd { lr: 0.1, momentum: 0.9, nesterov: false };
        arena.prepare(|on| {
            on.sgd(rule, &[update])?;
            on.sgd(rule, &[update])?;
            let steps = on.read(weight.value)?;
            assert!((0..LEN).all(|i| (steps[i] != 0.0) == inside(i)));
            on.write(weight.value, &values(LEN, 4))
        });
        arena.run(&[weight.value, velocity].map(Output::Span), |on| on.sgd(rule, &[update]));
    });
    for output in outputs {
        let values = output.observed(&mut cpu, "cleared");
        assert!((0..LEN).all(|i| (values[i] != 0.0) == ((64..70).contains(&i) || i == 300)), "{values:?}");
    }
}

#[test]
fn sgd_of_an_unmasked_parameter_is_pytorchs() {
    for rule in rules() {
        on_every_device("sgd", |arena| {
            let spans = [1, 2, 3].map(|seed| arena.span(&values(20_000, seed)));
            let [value, grad, velocity] = spans;
            let update = Update { value, grad, velocity, masked: None, weight_decay: 1e-2 };
            arena.run(&[value, velocity].map(Output::Span), |on| on.sgd(rule, &[update]));
        });
    }
}

// torch.optim.SGD([1.0, -2.0], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01) after two steps with gradient [0.5, 1.0], by hand:
// g1 = [.51, .98], v1 = g1, w1 = w - .1 (g1 + .9 v1) = [.9031, -2.1862];
// g2 = [.509031, .978138], v2 = .9 v1 + g2 = [.968031, 1.860138], w2 = w1 - .1 (g2 + .9 v2) = [.76507411, -2.45142622].
#[test]
fn two_nesterov_steps_give_the_numbers_worked_out_by_hand() {
    let mut cpu = super::Cpu::new();
    let outputs = Arena::play(&mut cpu, 0, &|arena| {
        let (value, grad) = (arena.span(&[1.0, -2.0]), arena.span(&[0.5, 1.0]));
        let velocity = arena.span(&[0.0, 0.0]);
        let update = Update { value, grad, velocity, masked: None, weight_decay: 0.01 };
        let rule = Sgd { lr: 0.1, momentum: 0.9, nesterov: true };
        arena.run(&[value, velocity].map(Output::Span), |on| {
            on.sgd(rule, &[update]).and_then(|()| on.sgd(rule, &[update]))
        });
    });
    let got: Vec<f32> = outputs.iter().flat_map(|output| output.observed(&mut cpu, "hand")).collect();
    for (got, by_hand) in got.into_iter().zip([0.76507411, -2.45142622, 0.968031, 1.860138]) {
        assert!((f64::from(got) - by_hand).abs() < 1e-6, "{got} is not {by_hand}");
    }
}

#[test]
fn adam_follows_its_paper_under_the_masks() {
    let rule = Adam { lr: 1e-2, betas: [0.9, 0.999], epsilon: 1e-8, t: 1 };
    let maskings = [Masking::Deterministic, Masking::Frozen, Masking::Decay, Masking::DenseMomentum];
    for (t, masking) in
        [1, 2, 1000].into_iter().flat_map(|t| maskings.map(|m| (t, Some(m))).into_iter().chain([(t, None)]))
    {
        on_every_device(&format!("adam at {t}, {masking:?}"), |arena| {
            let weight = masked(arena, false, false);
            let first = arena.span(&values(LEN, 3));
            let second = arena.span(&values(LEN, 4).iter().map(|x| x * x).collect::<Vec<_>>());
            let masked = masking.map(|masking| (weight, masking));
            let (value, grad) = (weight.value, weight.grad);
            let update = Update { value, grad, velocity: first, masked, weight_decay: 1e-2 };
            let outputs = [value, first, second].map(Output::Span);
            arena.run(&outputs, |on| on.adam(Adam { t, ..rule }, &[update], &[second]));
        });
    }
}

/// What the next pass reads is compared with the parts' in the backends' own tests.
#[test]
fn a_step_that_forms_the_next_masks_is_a_step_and_a_draw() {
    let keep = [0.7];
    let next = Draw { seed: 3, domain: Domain::RandomMask, step: 5, keep: &keep, inverted: true };
    let sgd = Rule::Sgd(rules()[0]);
    let adam = Rule::Adam(Adam { lr: 1e-2, betas: [0.9, 0.999], epsilon: 1e-8, t: 3 });
    for (rule, masking, draw, which) in [
        (sgd, Masking::Frozen, Some(&next), Effective::Random),
        (sgd, Masking::Decay, Some(&next), Effective::Random),
        (sgd, Masking::Deterministic, None, Effective::Deterministic),
        (adam, Masking::Frozen, Some(&next), Effective::Random),
    ] {
        on_every_device(&format!("update_and_mask by {rule:?}, {masking:?}"), |arena| {
            let weight = masked(arena, true, false);
            let velocity = arena.span(&values(LEN, 3));
            let second = arena.span(&values(LEN, 4).iter().map(|x| x * x).collect::<Vec<_>>());
            let bias = [5, 6, 7].map(|seed| arena.span(&values(11, seed)));
            let bias_second = arena.span(&[0.5; 11]);
            let [value, grad] = [weight.value, weight.grad];
            let of_weight = Update { value, grad, velocity, masked: Some((weight, masking)), weight_decay: 1e-2 };
            let [value, grad, velocity] = bias;
            let of_bias = Update { value, grad, velocity, masked: None, weight_decay: 0.0 };
            let (updates, second) = ([of_bias, of_weight], [bias_second, second]);
            let spans = updates.iter().flat_map(|update| [update.value, update.velocity]);
            let moments = second.into_iter().filter(|_| matches!(rule, Rule::Adam(_)));
            let outputs = spans.chain(moments).map(Output::Span).chain([Output::RandomMask(0)]);
            arena.run(&outputs.collect::<Vec<_>>(), |on| on.update_and_mask(rule, &updates, &second, draw, which));
        });
    }
}

#[test]
fn the_average_takes_in_each_sample_equally() {
    for n in [0, 1, 50] {
        for (which, inverted) in [
            (None, false),
            (Some(Effective::Deterministic), false),
            (Some(Effective::Random), false),
            (Some(Effective::Random), true),
            (Some(Effective::Leaky), false),
        ] {
            on_every_device(&format!("average {n} of {which:?}"), |arena| {
                let weight = masked(arena, inverted, false);
                let (average, leak) = (arena.span(&values(LEN, 3)), arena.span(&values(LEN, 4)));
                let masked = which.map(|which| (weight, which, (which == Effective::Leaky).then_some(leak)));
                arena.run(&[Output::Span(average)], |on| on.average(weight.value, masked, average, n));
            });
        }
    }
}
