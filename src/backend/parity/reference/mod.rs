//! A backend of loops that follow the formulas, in f64 with error bounds: what a device must compute, and how far it may be off.
//!
//! Activations lie as (N, C, H, W) without halos. Nothing here is fast.

mod batch_norm;
mod conv;
mod dropout;
mod loss;
mod masks;
mod optimiser;
mod pool;

use super::bounded::Bounded;
use crate::Result;
use crate::backend::*;
use crate::bitmask::BitMask;
use crate::shape::Shape;

/// The most f32 additions that a value goes through in a sum over a whole channel: devices keep such sums in f64, or in trees.
const CHANNEL_DEPTH: usize = 40;

/// The f64 reference.
pub(crate) struct Reference {
    memory: Vec<Bounded>,
    layers: Vec<masks::Layer>,
    step: StepState,
    precision: Precision,
}

impl Reference {
    pub(crate) fn new() -> Self {
        let step = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: Extent::Dense };
        Reference { memory: vec![], layers: vec![], step, precision: Precision::F32 }
    }

    /// The same in another precision: f64 all the same, but rounded once where a device of that precision stores a map.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Reference { precision, ..self }
    }

    pub(crate) fn bounded(&self, span: Span) -> Vec<Bounded> {
        self.memory[span.at..][..span.len].to_vec()
    }

    pub(crate) fn bounded_map(&self, map: Map) -> Vec<Bounded> {
        self.bounded(span(map))
    }

    /// Writes f64 values, which `write` cannot.
    pub(crate) fn write_exact(&mut self, to: Span, values: &[f64]) {
        self.set(Sink { to, add: false }, values.iter().map(|&x| Bounded::exact(x)).collect());
    }

    fn set(&mut self, sink: Sink<Span>, values: Vec<Bounded>) {
        assert_eq!(sink.to.len, values.len());
        for (to, x) in self.memory[sink.to.at..].iter_mut().zip(values) {
            *to = if sink.add { *to + x } else { x };
        }
    }

    fn set_map(&mut self, sink: Sink<Map>, values: Vec<Bounded>) {
        let place = span(sink.to);
        self.set(Sink { to: place, add: sink.add }, values);
        for x in &mut self.memory[place.at..][..place.len] {
            *x = x.stored(sink.to.precision);
        }
    }
}

/// The place of a map.
fn span(map: Map) -> Span {
    Span { at: map.at, len: map.shape.len() }
}

/// The position of a value.
fn at(s: Shape, n: usize, c: usize, i: usize, j: usize) -> usize {
    ((n * s.c + c) * s.h + i) * s.w + j
}

/// The positions of a channel's values, image by image.
fn of_channel(s: Shape, c: usize) -> impl Iterator<Item = usize> + Clone {
    (0..s.n).flat_map(move |n| (0..s.pixels()).map(move |pixel| (n * s.c + c) * s.pixels() + pixel))
}

/// The channel of a position.
fn channel(s: Shape, at: usize) -> usize {
    at / s.pixels() % s.c
}

fn set<T>(to: T) -> Sink<T> {
    Sink { to, add: false }
}

impl Backend for Reference {
    fn device(&self) -> String {
        "f64 reference".into()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn map_len(&self, map: Map) -> usize {
        map.shape.len()
    }

    fn reserve(&mut self, len: usize) -> Result<()> {
        self.memory.resize(len.max(self.memory.len()), Bounded::default());
        Ok(())
    }

    fn write(&mut self, to: Span, values: &[f32]) -> Result<()> {
        self.set(set(to), values.iter().map(|&x| x.into()).collect());
        Ok(())
    }

    fn read(&mut self, from: Span) -> Result<Vec<f32>> {
        Ok(self.bounded(from).iter().map(|x| x.value as f32).collect())
    }

    fn write_map(&mut self, to: Map, values: &[f32]) -> Result<()> {
        self.set_map(set(to), values.iter().map(|&x| x.into()).collect());
        Ok(())
    }

    fn read_map(&mut self, from: Map) -> Result<Vec<f32>> {
        self.read(span(from))
    }

    fn register(&mut self, weights: &[Weight]) -> Result<()> {
        self.layers = weights.iter().map(|&w| masks::Layer::new(w)).collect();
        Ok(())
    }

    fn write_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()> {
        self.layers[layer].mask = (0..mask.len()).map(|i| mask.get(i)).collect();
        Ok(())
    }

    fn read_mask(&mut self, layer: usize) -> Result<BitMask> {
        let mask = &self.layers[layer].mask;
        Ok(BitMask::from_fn(mask.len(), |i| mask[i]))
    }

    fn random_mask(&mut self, draw: &Draw) -> Result<()> {
        self.draw_masks(draw);
        Ok(())
    }

    fn read_random_mask(&mut self, layer: usize) -> Result<BitMask> {
        let mask = &self.layers[layer].random;
        Ok(BitMask::from_fn(mask.len(), |i| mask[i]))
    }

    fn effective_weights(&mut self, which: Effective, leaks: &[Span]) -> Result<()> {
        for layer in 0..self.layers.len() {
            let value = self.layers[layer].weight.value;
            let exact = self.sample(layer, value, which, leaks.get(layer).copied());
            self.layers[layer].effective = exact.into_iter().map(|w| w.stored(self.precision)).collect();
        }
        Ok(())
    }

    fn begin_step(&mut self, state: StepState) -> Result<()> {
        self.step = state;
        Ok(())
    }

    fn conv2d(&mut self, x: Map, w: Weight, conv: Conv, y: Map) -> Result<()> {
        self.convolve(x, w, conv, None, y);
        Ok(())
    }

    fn conv2d_add(&mut self, x: Map, w: Weight, conv: Conv, residual: Map, y: Map) -> Result<()> {
        if y.precision == Precision::F32 {
            self.convolve(x, w, conv, Some(residual), y);
            return Ok(());
        }
        self.conv2d(x, w, conv, y)?;
        self.add(y, residual, y)
    }

    fn conv2d_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.convolve_grad_input(dy, w, conv, dx);
        Ok(())
    }

