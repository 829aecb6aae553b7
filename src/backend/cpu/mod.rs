//! The CPU: every method of [`Backend`] in Rust, with threads and vectors. Also the reference that other devices are held to.
//!
//! Work is divided by the shape alone, never by the number of threads, and nothing is reduced across tasks: the same bits on any
//! thread count.

mod batch_norm;
mod conv;
mod effective;
mod grid;
mod loss;
mod masks;
mod memory;
mod optimiser;
mod pointwise;
mod pool;
mod rearrange;
mod select;
pub(crate) mod simd;
mod smallest;

pub use conv::{Crossover, crossovers};
pub use simd::Level;

use grid::Grid;
use masks::Layer;
use memory::Memory;
use pointwise::{Identity, Offset, Rectify, RectifyGrad, Sum};
use rayon::prelude::*;

use crate::Result;
use crate::backend::*;
use crate::bitmask::BitMask;

/// The CPU backend.
pub struct Cpu {
    memory: Memory,
    /// What a convolution of a single image sees, where it does not lie as its output does.
    copies: Vec<f32>,
    /// Whether plans may fuse batch norms with convolutions; they may not only to compare.
    fuses: bool,
    layers: Vec<Layer>,
    step: StepState,
    level: Level,
    precision: Precision,
}

impl Cpu {
    /// A CPU backend in f32 without memory yet, on rayon's current thread pool.
    pub fn new() -> Self {
        Self::with_level(Level::detect())
    }

