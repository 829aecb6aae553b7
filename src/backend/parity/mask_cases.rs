//! Random masks, effective weights and mask updates: integers, so everything is exact.

use super::arena::{Arena, Output};
use super::{on_every_device, values};
use crate::backend::{Backend, Conv, Draw, Effective, Growth, PruneAndGrow, Weight};
use crate::bitmask::BitMask;
use crate::rng::{self, Domain};
use crate::shape::Shape;

const DIMS: [usize; 4] = [9, 4, 3, 3];
const LEN: usize = 324;

#[test]
fn random_masks_are_the_specified_bits() {
    on_every_device("random_mask", |arena| {
        for (number, dims) in [DIMS, [1, 1, 1, 1], [33, 1, 1, 1], [32, 2, 1, 1]].into_iter().enumerate() {
            let len = dims.iter().product();
            arena.weight(dims, &values(len, number as u64), &values(len, 1));
        }
        arena.register(&[]);
        let keep = [0.9, 0.0, 1.0, 0.5];
        let draw =
            Draw { seed: 0xABCD_0123_4567_89EF, domain: Domain::RandomMask, step: 9, keep: &keep, inverted: false };
        arena.run(&[0, 1, 2, 3].map(Output::RandomMask), |on| {
            on.random_mask(&draw)?;
            for (layer, &keep) in keep.iter().enumerate() {
                let mask = on.read_random_mask(layer)?;
                let word = |w| rng::mask_word(draw.seed, draw.domain, 9, layer as u32, w, rng::keep_threshold(keep));
                let words = (0..mask.words().len() as u32).map(word).collect();
                assert_eq!(mask, BitMask::from_words(words, mask.len()));
            }
            Ok(())
        });
    });
}

/// Reads the effective weights by a 1x1 convolution with unit vectors.
#[test]
fn effective_weights_follow_both_masks() {
    for density in [0.2, 0.8] {
        for (which, inverted) in [
            (Effective::Deterministic, false),
            (Effective::Random, false),
            (Effective::Random, true),
            (Effective::Leaky, false),
        ] {
            let (inputs, outputs) = (20, 13);
            on_every_device(&format!("{which:?} at density {density}, inverted {inverted}"), |arena| {
                let len = inputs * outputs;
                let weight = arena.weight([outputs, inputs, 1, 1], &values(len, 1), &values(len, 2));
                let score = values(len, 3);
                arena.register(&[BitMask::from_fn(len, |i| f64::from(score[i].abs()) < density)]);
                let draw = Draw { seed: 1, domain: Domain::MonteCarlo, step: 2, keep: &[0.6], inverted };
                arena.prepare(|on| on.random_mask(&draw));
                let leak = arena.span(&values(len, 4));
                let leaks = if which == Effective::Leaky { vec![leak] } else { vec![] };
                arena.prepare(|on| on.effective_weights(which, &leaks));
                let mut unit = vec![0.0; inputs * inputs];
                (0..inputs).for_each(|i| unit[i * inputs + i] = 1.0);
                let x = arena.convolved(Shape::features(inputs, inputs), 0, &unit);
                let y = arena.result(Shape::features(inputs, outputs), 0);
                arena.run(&[Output::Value(y)], |on| on.conv2d(x, weight, Conv { stride: 1, padding: 0 }, y));
            });
        }
    }
}

/// Values with many ties, of both signs.
fn tied(seed: u64) -> Vec<f32> {
    values(LEN, seed).into_iter().map(|x| (x * 4.0).round() / 4.0).collect()
}

fn layer(arena: &mut Arena, seed: u64, density: f64) -> (Weight, BitMask) {
    let score = values(LEN, seed + 50);
    let mask = BitMask::from_fn(LEN, |i| f64::from(score[i].abs()) < density);
    let value: Vec<f32> = tied(seed).into_iter().enumerate().map(|(i, x)| if mask.get(i) { x } else { 0.0 }).collect();
    (arena.weight(DIMS, &value, &tied(seed + 1)), mask)
}