    fn conv2d_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()> {
        self.convolve_grad_weight(x, dy, w, conv, add);
        Ok(())
    }

    fn add_bias(&mut self, x: Map, bias: Span, y: Map) -> Result<()> {
        let bias = self.bounded(bias);
        let sum = |(i, x)| x + bias[channel(y.shape, i)];
        self.set_map(set(y), self.bounded_map(x).into_iter().enumerate().map(sum).collect());
        Ok(())
    }

    fn bias_grad(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        self.sum_channels(dy, db);
        Ok(())
    }

    fn batch_norm(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise(bn, y);
        Ok(())
    }

    fn batch_norm_inference(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise_by_running(bn, y);
        Ok(())
    }

    fn batch_norm_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()> {
        self.normalise_grad(bn, dy, dx, dresidual, dscale, dshift);
        Ok(())
    }

    fn relu(&mut self, x: Map, y: Map) -> Result<()> {
        self.set_map(set(y), self.bounded_map(x).into_iter().map(Bounded::rectified).collect());
        Ok(())
    }

    fn relu_grad(&mut self, y: Map, dy: Map, dx: Sink<Map>) -> Result<()> {
        let pass = |(y, dy): (Bounded, Bounded)| if y.value > 0.0 { dy } else { Bounded::default() };
        self.set_map(dx, self.bounded_map(y).into_iter().zip(self.bounded_map(dy)).map(pass).collect());
        Ok(())
    }

    fn add(&mut self, a: Map, b: Map, y: Map) -> Result<()> {
        self.set_map(set(y), self.bounded_map(a).into_iter().zip(self.bounded_map(b)).map(|(a, b)| a + b).collect());
        Ok(())
    }

    fn copy(&mut self, x: Map, y: Sink<Map>) -> Result<()> {
        self.set_map(y, self.bounded_map(x));
        Ok(())
    }

    fn max_pool(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()> {
        self.pool_max(x, window, conv, y);
        Ok(())
    }

    fn max_pool_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.pool_max_grad(x, dy, window, conv, dx);
        Ok(())
    }

    fn average_pool(&mut self, x: Map, y: Map) -> Result<()> {
        self.pool_average(x, y);
        Ok(())
    }

    fn average_pool_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.pool_average_grad(dy, dx);
        Ok(())
    }

    fn dropout(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()> {
        self.drop_values(x, p, site, y);
        Ok(())
    }

    // (N, C, H, W) in memory is (N, C H W) already.
    fn flatten(&mut self, x: Map, y: Map) -> Result<()> {
        self.copy(x, set(y))
    }

    fn flatten_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.copy(dy, dx)
    }

    fn softmax_cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        self.cross_entropy(logits, targets, loss);
        Ok(())
    }

    fn softmax_cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        self.cross_entropy_grad(logits, targets, dlogits);
        Ok(())
    }

    fn sgd(&mut self, rule: Sgd, updates: &[Update]) -> Result<()> {
        updates.iter().for_each(|update| self.step_sgd(rule, update));
        Ok(())
    }

    fn adam(&mut self, rule: Adam, updates: &[Update], second: &[Span]) -> Result<()> {
        updates.iter().zip(second).for_each(|(update, &second)| self.step_adam(rule, update, second));
        Ok(())
    }

    fn average(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) -> Result<()> {
        let sample = match masked {
            Some((weight, which, leak)) => self.sample(weight.layer, value, which, leak),
            None => self.bounded(value),
        };
        let count = Bounded::exact(f64::from(n) + 1.0);
        let mean = |(a, x): (Bounded, Bounded)| a + (x - a) * (Bounded::exact(1.0) / count);
        self.set(set(average), self.bounded(average).into_iter().zip(sample).map(mean).collect());
        Ok(())
    }

    fn prune_and_grow(&mut self, jobs: &[PruneAndGrow]) -> Result<()> {
        jobs.iter().for_each(|job| self.update_mask(job));
        Ok(())
    }

    fn prune_globally(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()> {
        self.keep_largest(weights, keep);
        Ok(())
    }

    fn mean_magnitude(&mut self, weight: Weight, of: Span) -> Result<f64> {
        let mask = &self.layers[weight.layer].mask;
        let inside = self.bounded(of).into_iter().zip(mask).filter(|(_, inside)| **inside);
        let (sum, count) = inside.fold((0.0, 0), |(s, n), (x, _)| (s + x.value.abs(), n + 1));
        Ok(sum / f64::from(count.max(1)))
    }
}
