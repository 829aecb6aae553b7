//! Batch normalisation with the formulas of its definition.

use super::{CHANNEL_DEPTH, Reference, channel, of_channel, set};
use crate::backend::parity::bounded::{Accumulator, Bounded};
use crate::backend::{BatchNorm, Map, Sink, Span};

/// Mean and biased variance. A device may subtract any value of the channel first, so rounding is bounded with the value that
/// lies farthest from the mean: then mean (x - s)^2 is at most the variance plus its squared distance.
fn statistics(x: &[f64]) -> (Bounded, Bounded) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares = x.iter().map(|x| (x - mean).powi(2));
    let variance = squares.clone().sum::<f64>() / n;
    let spread = variance + squares.fold(0.0, f64::max);
    let roundings = CHANNEL_DEPTH as f64;
    let mean = Bounded::after(1.0, roundings * spread.sqrt() + mean.abs(), mean);
    (mean, Bounded::after(4.0 * roundings, spread, variance))
}

impl Reference {
    pub(super) fn normalise(&mut self, bn: &BatchNorm, y: Map) {
        let s = bn.x.shape;
        let x = self.bounded_map(bn.x);
        let count = (s.n * s.pixels()) as f64;
        let momentum = Bounded::from(self.step.statistics_momentum);
        let all: Vec<_> =
            (0..s.c).map(|c| statistics(&of_channel(s, c).map(|i| x[i].value).collect::<Vec<_>>())).collect();
        let inverse = |v: Bounded| Bounded::exact(1.0) / (v + bn.epsilon.into()).sqrt();
        let batch = all.iter().map(|a| a.0).chain(all.iter().map(|a| inverse(a.1))).collect();
        self.set(set(bn.batch), batch);
        let moved = |old: Vec<Bounded>, new: &dyn Fn(usize) -> Bounded| -> Vec<Bounded> {
            old.into_iter().enumerate().map(|(c, old)| old + momentum * (new(c) - old)).collect()
        };
        let unbiased = Bounded::exact(count / (count - 1.0));
        self.set(set(bn.running_mean), moved(self.bounded(bn.running_mean), &|c| all[c].0));
        self.set(set(bn.running_variance), moved(self.bounded(bn.running_variance), &|c| all[c].1 * unbiased));
        self.apply(bn, &all, y);
    }

    pub(super) fn normalise_by_running(&mut self, bn: &BatchNorm, y: Map) {
        let running = self.bounded(bn.running_mean).into_iter().zip(self.bounded(bn.running_variance));
        self.apply(bn, &running.collect::<Vec<_>>(), y);
    }

    fn apply(&mut self, bn: &BatchNorm, statistics: &[(Bounded, Bounded)], y: Map) {
        let out = self.before_relu(bn, statistics);
        let end = |y: Bounded| if bn.relu { y.rectified() } else { y };
        self.set_map(set(y), out.into_iter().map(end).collect());
    }

    /// gamma x^ + beta and the residual, multiplied out as a x + (beta - a mean), which rounds worse than (x - mean) first.
    fn before_relu(&self, bn: &BatchNorm, statistics: &[(Bounded, Bounded)]) -> Vec<Bounded> {
        let (scale, shift) = (self.bounded(bn.scale), self.bounded(bn.shift));
        let residual = bn.residual.map(|residual| self.bounded_map(residual));
        let affine = |(i, x): (usize, Bounded)| {
            let c = channel(bn.x.shape, i);
            let (mean, variance) = statistics[c];
            let a = scale[c] * (Bounded::exact(1.0) / (variance + bn.epsilon.into()).sqrt());
            let y = a * x + (shift[c] - mean * a);
            residual.as_ref().map_or(y, |residual| y + residual[i])
        };
        self.bounded_map(bn.x).into_iter().enumerate().map(affine).collect()
    }

    pub(super) fn normalise_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) {
        let s = bn.x.shape;
        let (x, mut grad) = (self.bounded_map(bn.x), self.bounded_map(dy));
        let (scale, batch) = (self.bounded(bn.scale), self.bounded(bn.batch));
        if bn.relu {
            let shift = self.bounded(bn.shift);
            let residual = bn.residual.map(|residual| self.bounded_map(residual));
            for (i, grad) in grad.iter_mut().enumerate() {
                let c = channel(s, i);
                let a = scale[c] * batch[s.c + c];
                let y = a * x[i] + (shift[c] - batch[c] * a);
                let y = residual.as_ref().map_or(y, |residual| y + residual[i]);
                let passed = if y.value > 0.0 { grad.value } else { 0.0 };
                // Where rounding leaves the sign of y open, a device may take either side.
                let open = if y.value.abs() <= y.error { grad.value.abs() } else { 0.0 };
                *grad = Bounded { value: passed, error: grad.error + open };
            }
        }
        let m = Bounded::exact((s.n * s.pixels()) as f64);
        let (mut dx_values, mut ds, mut db) = (vec![Bounded::default(); s.len()], vec![], vec![]);
        for c in 0..s.c {
            let (mean, inverse) = (batch[c], batch[s.c + c]);
            let (mut sum, mut product) = (Accumulator::default(), Accumulator::default());
            for i in of_channel(s, c) {
                sum.push(grad[i]);
                product.push_product(grad[i], x[i] - mean);
            }
            let (sum, product) = (sum.sum(CHANNEL_DEPTH), product.sum(CHANNEL_DEPTH) * inverse);
            // dx = a (dy' - sum / m - x^ product / m), again multiplied out.
            let a = scale[c] * inverse;
            let curve = -(a * inverse * product / m);
            let constant = -(a * sum / m) - curve * mean;
            of_channel(s, c).for_each(|i| dx_values[i] = a * grad[i] + (curve * x[i] + constant));
            ds.push(product);
            db.push(sum);
        }
        if let Some(dx) = dx {
            self.set_map(dx, dx_values);
        }
        if let Some(dresidual) = dresidual {
            self.set_map(dresidual, grad);
        }
        self.set(dscale, ds);
        self.set(dshift, db);
    }

    pub(super) fn sum_channels(&mut self, dy: Map, db: Sink<Span>) {
        let grad = self.bounded_map(dy);
        let channel = |c| {
            let mut sum = Accumulator::default();
            of_channel(dy.shape, c).for_each(|i| sum.push(grad[i]));
            sum.sum(CHANNEL_DEPTH)
        };
        self.set(db, (0..dy.shape.c).map(channel).collect());
    }
}
