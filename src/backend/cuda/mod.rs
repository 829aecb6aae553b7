//! NVIDIA GPUs: each method of [`Backend`] is a short launch of hand-written kernels over a driver.
//!
//! Maps are NHWC with channels padded to a multiple of 8; they are stored in bf16 or f32, and all arithmetic on them is in f32.
//! The same code runs on the real driver and, for tests, on an engine that executes the kernels' sources on the CPU.

mod augment;
mod batch_norm;
mod calibration;
mod channels;
pub(crate) mod choice;
mod conv;
pub(crate) mod driver;
pub(crate) mod images;
pub(crate) mod kernels;
mod loss;
mod memory;
mod pool;
mod ptx;
#[cfg(test)]
mod ptx_probe;
mod rearrange;
pub(crate) mod roofline;
mod select;
mod update;
mod weights;

use std::collections::HashMap;

use driver::{Driver, Graph, card::Card, real::Real};
use kernels::{Each, Floats, StepPointer, Tensor};
use memory::Buffer;
use weights::Layers;

use crate::Result;
use crate::backend::*;
use crate::bitmask::BitMask;
use crate::calibration::Histogram;
use crate::data::Pixels;
use crate::error::Error;

/// `Step` of step.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct DeviceStep {
    seed: u64,
    step: u32,
    statistics_momentum: f32,
}

/// What a plan's launches are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replays {
    /// Made once, so that scratch memory has its size.
    Warm,
    /// Recorded.
    Captured(Graph),
}

/// The CUDA backend.
pub struct Cuda {
    precision: Precision,
    /// What spans and maps address.
    memory: Buffer,
    /// Space that a method uses while it runs: partial sums, counts.
    scratch: Buffer,
    step: Buffer,
    state: StepState,
    layers: Layers,
    /// By plan and whether dense gradients are wanted.
    replays: HashMap<(u64, bool), Replays>,
    /// The replay in progress, and whether it is being captured.
    replaying: Option<((u64, bool), bool)>,
    driver: Box<dyn Driver>,
}

impl Cuda {
    /// The GPU with this number, from 0, without memory yet.
    ///
    /// # Errors
    /// No driver, no such GPU, one that no embedded kernel fits and no compiler for another, or one whose memory is taken.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self> {
        Self::new(Box::new(Real::open(ordinal)?), precision)
    }

    /// How many GPUs there are.
    ///
    /// # Errors
    /// Why CUDA cannot be used at all.
    pub fn count() -> Result<usize> {
        Card::count()
    }

    /// The same kernels on the CPU, run by the engine that proves them: slow, for tests.
    #[cfg(simt)]
    pub fn simt(precision: Precision) -> Result<Self> {
        Self::new(Box::new(driver::simt::Simt::new(driver::simt::SCHEDULES[0])), precision)
    }

    /// A backend on a device, without memory yet.
    pub(crate) fn new(mut driver: Box<dyn Driver>, precision: Precision) -> Result<Self> {
        let mut step = Buffer::default();
        step.reserve(driver.as_mut(), size_of::<DeviceStep>())?;
        let state = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: Extent::Dense };
        let mut backend = Cuda {
            precision,
            memory: Buffer::default(),
            scratch: Buffer::default(),
            step,
            state,
            layers: Layers::default(),
            replays: HashMap::new(),
            replaying: None,
            driver,
        };
        backend.begin_step(state)?;
        Ok(backend)
    }

    fn driver(&mut self) -> &mut dyn Driver {
        self.driver.as_mut()
    }

    /// Drops all captured launches: they name places that are no more.
    fn forget_replays(&mut self) {
        self.replays.clear();
        self.driver.forget_graphs();
    }

    fn tensor(&self, map: Map) -> Tensor {
        self.memory.tensor(map)
    }

    /// A kernel's optional tensor: none has the address 0.
    fn tensor_or_none(&self, map: Option<Map>) -> Tensor {
        map.map_or_else(bytemuck::Zeroable::zeroed, |map| self.tensor(map))
    }

    fn floats(&self, span: Span) -> Floats {
        self.memory.floats(span)
    }

    fn step(&self) -> StepPointer {
        StepPointer(self.step.at)
    }

    /// Space for `bytes` bytes until the next call; what is in it is anything.
    fn scratch(&mut self, bytes: usize) -> Result<driver::Address> {
        if self.scratch.bytes < bytes {
            self.forget_replays();
            self.scratch.replace(self.driver.as_mut(), bytes)?;
        }
        Ok(self.scratch.at)
    }
}

