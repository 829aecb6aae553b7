//! Bias, ReLU, addition, copies, dropout, flattening.

use super::arena::{Arena, Output};
use super::{on_every_device, values};
use crate::backend::{BatchNorm, Extent, Sink, Span, StepState};
use crate::shape::Shape;

/// (shape, halo of the inputs, halo of the results)
fn shapes() -> Vec<(Shape, usize, usize)> {
    let mut all = vec![];
    for (i, n) in [1, 15, 16, 17, 31, 33].into_iter().enumerate() {
        let c = [1, 3, 5, 8, 33, 65][i];
        for (j, (h, w)) in [(1, 1), (9, 7), (2, 5)].into_iter().enumerate() {
            all.push((Shape::images(n, c, h, w), i % 3, j));
        }
    }
    all.push((Shape::images(16, 2, 32, 32), 1, 0));
    all
}

/// Runs one case for each shape and sink.
fn everywhere(name: &str, case: impl Fn(&mut Arena, Shape, usize, usize, bool) + Sync) {
    for (shape, from, to) in shapes() {
        for add in [false, true] {
            let name = format!("{name} of {shape}, halos {from} and {to}, add {add}");
            on_every_device(&name, |arena| case(arena, shape, from, to, add));
        }
    }
}

#[test]
fn bias_is_added_to_each_channel_and_its_gradient_is_their_sum() {
    everywhere("bias", |arena, s, from, to, add| {
        let x = arena.value(s, from, &values(s.len(), 1));
        let bias = arena.span(&values(s.c, 2));
        let y = arena.result(s, to);
        arena.run(&[Output::Value(y)], |on| on.add_bias(x, bias, y));
        let dy = arena.gradient(s, from, &values(s.len(), 3));
        let db = arena.span_sink(s.c, add);
        arena.run(&[Output::Span(db.to)], |on| on.bias_grad(dy, db));
    });
}

#[test]
fn relu_passes_what_is_positive() {
    everywhere("relu", |arena, s, from, to, add| {
        let mut values_in = values(s.len(), 1);
        values_in.iter_mut().step_by(3).for_each(|x| *x = 0.0);
        let x = arena.value(s, from, &values_in);
        let y = arena.result(s, to);
        arena.run(&[Output::Value(y)], |on| on.relu(x, y));
        let dy = arena.gradient(s, 1, &values(s.len(), 3));
        let dx = arena.sink(s, to, add);
        arena.run(&[Output::Gradient(dx.to)], |on| on.relu_grad(y, dy, dx));
    });
}

#[test]
fn a_nan_is_not_hidden_by_relu() {
    let s = Shape::features(1, 2);
    for device in super::devices() {
        let case = |arena: &mut Arena| {
            let x = arena.value(s, 0, &[f32::NAN, -1.0]);
            let y = arena.result(s, 0);
            arena.run(&[Output::Value(y)], |on| {
                on.relu(x, y)?;
                let out = on.read_map(y)?;
                assert!(out[0].is_nan() && out[1] == 0.0, "{}: {out:?}", device.name);
                Ok(())
            });
            let [scale, shift, mean, variance] = [1.0, 0.5, 0.0, 1.0].map(|x| arena.span(&[x; 2]));
            let (running_mean, running_variance, batch, epsilon) = (mean, variance, Span::default(), 1e-5);
            let bn = BatchNorm {
                x,
                scale,
                shift,
                running_mean,
                running_variance,
                batch,
                epsilon,
                residual: None,
                relu: true,
            };
            arena.run(&[Output::Value(y)], |on| {
                on.batch_norm_inference(&bn, y)?;
                let out = on.read_map(y)?;
                assert!(out[0].is_nan() && out[1] == 0.0, "{}: {out:?}", device.name);
                Ok(())
            });
        };
        device.run(|on| Arena::play(on, 0, &case));
    }
}

#[test]
fn addition_and_copies_treat_each_value_alone() {
    everywhere("add", |arena, s, from, to, add| {
        let a = arena.value(s, from, &values(s.len(), 1));
        let b = arena.value(s, to, &values(s.len(), 2));
        let y = arena.result(s, to);
        arena.run(&[Output::Value(y)], |on| on.add(a, b, y));
        let twice = arena.result(s, from);
        arena.run(&[Output::Value(twice)], |on| on.add(a, a, twice));
        let dy = arena.gradient(s, from, &values(s.len(), 3));
        let dx = arena.sink(s, to, add);
        arena.run(&[Output::Gradient(dx.to)], |on| on.copy(dy, dx));
    });
}

#[test]
fn dropout_follows_its_draws_forward_and_back() {
    everywhere("dropout", |arena, s, from, to, add| {
        let state = StepState { seed: 1 << 40 | 3, step: 7, statistics_momentum: 0.1, extent: Extent::Dense };
        arena.prepare(|on| on.begin_step(state));
        let x = arena.value(s, from, &values(s.len(), 1));
        let dy = arena.gradient(s, from, &values(s.len(), 2));
        for (p, site) in [(0.3, 0), (0.5, 2), (0.9, 1)] {
            let y = arena.result(s, to);
            arena.run(&[Output::Value(y)], |on| on.dropout(x, p, site, Sink { to: y, add: false }));
            let dx = arena.sink(s, to, add);
            arena.run(&[Output::Gradient(dx.to)], |on| on.dropout(dy, p, site, dx));
        }
    });
}

#[test]
fn flattening_keeps_the_order_of_channels_rows_and_columns() {
    everywhere("flatten", |arena, s, from, to, add| {
        let rows = Shape::features(s.n, s.c * s.pixels());
        let x = arena.value(s, from, &values(s.len(), 1));
        let y = arena.result(rows, to);
        arena.run(&[Output::Value(y)], |on| on.flatten(x, y));
        let dy = arena.gradient(rows, to, &values(s.len(), 2));
        let dx = arena.sink(s, from, add);
        arena.run(&[Output::Gradient(dx.to)], |on| on.flatten_grad(dy, dx));
    });
}

#[test]
fn maps_are_read_as_they_were_written() {
    everywhere("write_map", |arena, s, from, _, _| {
        let y = arena.result(s, from);
        arena.run(&[Output::Gradient(y)], |on| on.write_map(y, &values(s.len(), 1)));
    });
}