#[test]
fn mask_updates_drop_and_grow_exactly_what_was_asked() {
    let growths = [Growth::Gradient, Growth::Momentum, Growth::Random { seed: 5, step: 99 }];
    for (growth, official) in growths.into_iter().flat_map(|growth| [(growth, false), (growth, true)]) {
        for (drop, grow) in [(0, 0), (1, 1), (20, 20), (30, 10), (10, 35), (60, 60), (0, 5)] {
            let dense_momentum = growth == Growth::Momentum;
            on_every_device(&format!("{growth:?}, official {official}, drop {drop}, grow {grow}"), |arena| {
                let layers = [layer(arena, 10, 0.3), layer(arena, 20, 0.7)];
                arena.register(&layers.each_ref().map(|(_, mask)| mask.clone()));
                let draw = Draw { seed: 1, domain: Domain::RandomMask, step: 2, keep: &[0.8, 0.8], inverted: false };
                arena.prepare(|on| on.random_mask(&draw));
                let jobs = layers.each_ref().map(|(weight, _)| PruneAndGrow {
                    weight: *weight,
                    drop,
                    grow,
                    growth,
                    velocity: arena.span(&tied(30)),
                    dense_momentum,
                    leak: official.then(|| arena.span(&tied(31))),
                });
                let spans = jobs.iter().flat_map(|job| [Some(job.weight.value), Some(job.velocity), job.leak]);
                let outputs: Vec<Output> =
                    spans.flatten().map(Output::Span).chain([Output::Mask(0), Output::Mask(1)]).collect();
                let before = layers.each_ref().map(|(_, mask)| mask.count());
                arena.run(&outputs, |on| {
                    on.prune_and_grow(&jobs)?;
                    for (layer, before) in before.into_iter().enumerate() {
                        assert_eq!(on.read_mask(layer)?.count(), before - drop + grow);
                    }
                    Ok(())
                });
            });
        }
    }
}