impl Backend for Cuda {
    fn device(&self) -> String {
        self.driver.device()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn map_len(&self, map: Map) -> usize {
        memory::words(map.shape, map.precision)
    }

    fn reserve(&mut self, len: usize) -> Result<()> {
        let needed = |e| match e {
            Error::Resources(why) => {
                let mib = (4 * len).div_ceil(1 << 20);
                Error::Resources(format!("{why}; parameters, state and activations of the largest plan take {mib} MiB"))
            }
            e => e,
        };
        if self.memory.reserve(self.driver.as_mut(), 4 * len).map_err(needed)? {
            self.forget_replays();
        }
        Ok(())
    }

    fn write(&mut self, to: Span, values: &[f32]) -> Result<()> {
        let at = self.floats(to).0;
        self.driver.write(at, bytemuck::cast_slice(values))
    }

    fn read(&mut self, from: Span) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; from.len];
        let at = self.floats(from).0;
        self.driver.read(at, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn write_map(&mut self, to: Map, values: &[f32]) -> Result<()> {
        let at = self.tensor(to).at;
        let words = memory::to_device(values, to.shape, to.precision);
        self.driver.write(at, bytemuck::cast_slice(&words))
    }

    fn write_images(&mut self, to: Map, images: &Pixels) -> Result<()> {
        self.upload_images(to, images)
    }

    fn read_map(&mut self, from: Map) -> Result<Vec<f32>> {
        let mut words = vec![0u32; memory::words(from.shape, from.precision)];
        let at = self.tensor(from).at;
        self.driver.read(at, bytemuck::cast_slice_mut(&mut words))?;
        Ok(memory::from_device(&words, from.shape, from.precision))
    }

    fn register(&mut self, weights: &[Weight]) -> Result<()> {
        self.register_layers(weights)
    }

    fn write_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()> {
        self.upload_mask(layer, mask)
    }

    fn read_mask(&mut self, layer: usize) -> Result<BitMask> {
        self.download_mask(layer)
    }

    fn random_mask(&mut self, draw: &Draw) -> Result<()> {
        self.draw_masks(draw)
    }

    fn read_random_mask(&mut self, layer: usize) -> Result<BitMask> {
        self.download_random_mask(layer)
    }

    fn effective_weights(&mut self, which: Effective, leaks: &[Span]) -> Result<()> {
        self.apply_masks(which, leaks)
    }

    fn begin_step(&mut self, state: StepState) -> Result<()> {
        self.state = state;
        let StepState { seed, step, statistics_momentum, .. } = state;
        self.driver.write(self.step.at, bytemuck::bytes_of(&DeviceStep { seed, step, statistics_momentum }))
    }

    // The first replay runs and finds how much scratch memory it takes, the second is captured, the rest are one launch.
    fn begin_replay(&mut self, plan: u64) -> Result<bool> {
        let key = (plan, self.state.extent == Extent::Dense);
        match self.replays.get(&key) {
            Some(&Replays::Captured(graph)) => return self.driver.replay(graph).map(|()| true),
            Some(Replays::Warm) => {
                self.driver.begin_capture()?;
                self.replaying = Some((key, true));
            }
            None => self.replaying = Some((key, false)),
        }
        Ok(false)
    }

    fn end_replay(&mut self, complete: bool) -> Result<()> {
        let Some((key, captured)) = self.replaying.take() else { return Ok(()) };
        let graph = if captured { Some(self.driver.end_capture()?) } else { None };
        match graph {
            _ if !complete => self.forget_replays(),
            Some(graph) => {
                self.replays.insert(key, Replays::Captured(graph));
                self.driver.replay(graph)?;
            }
            None => {
                self.replays.insert(key, Replays::Warm);
            }
        }
        Ok(())
    }

    fn conv2d(&mut self, x: Map, w: Weight, conv: Conv, y: Map) -> Result<()> {
        self.convolve(x, w, conv, y)
    }

    fn conv2d_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.convolve_grad_input(dy, w, conv, dx)
    }

