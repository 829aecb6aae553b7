//! Softmax cross-entropy, image by image in f64: a thousandth of a step's time, and exact enough to be a reference.

use super::Cpu;
use super::grid::Grid;
use super::memory::Place;
use crate::backend::{Map, Sink, Span};

/// The logits of image `n`, less their maximum, and the logarithm of the sum of their exponentials.
fn row(values: &[f32], grid: Grid, n: usize) -> (Vec<f64>, f64) {
    let logits: Vec<f64> = (0..grid.shape.c).map(|k| f64::from(values[grid.at(n, k, 0, 0)])).collect();
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shifted: Vec<f64> = logits.iter().map(|x| x - most).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    (shifted, log_sum)
}

/// The lowest index among the maxima.
fn argmax(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, x)| if x > best.1 { (i, x) } else { best }).0
}

impl Cpu {
    pub(super) fn cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) {
        let (gx, gt) = (Grid::of(logits), Grid::of(targets));
        let [x, t, loss] = self.memory.apart([logits.range(), targets.range(), loss.range()]);
        let (mut sum, mut right) = (0.0, 0);
        for n in 0..gx.shape.n {
            let (shifted, log_sum) = row(x, gx, n);
            let target = |k: usize| f64::from(t[gt.at(n, k, 0, 0)]);
            // 0 times an infinite log-probability is 0: a class without target mass costs nothing.
            sum += shifted
                .iter()
                .enumerate()
                .filter(|&(k, _)| target(k) != 0.0)
                .map(|(k, x)| target(k) * (log_sum - x))
                .sum::<f64>();
            right += usize::from(argmax(shifted.into_iter()) == argmax((0..gx.shape.c).map(target)));
        }
        loss[0] = (sum / gx.shape.n as f64) as f32;
        loss[1] = right as f32;
    }

    pub(super) fn cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) {
        let (gx, gt, gd) = (Grid::of(logits), Grid::of(targets), Grid::of(dlogits.to));
        let [x, t, d] = self.memory.apart([logits.range(), targets.range(), dlogits.to.range()]);
        if !dlogits.add {
            d.fill(0.0);
        }
        for n in 0..gx.shape.n {
            let (shifted, log_sum) = row(x, gx, n);
            for (k, x) in shifted.into_iter().enumerate() {
                let target = f64::from(t[gt.at(n, k, 0, 0)]);
                d[gd.at(n, k, 0, 0)] += (((x - log_sum).exp() - target) / gx.shape.n as f64) as f32;
            }
        }
    }
}
