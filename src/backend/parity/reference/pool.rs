//! Pooling, window by window.

use super::{Reference, at, set};
use crate::backend::parity::bounded::Bounded;
use crate::backend::{Conv, Map, Sink};
use crate::shape::Shape;

/// The position in x of the first maximum of each window, in the order of the outputs.
fn maxima(x: &[Bounded], xs: Shape, window: usize, conv: Conv, ys: Shape) -> Vec<usize> {
    let mut first = Vec::new();
    for (n, c) in (0..ys.n).flat_map(|n| (0..ys.c).map(move |c| (n, c))) {
        for (i, j) in (0..ys.h).flat_map(|i| (0..ys.w).map(move |j| (i, j))) {
            let mut best: Option<usize> = None;
            for (k, l) in (0..window).flat_map(|k| (0..window).map(move |l| (k, l))) {
                let row = (i * conv.stride + k).checked_sub(conv.padding).filter(|&row| row < xs.h);
                let col = (j * conv.stride + l).checked_sub(conv.padding).filter(|&col| col < xs.w);
                let (Some(row), Some(col)) = (row, col) else { continue };
                let here = at(xs, n, c, row, col);
                if best.is_none_or(|best| x[here].value > x[best].value) {
                    best = Some(here);
                }
            }
            first.push(best.expect("a window covers at least one pixel"));
        }
    }
    first
}

impl Reference {
    pub(super) fn pool_max(&mut self, x: Map, window: usize, conv: Conv, y: Map) {
        let values = self.bounded_map(x);
        let first = maxima(&values, x.shape, window, conv, y.shape);
        self.set_map(set(y), first.into_iter().map(|at| values[at]).collect());
    }

    pub(super) fn pool_max_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) {
        let first = maxima(&self.bounded_map(x), x.shape, window, conv, dy.shape);
        let mut out = if dx.add { self.bounded_map(dx.to) } else { vec![Bounded::default(); x.shape.len()] };
        first.into_iter().zip(self.bounded_map(dy)).for_each(|(at, dy)| out[at] = out[at] + dy);
        self.set_map(set(dx.to), out);
    }

    pub(super) fn pool_average(&mut self, x: Map, y: Map) {
        let (values, pixels) = (self.bounded_map(x), x.shape.pixels());
        let share = Bounded::exact(1.0) / Bounded::exact(pixels as f64);
        let mean = |image: &[Bounded]| image.iter().copied().sum::<Bounded>() * share;
        self.set_map(set(y), values.chunks(pixels).map(mean).collect());
    }

    pub(super) fn pool_average_grad(&mut self, dy: Map, dx: Sink<Map>) {
        let pixels = dx.to.shape.pixels();
        let share = Bounded::exact(1.0) / Bounded::exact(pixels as f64);
        let spread = self.bounded_map(dy).into_iter().flat_map(|dy| std::iter::repeat_n(dy * share, pixels));
        self.set_map(dx, spread.collect());
    }
}