    /// As [`Cpu::new`], with the kernels of one instruction set, which the machine must have.
    pub(crate) fn with_level(level: Level) -> Self {
        let step = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: Extent::Dense };
        let precision = Precision::F32;
        Cpu { memory: Memory::default(), copies: vec![], fuses: true, layers: vec![], step, level, precision }
    }

    /// The same in another precision. Memory stays f32: bf16 is for comparing with a device that has it, so results are computed as ever
    /// and rounded where that device stores them in bf16.
    pub fn with_precision(self, precision: Precision) -> Self {
        Cpu { precision, ..self }
    }

    /// The same, every step by itself.
    #[cfg(test)]
    pub(crate) fn without_fusing(self) -> Self {
        Cpu { fuses: false, ..self }
    }

    /// Ends every method that writes a map: rounds what lies there to what the map's precision can hold.
    fn store(&mut self, map: Map) -> Result<()> {
        if map.precision != Precision::F32 {
            let values = self.memory.get_mut(map).par_iter_mut().with_min_len(16 * 1024);
            values.for_each(|x| *x = map.precision.round(*x));
        }
        Ok(())
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Cpu {
    fn device(&self) -> String {
        let simd = match self.level {
            Level::Portable => "portable",
            Level::Avx2 => "AVX2",
            Level::Avx512 => "AVX-512",
        };
        let threads = rayon::current_num_threads();
        let rounded = if self.precision == Precision::F32 { String::new() } else { format!(", {}", self.precision) };
        format!("cpu ({threads} thread{}, {simd}{rounded})", if threads == 1 { "" } else { "s" })
    }

    fn works_on_pool(&self) -> bool {
        true
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    // Floats, whatever the precision.
    fn map_len(&self, map: Map) -> usize {
        Grid::of(map).len()
    }

    fn reserve(&mut self, len: usize) -> Result<()> {
        self.memory.reserve(len)
    }

    fn write(&mut self, to: Span, values: &[f32]) -> Result<()> {
        self.memory.get_mut(to).copy_from_slice(values);
        self.layers.iter_mut().for_each(|layer| layer.cleared = false);
        Ok(())
    }

    fn read(&mut self, from: Span) -> Result<Vec<f32>> {
        Ok(self.memory.get(from).to_vec())
    }

    fn write_map(&mut self, to: Map, values: &[f32]) -> Result<()> {
        self.scatter_images(to, values);
        self.store(to)
    }

    fn read_map(&mut self, from: Map) -> Result<Vec<f32>> {
        Ok(self.gather_images(from))
    }

    fn register(&mut self, weights: &[Weight]) -> Result<()> {
        self.layers = weights.iter().map(|&w| Layer::new(w)).collect();
        Ok(())
    }

    fn write_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()> {
        self.layers[layer].set_mask(mask.clone());
        Ok(())
    }

    fn read_mask(&mut self, layer: usize) -> Result<BitMask> {
        Ok(self.layers[layer].mask.clone())
    }

    fn random_mask(&mut self, draw: &Draw) -> Result<()> {
        self.draw_masks(draw);
        Ok(())
    }

    fn read_random_mask(&mut self, layer: usize) -> Result<BitMask> {
        Ok(self.layers[layer].random.clone())
    }

    fn effective_weights(&mut self, which: Effective, leaks: &[Span]) -> Result<()> {
        self.apply_masks(which, leaks);
        Ok(())
    }

    fn begin_step(&mut self, state: StepState) -> Result<()> {
        self.step = state;
        Ok(())
    }

    // Another precision rounds between the steps that fusing joins.
    fn fuses_batch_norm(&self) -> bool {
        self.fuses && self.precision == Precision::F32
    }

    fn forms_operands(&self, shape: Shape) -> bool {
        self.fuses_batch_norm() && conv::forms_operands(shape)
    }

    fn fused_conv2d(&mut self, product: &Product, y: Map) -> Result<()> {
        self.convolve(product, y);
        Ok(())
    }

    fn fused_conv2d_grad(&mut self, product: &Product, dy: Map, add: bool, dx: Option<Sink<Map>>) -> Result<()> {
        self.convolve_grad(product.x, dy, product.weight, product.conv, add, dx);
        Ok(())
    }

    fn batch_statistics(&mut self, bn: &BatchNorm) -> Result<()> {
        self.take_statistics(bn);
        Ok(())
    }

    fn batch_norm_by_batch(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise_by_batch(bn, y);
        Ok(())
    }

    fn batch_norm_grad_by_result(
        &mut self,
        bn: &BatchNorm,
        y: Map,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        parameters: [Sink<Span>; 2],
    ) -> Result<()> {
        self.normalise_grad(bn, Some(y), dy, dx, dresidual, parameters);
        Ok(())
    }

    fn conv2d(&mut self, x: Map, weight: Weight, conv: Conv, y: Map) -> Result<()> {
        self.convolve(&Product { x: Operand::Stored(x), weight, conv, residual: None, statistics: None }, y);
        self.store(y)
    }

    fn conv2d_add(&mut self, x: Map, w: Weight, conv: Conv, residual: Map, y: Map) -> Result<()> {
        if self.precision == Precision::F32 {
            let x = Operand::Stored(x);
            self.convolve(&Product { x, weight: w, conv, residual: Some(residual), statistics: None }, y);
            return Ok(());
        }
        self.conv2d(x, w, conv, y)?;
        self.copy(residual, Sink { to: y, add: true })
    }

    fn conv2d_batch_norm(&mut self, x: Map, w: Weight, conv: Conv, bn: &BatchNorm, y: Map) -> Result<()> {
        let affine = self.running_affine(bn);
        if self.precision == Precision::F32 {
            self.convolve_and_normalise(x, w, conv, &affine, bn, y);
            return Ok(());
        }
        self.conv2d(x, w, conv, y)?;
        self.normalise_in_place(&affine, bn, y);
        self.store(y)
    }

    fn conv2d_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.convolve_grad_input(dy, w, conv, dx);
        self.store(dx.to)
    }

    fn conv2d_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()> {
        self.convolve_grad(Operand::Stored(x), dy, w, conv, add, None);
        Ok(())
    }

    fn add_bias(&mut self, x: Map, bias: Span, y: Map) -> Result<()> {
        let bias = self.memory.get(bias).to_vec();
        self.pointwise([x], Sink { to: y, add: false }, |c| Offset(bias[c]));
        self.store(y)
    }

    fn bias_grad(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        let grid = Grid::of(dy);
        let values = self.memory.get(dy);
        let channel = |c: usize| {
            let plane = |b: usize| grid.plane_of(values, b, c).iter().map(|&x| f64::from(x)).sum::<f64>();
            (0..grid.blocks).map(plane).sum::<f64>() as f32
        };
        let sums: Vec<f32> = (0..grid.shape.c).into_par_iter().map(channel).collect();
        for (to, sum) in self.memory.get_mut(db.to).iter_mut().zip(sums) {
            *to = if db.add { *to + sum } else { sum };
        }
        Ok(())
    }

    fn batch_norm(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.take_statistics(bn);
        self.normalise_by_batch(bn, y);
        self.store(y)
    }

    fn batch_norm_inference(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise_by_running(bn, y);
        self.store(y)
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
        self.normalise_grad(bn, None, dy, dx, dresidual, [dscale, dshift]);
        dx.into_iter().chain(dresidual).try_for_each(|sink| self.store(sink.to))
    }

    fn relu(&mut self, x: Map, y: Map) -> Result<()> {
        self.pointwise([x], Sink { to: y, add: false }, |_| Rectify);
        self.store(y)
    }

    fn relu_grad(&mut self, y: Map, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.pointwise([y, dy], dx, |_| RectifyGrad);
        self.store(dx.to)
    }

    fn add(&mut self, a: Map, b: Map, y: Map) -> Result<()> {
        let y = Sink { to: y, add: false };
        if a == b {
            self.pointwise([a], y, |_| Identity);
            self.pointwise([a], Sink { add: true, ..y }, |_| Identity);
        } else {
            self.pointwise([a, b], y, |_| Sum);
        }
        self.store(y.to)
    }

    fn copy(&mut self, x: Map, y: Sink<Map>) -> Result<()> {
        self.pointwise([x], y, |_| Identity);
        self.store(y.to)
    }

    fn max_pool(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()> {
        self.pool_max(x, window, conv, y);
        self.store(y)
    }

    fn max_pool_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.pool_max_grad(x, dy, window, conv, dx);
        self.store(dx.to)
    }

    fn average_pool(&mut self, x: Map, y: Map) -> Result<()> {
        self.pool_average(x, y);
        self.store(y)
    }

    fn average_pool_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.pool_average_grad(dy, dx);
        self.store(dx.to)
    }

    fn dropout(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()> {
        self.drop_values(x, p, site, y);
        self.store(y.to)
    }

    fn flatten(&mut self, x: Map, y: Map) -> Result<()> {
        self.copy_planes_flat(x, Sink { to: y, add: false });
        self.store(y)
    }

    fn flatten_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.copy_planes_flat(dy, dx);
        self.store(dx.to)
    }

    fn softmax_cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        self.cross_entropy(logits, targets, loss);
        Ok(())
    }

    fn softmax_cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        self.cross_entropy_grad(logits, targets, dlogits);
        self.store(dlogits.to)
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
        self.average_in(value, masked, average, n);
        Ok(())
    }

    fn prune_and_grow(&mut self, jobs: &[PruneAndGrow]) -> Result<()> {
        self.update_masks(jobs);
        Ok(())
    }

    fn prune_globally(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()> {
        self.keep_largest(weights, keep);
        Ok(())
    }

    fn mean_magnitude(&mut self, weight: Weight, of: Span) -> Result<f64> {
        Ok(self.mean_inside(weight, of))
    }

    fn prefer(&mut self, layer: usize, sparse: bool) -> bool {
        self.layers[layer].prefer(sparse);
        true
    }
}