/// A layer of five weights, M = 11100, that drops two and grows two: tie between the dropped index 0 and the new index 3.
#[test]
fn a_weight_dropped_and_regrown_keeps_value_and_momentum_and_a_new_one_starts_at_zero() {
    let mut cpu = super::Cpu::new();
    let on: &mut dyn Backend = &mut cpu;
    let span = |at| crate::backend::Span { at, len: 5 };
    let weight = Weight { layer: 0, value: span(0), grad: span(16), out_channels: 5, in_channels: 1, kernel: [1, 1] };
    on.reserve(64).unwrap();
    on.register(&[weight]).unwrap();
    on.write_mask(0, &BitMask::from_fn(5, |i| i < 3)).unwrap();
    on.write(span(0), &[0.1, 0.2, 3.0, 0.0, 0.0]).unwrap();
    on.write(span(16), &[5.0, 0.5, 9.0, -5.0, 1.0]).unwrap();
    on.write(span(32), &[1.0, 2.0, 3.0, 0.0, 0.0]).unwrap();
    let (growth, velocity) = (Growth::Gradient, span(32));
    let job = PruneAndGrow { weight, drop: 2, grow: 2, growth, velocity, dense_momentum: false, leak: None };
    on.prune_and_grow(&[job]).unwrap();
    assert_eq!(on.read_mask(0).unwrap().ones_at().collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(on.read(span(0)).unwrap(), [0.1, 0.0, 3.0, 0.0, 0.0]);
    assert_eq!(on.read(span(32)).unwrap(), [1.0, 0.0, 3.0, 0.0, 0.0]);
}

#[test]
fn global_pruning_keeps_the_largest_of_all_layers_together() {
    for keep in [0, 1, 50, 200, 10_000] {
        on_every_device(&format!("prune_globally to {keep}"), |arena| {
            let layers = [layer(arena, 10, 0.3), layer(arena, 20, 0.9)];
            arena.register(&layers.each_ref().map(|(_, mask)| mask.clone()));
            let all = layers.each_ref().map(|(weight, _)| (*weight, arena.span(&tied(30))));
            let spans = all.iter().flat_map(|(weight, velocity)| [weight.value, *velocity]);
            let outputs: Vec<Output> = spans.map(Output::Span).chain([Output::Mask(0), Output::Mask(1)]).collect();
            let inside: usize = layers.iter().map(|(_, mask)| mask.count()).sum();
            arena.run(&outputs, |on| {
                on.prune_globally(&all, keep)?;
                assert_eq!(on.read_mask(0)?.count() + on.read_mask(1)?.count(), keep.min(inside));
                Ok(())
            });
        });
    }
}

const AWKWARD: [usize; 8] = [0, 1, 31, 33, 63, 65, 127, 4097];

/// One layer of each awkward size, half of it inside M: values and gradients of a few magnitudes, some gradients NaN.
fn awkward_layers(arena: &mut Arena) -> Vec<(Weight, BitMask)> {
    let few = |len, seed| values(len, seed).into_iter().map(|x| (x * 2.0).round() / 2.0);
    let layers = AWKWARD.map(|len| {
        let score = values(len, 60);
        let mask = BitMask::from_fn(len, |i| score[i] < 0.0);
        let value: Vec<f32> = few(len, 61).enumerate().map(|(i, x)| if mask.get(i) { x } else { 0.0 }).collect();
        let grad: Vec<f32> = few(len, 62).enumerate().map(|(i, x)| if i % 29 == 7 { f32::NAN } else { x }).collect();
        (arena.weight([len, 1, 1, 1], &value, &grad), mask)
    });
    arena.register(&layers.each_ref().map(|(_, mask)| mask.clone()));
    layers.into()
}

#[test]
fn selections_of_none_some_and_all_are_exact_at_awkward_sizes() {
    let share = |count: usize, percent: usize| (count * percent).div_ceil(100);
    let shares = [(0, 0), (0, 100), (100, 0), (100, 100), (30, 40)];
    let growths = [Growth::Gradient, Growth::Momentum, Growth::Random { seed: 5, step: 99 }];
    for (number, (drop, grow)) in shares.into_iter().enumerate() {
        for growth in [growths[0], growths[1 + number % 2]] {
            on_every_device(&format!("{growth:?}, drop {drop} %, grow {grow} %, awkward sizes"), |arena| {
                let layers = awkward_layers(arena);
                let jobs: Vec<PruneAndGrow> = layers
                    .iter()
                    .map(|(weight, mask)| PruneAndGrow {
                        weight: *weight,
                        drop: share(mask.count(), drop),
                        grow: share(mask.len() - mask.count(), grow),
                        growth,
                        velocity: arena.span(&values(mask.len(), 63)),
                        dense_momentum: false,
                        leak: None,
                    })
                    .collect();
                let spans = jobs.iter().flat_map(|job| [job.weight.value, job.velocity]);
                let outputs: Vec<Output> = spans.map(Output::Span).chain((0..jobs.len()).map(Output::Mask)).collect();
                arena.run(&outputs, |on| on.prune_and_grow(&jobs));
            });
        }
    }
}

#[test]
fn global_pruning_is_exact_at_awkward_sizes() {
    for keep in [0, 1, 1234, usize::MAX] {
        on_every_device(&format!("prune_globally to {keep}, awkward sizes"), |arena| {
            let layers = awkward_layers(arena);
            let all: Vec<_> =
                layers.iter().map(|(weight, mask)| (*weight, arena.span(&values(mask.len(), 63)))).collect();
            let spans = all.iter().flat_map(|(weight, velocity)| [weight.value, *velocity]);
            let outputs: Vec<Output> = spans.map(Output::Span).chain((0..all.len()).map(Output::Mask)).collect();
            arena.run(&outputs, |on| on.prune_globally(&all, keep));
        });
    }
}

#[test]
fn the_mean_magnitude_counts_what_is_inside() {
    for density in [0.0, 0.3, 1.0] {
        on_every_device("mean_magnitude", |arena| {
            let (weight, mask) = layer(arena, 10, density);
            arena.register(std::slice::from_ref(&mask));
            let of = arena.span(&values(LEN, 3));
            let sum: f64 = mask.ones_at().map(|i| f64::from(values(LEN, 3)[i].abs())).sum();
            let expected = sum / mask.count().max(1) as f64;
            arena.run(&[Output::Mask(0)], |on| {
                let mean = on.mean_magnitude(weight, of)?;
                assert!((mean - expected).abs() <= 1e-12, "{mean} is not {expected}");
                Ok(())
            });
        });
    }
}
