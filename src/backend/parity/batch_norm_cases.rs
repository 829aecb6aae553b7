//! Batch normalisation.

use super::arena::{Arena, Output};
use super::{on_every_device, values};
use crate::backend::{BatchNorm, Extent, StepState};
use crate::shape::Shape;

/// A batch norm of `x`, its statistics poisoned where it is to write them.
pub(super) fn describe(arena: &mut Arena, s: Shape, x: &[f32], halo: usize, residual: bool, relu: bool) -> BatchNorm {
    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.3, extent: Extent::Dense };
    arena.prepare(|on| on.begin_step(state));
    let positive = |seed| values(s.c, seed).iter().map(|x| x.abs() + 0.1).collect::<Vec<_>>();
    BatchNorm {
        x: arena.value(s, halo, x),
        scale: arena.span(&values(s.c, 2)),
        shift: arena.span(&values(s.c, 3)),
        running_mean: arena.span(&values(s.c, 4)),
        running_variance: arena.span(&positive(5)),
        batch: arena.poisoned(2 * s.c),
        epsilon: 1e-5,
        residual: residual.then(|| arena.value(s, halo, &values(s.len(), 7))),
        relu,
    }
}

fn cases() -> Vec<(Shape, usize, usize)> {
    let shapes =
        [(15, 1, 1, 1), (16, 3, 9, 7), (17, 5, 1, 3), (31, 33, 2, 2), (33, 8, 8, 8), (1, 65, 5, 4), (2, 2, 32, 32)];
    shapes.into_iter().enumerate().map(|(i, (n, c, h, w))| (Shape::images(n, c, h, w), i % 3, (i + 1) % 3)).collect()
}

fn check(name: &str, spread: f32, mean: f32) {
    for (s, from, to) in cases() {
        for (relu, add, residual) in [false, true].into_iter().flat_map(|residual| {
            [(false, false), (true, true), (true, false), (false, true)].map(|(relu, add)| (relu, add, residual))
        }) {
            let x: Vec<f32> = values(s.len(), 1).iter().map(|x| x * spread + mean).collect();
            on_every_device(&format!("{name} of {s}, residual {residual}, relu {relu}, add {add}"), |arena| {
                let bn = describe(arena, s, &x, from, residual, relu);
                let y = arena.result(s, to);
                let moved = [bn.running_mean, bn.running_variance, bn.batch].map(Output::Span);
                // Padding images, which hold junk here, must leave as 0: what is never normalised could grow from layer to layer.
                arena.run(&[&[Output::Gradient(y)], &moved[..]].concat(), |on| on.batch_norm(&bn, y));
                let dy = arena.gradient(s, to, &values(s.len(), 6));
                let (ds, db) = (arena.span_sink(s.c, add), arena.span_sink(s.c, add));
                let dx = arena.sink(s, from, add);
                // One shortcut's gradient is set, another's added to, whatever the others' are.
                let dr = residual.then(|| arena.sink(s, to, !relu));
                let mut all = vec![Output::Gradient(dx.to), Output::Span(ds.to), Output::Span(db.to)];
                all.extend(dr.map(|dr| Output::Gradient(dr.to)));
                arena.run(&all, |on| on.batch_norm_grad(&bn, dy, Some(dx), dr, ds, db));
                let (ds, db) = (arena.span_sink(s.c, !add), arena.span_sink(s.c, add));
                arena.run(&[ds.to, db.to].map(Output::Span), |on| on.batch_norm_grad(&bn, dy, None, None, ds, db));
                if residual {
                    let (dr, ds, db) = (arena.sink(s, from, add), arena.span_sink(s.c, add), arena.span_sink(s.c, add));
                    let all = [Output::Gradient(dr.to), Output::Span(ds.to), Output::Span(db.to)];
                    arena.run(&all, |on| on.batch_norm_grad(&bn, dy, None, Some(dr), ds, db));
                }
                let y = arena.result(s, to);
                arena.run(&[Output::Value(y)], |on| on.batch_norm_inference(&bn, y));
            });
        }
    }
}

#[test]
fn batch_norm_and_its_gradient_follow_the_definition() {
    check("batch_norm", 1.0, 0.3);
}

#[test]
fn batch_norm_keeps_its_precision_when_the_mean_is_far_larger_than_the_spread() {
    check("batch_norm far from zero", 1.0, 1000.0);
    check("batch_norm of tiny values", 1e-4, 0.0);
}

#[test]
fn a_constant_channel_is_normalised_to_its_shift() {
    let s = Shape::images(17, 2, 3, 3);
    on_every_device("batch_norm of a constant", |arena| {
        let bn = describe(arena, s, &vec![0.7; s.len()], 0, false, false);
        let y = arena.result(s, 1);
        let moved = [bn.running_mean, bn.running_variance, bn.batch].map(Output::Span);
        arena.run(&[&[Output::Value(y)], &moved[..]].concat(), |on| on.batch_norm(&bn, y));
    });
}
