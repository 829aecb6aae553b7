//! Pooling and the loss.

use super::arena::Output;
use super::{on_every_device, values};
use crate::backend::Conv;
use crate::shape::Shape;

#[test]
fn max_pooling_takes_the_first_maximum_of_each_window() {
    let windows = [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 1, 1), (3, 3, 1), (1, 2, 0)];
    let shapes = [(1, 1, 3, 3), (15, 3, 9, 7), (16, 5, 4, 5), (33, 8, 6, 3), (17, 2, 32, 32)];
    for ((window, stride, padding), (n, c, h, w)) in windows.into_iter().flat_map(|w| shapes.map(|s| (w, s))) {
        let (s, conv) = (Shape::images(n, c, h, w), Conv { stride, padding });
        let size = |size: usize| (size + 2 * padding - window) / stride + 1;
        let out = Shape::images(n, c, size(h), size(w));
        for (add, ties) in [(false, true), (true, false)] {
            let mut x = values(s.len(), 1);
            if ties {
                // Few different values, all negative: every window has ties, and padding would win if it counted.
                x.iter_mut().for_each(|x| *x = (*x * 2.0).round() - 3.0);
            }
            on_every_device(&format!("max_pool {window} of {s}, {conv:?}, add {add}"), |arena| {
                let x = arena.value(s, 1, &x);
                let y = arena.result(out, usize::from(add));
                arena.run(&[Output::Value(y)], |on| on.max_pool(x, window, conv, y));
                let dy = arena.gradient(out, 2, &values(out.len(), 2));
                let dx = arena.sink(s, usize::from(ties), add);
                arena.run(&[Output::Gradient(dx.to)], |on| on.max_pool_grad(x, dy, window, conv, dx));
            });
        }
    }
}

#[test]
fn average_pooling_is_the_mean_of_each_channel() {
    for (n, c, h, w) in [(1, 1, 1, 1), (15, 3, 9, 7), (16, 65, 2, 5), (33, 5, 8, 8), (31, 33, 1, 3)] {
        let (s, out) = (Shape::images(n, c, h, w), Shape::features(n, c));
        for (add, halo) in [(false, 0), (true, 0), (false, 2), (true, 1)] {
            on_every_device(&format!("average_pool of {s}, add {add}"), |arena| {
                let x = arena.value(s, halo, &values(s.len(), 1));
                let y = arena.result(out, halo);
                arena.run(&[Output::Value(y)], |on| on.average_pool(x, y));
                let dy = arena.gradient(out, halo, &values(out.len(), 2));
                let dx = arena.sink(s, halo, add);
                arena.run(&[Output::Gradient(dx.to)], |on| on.average_pool_grad(dy, dx));
            });
        }
    }
}

#[test]
fn cross_entropy_and_its_gradient_follow_the_definition() {
    for (n, classes) in [(1, 2), (15, 10), (16, 3), (17, 100), (33, 10)] {
        let s = Shape::features(n, classes);
        // Logits of a confident network, among them ties for the largest.
        for (scale, add) in [(1.0, false), (30.0, true), (1000.0, false)] {
            let mut logits: Vec<f32> = values(s.len(), 1).iter().map(|x| x * scale).collect();
            logits[..2].fill(2.0 * scale);
            let mut targets: Vec<f32> = values(s.len(), 2).iter().map(|x| x.abs()).collect();
            for row in targets.chunks_mut(classes) {
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|t| *t /= sum);
            }
            on_every_device(&format!("cross-entropy of {s}, logits up to {scale}, add {add}"), |arena| {
                let (x, t) = (arena.exact(s, 1, &logits), arena.exact(s, 0, &targets));
                let loss = arena.poisoned(2);
                arena.run(&[Output::Span(loss)], |on| on.softmax_cross_entropy(x, t, loss));
                let dx = arena.sink(s, 0, add);
                arena.run(&[Output::Gradient(dx.to)], |on| on.softmax_cross_entropy_grad(x, t, dx));
            });
        }
    }
}