    fn conv2d_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()> {
        self.convolve_grad_weight(x, dy, w, conv, add)
    }

    fn add_bias(&mut self, x: Map, bias: Span, y: Map) -> Result<()> {
        let (x, bias, y) = (self.tensor(x), self.floats(bias), self.tensor(y));
        kernels::add_bias(self.driver(), Each(y.vectors()), x, bias, y)
    }

    fn bias_grad(&mut self, dy: Map, db: Sink<Span>) -> Result<()> {
        self.sum_channels(dy, db)
    }

    fn batch_norm(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise(bn, y)
    }

    fn batch_norm_inference(&mut self, bn: &BatchNorm, y: Map) -> Result<()> {
        self.normalise_by_running(bn, y)
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
        self.normalise_grad(bn, dy, dx, dresidual, dscale, dshift)
    }

    fn relu(&mut self, x: Map, y: Map) -> Result<()> {
        let (x, y) = (self.tensor(x), self.tensor(y));
        kernels::relu(self.driver(), Each(y.vectors()), x, y)
    }

    fn relu_grad(&mut self, y: Map, dy: Map, dx: Sink<Map>) -> Result<()> {
        let (y, dy, to) = (self.tensor(y), self.tensor(dy), self.tensor(dx.to));
        kernels::relu_grad(self.driver(), Each(to.vectors()), y, dy, to, dx.add.into())
    }

    fn add(&mut self, a: Map, b: Map, y: Map) -> Result<()> {
        let (a, b, y) = (self.tensor(a), self.tensor(b), self.tensor(y));
        kernels::add(self.driver(), Each(y.vectors()), a, b, y)
    }

    fn copy(&mut self, x: Map, y: Sink<Map>) -> Result<()> {
        let (x, to) = (self.tensor(x), self.tensor(y.to));
        kernels::copy(self.driver(), Each(to.vectors()), x, to, y.add.into())
    }

    fn max_pool(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()> {
        self.pool_max(x, window, conv, y)
    }

    fn max_pool_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()> {
        self.pool_max_grad(x, dy, window, conv, dx)
    }

    fn average_pool(&mut self, x: Map, y: Map) -> Result<()> {
        self.pool_average(x, y)
    }

    fn average_pool_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.pool_average_grad(dy, dx)
    }

    fn dropout(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()> {
        self.drop_values(x, p, site, y)
    }

    fn flatten(&mut self, x: Map, y: Map) -> Result<()> {
        self.flatten_images(x, y)
    }

    fn flatten_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()> {
        self.unflatten_rows(dy, dx)
    }

    fn softmax_cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()> {
        self.cross_entropy(logits, targets, loss)
    }

    fn softmax_cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()> {
        self.cross_entropy_grad(logits, targets, dlogits)
    }

    fn calibration_histogram(&mut self, logits: Map, labels: &[u32]) -> Result<Histogram> {
        self.tally(logits, labels)
    }

    fn sgd(&mut self, rule: Sgd, updates: &[Update]) -> Result<()> {
        self.step_sgd(rule, updates)
    }

    fn adam(&mut self, rule: Adam, updates: &[Update], second: &[Span]) -> Result<()> {
        self.step_adam(rule, updates, second)
    }

    fn update_and_mask(
        &mut self,
        rule: Rule,
        updates: &[Update],
        second: &[Span],
        next: Option<&Draw>,
        which: Effective,
    ) -> Result<()> {
        self.step_and_mask(rule, updates, second, next, which)
    }

    fn average(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) -> Result<()> {
        self.average_in(value, masked, average, n)
    }

    fn prune_and_grow(&mut self, jobs: &[PruneAndGrow]) -> Result<()> {
        self.update_masks(jobs)
    }

    fn prune_globally(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()> {
        self.keep_largest(weights, keep)
    }

    fn mean_magnitude(&mut self, weight: Weight, of: Span) -> Result<f64> {
        self.mean_inside(weight, of)
    }
}
