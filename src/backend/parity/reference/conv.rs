//! Convolution as one list of products, from which all three passes follow.

use super::{Reference, at, set};
use crate::backend::parity::bounded::{Accumulator, Bounded};
use crate::backend::{Conv, Extent, Map, Sink, Weight};
use crate::shape::Shape;

/// Products that a device adds one after another in a weight gradient before it folds its partial sums.
const WEIGHT_GRADIENT_DEPTH: usize = 1100;

/// Calls `product(y, x, w)` with the positions of each term of `y[n, o, i, j] = sum w[o, k, l, c] x[n, c, s i + k - p, s j + l - p]`.
fn products(x: Shape, y: Shape, w: Weight, conv: Conv, mut product: impl FnMut(usize, usize, usize)) {
    let seen = |out: usize, tap: usize, size: usize| {
        (out * conv.stride + tap).checked_sub(conv.padding).filter(|&position| position < size)
    };
    let [rows, cols] = w.kernel;
    for (n, o) in (0..x.n).flat_map(|n| (0..w.out_channels).map(move |o| (n, o))) {
        for (i, j) in (0..y.h).flat_map(|i| (0..y.w).map(move |j| (i, j))) {
            for (k, l) in (0..rows).flat_map(|k| (0..cols).map(move |l| (k, l))) {
                let (Some(row), Some(col)) = (seen(i, k, x.h), seen(j, l, x.w)) else { continue };
                for c in 0..w.in_channels {
                    let element = ((o * rows + k) * cols + l) * w.in_channels + c;
                    product(at(y, n, o, i, j), at(x, n, c, row, col), element);
                }
            }
        }
    }
}

fn sums(all: Vec<Accumulator>, depth: usize) -> Vec<Bounded> {
    all.into_iter().map(|sum| sum.sum(depth)).collect()
}

impl Reference {
    /// A device may begin its sums with what is to be added.
    pub(super) fn convolve(&mut self, x: Map, w: Weight, conv: Conv, added: Option<Map>, y: Map) {
        let (input, weights) = (self.bounded_map(x), &self.layers[w.layer].effective);
        let mut out = vec![Accumulator::default(); y.shape.len()];
        products(x.shape, y.shape, w, conv, |y, x, w| out[y].push_product(input[x], weights[w]));
        if let Some(added) = added {
            self.bounded_map(added).into_iter().zip(&mut out).for_each(|(term, sum)| sum.push(term));
        }
        self.set_map(set(y), sums(out, usize::MAX));
    }

    pub(super) fn convolve_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) {
        let (grad, weights) = (self.bounded_map(dy), &self.layers[w.layer].effective);
        let mut out = vec![Accumulator::default(); dx.to.shape.len()];
        products(dx.to.shape, dy.shape, w, conv, |y, x, w| out[x].push_product(grad[y], weights[w]));
        // A device may go on from what is there, so that this too is added to term by term.
        if dx.add {
            self.bounded_map(dx.to).into_iter().zip(&mut out).for_each(|(before, sum)| sum.push(before));
        }
        self.set_map(set(dx.to), sums(out, usize::MAX));
    }

    pub(super) fn convolve_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) {
        let (input, grad) = (self.bounded_map(x), self.bounded_map(dy));
        let mut out = vec![Accumulator::default(); w.len()];
        products(x.shape, dy.shape, w, conv, |y, x, w| out[w].push_product(input[x], grad[y]));
        let before = self.bounded(w.grad);
        let new: Vec<Bounded> = sums(out, WEIGHT_GRADIENT_DEPTH)
            .into_iter()
            .zip(&before)
            .map(|(sum, &before)| if add { before + sum } else { sum })
            .collect();
        let wanted = |i: usize| self.step.extent == Extent::Dense || self.layers[w.layer].mask[i];
        let merged = (0..w.len()).map(|i| if wanted(i) { new[i] } else { before[i] }).collect();
        self.set(set(w.grad), merged);
    }
}
