//! One object-safe trait, one method a kernel: the contract every device keeps, and the list of what a device must do.
//!
//! A [`Plan`](crate::plan::Plan) replays its steps on a `Backend`. Shapes are checked once, when an op is recorded; backends
//! trust the plan. Whatever differs from step to step (step number, learning rate) is in [`StepState`].

pub mod cpu;
pub mod cuda;
#[cfg(test)]
pub(crate) mod parity;
mod precision;
pub mod sandbox;

pub use precision::Precision;

use crate::bitmask::BitMask;
use crate::calibration::Histogram;
use crate::data::Pixels;
use crate::rng::Domain;
use crate::{Result, Shape};

/// A range of f32 values that has no image layout: a parameter, its gradient, statistics. Offset and length in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// First element, from the start of the backend's memory.
    pub at: usize,
    /// Elements.
    pub len: usize,
}

/// An activation or its gradient: a logical (N, C, H, W) at an offset of the backend's memory, in the backend's own layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// First 4-byte word, from the start of the backend's memory.
    pub at: usize,
    /// The logical shape.
    pub shape: Shape,
    /// Pixels of zeros that some reader wants around each channel. A backend that does not need them ignores it.
    pub halo: usize,
    /// How its numbers are stored.
    pub precision: Precision,
    /// Only predictions go through it, no gradient ever belongs to it: a device may have a layout of its own for that.
    pub inference: bool,
}

/// Where a result goes, and whether it replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sink<T> {
    /// The place.
    pub to: T,
    /// Add to what is there; otherwise set it.
    pub add: bool,
}

/// A masked weight tensor: convolution (O, kH, kW, I), or linear (O, I) as kH = kW = 1.
///
/// `value` and `grad` are in that element order, which is also that of the mask's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Its ordinal among the masked tensors, in forward order.
    pub layer: usize,
    /// Master values.
    pub value: Span,
    /// The gradient of the loss with respect to the effective weights.
    pub grad: Span,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Kernel rows and columns.
    pub kernel: [usize; 2],
}

impl Weight {
    /// Elements.
    pub fn len(&self) -> usize {
        self.value.len
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.value.len == 0
    }
}

/// Stride and zero padding of a convolution, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
}

/// The effective weights that convolutions and linear layers multiply with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effective {
    /// M W: evaluation, and training without a random mask.
    Deterministic,
    /// Z M W, each layer times its scale (1, or 1 / keep).
    Random,
    /// M (Z ? W : leak), as the released code runs: a weight that Z drops holds minus its last update.
    Leaky,
}

/// Which elements of a weight's gradient are wanted. The others are unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those inside M.
    Active,
    /// All: growth by gradient looks outside the mask.
    Dense,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepState {
    /// Keys dropout.
    pub seed: u64,
    /// 0-based step.
    pub step: u32,
    /// The share of this batch in batch norm's running statistics.
    pub statistics_momentum: f32,
    /// How much of the weights' gradients to compute.
    pub extent: Extent,
}

/// One batch normalisation over a channel's batch and pixels.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Input.
    pub x: Map,
    /// gamma, one a channel.
    pub scale: Span,
    /// beta, one a channel.
    pub shift: Span,
    /// Running mean, one a channel.
    pub running_mean: Span,
    /// Running unbiased variance, one a channel.
    pub running_variance: Span,
    /// This batch's mean, then its 1 / sqrt(variance + epsilon): written forward, read backward.
    pub batch: Span,
    /// Added to the variance.
    pub epsilon: f32,
    /// A residual block's shortcut, added in the same pass: y = gamma x^ + beta + residual.
    pub residual: Option<Map>,
    /// Apply max(0, .) to the result in the same pass.
    pub relu: bool,
}

/// What a product multiplies weights with.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A map.
    Stored(Map),
    /// What [`Backend::batch_norm`] would make of a map, from the statistics in `batch`; formed where it is read, stored nowhere.
    Normalised(BatchNorm),
}

impl Operand {
    /// The map that is read.
    pub fn map(&self) -> Map {
        match self {
            Operand::Stored(map) => *map,
            Operand::Normalised(bn) => bn.x,
        }
    }
}

/// A convolution and what is done along the way.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// What is convolved.
    pub x: Operand,
    /// With what.
    pub weight: Weight,
    /// How.
    pub conv: Conv,
    /// Added to the result.
    pub residual: Option<Map>,
    /// The batch norm behind, whose statistics the result's are: what [`Backend::batch_statistics`] does besides.
    pub statistics: Option<BatchNorm>,
}

/// Random masks for all layers: Bernoulli bits keyed by (seed, domain, step, layer, element).
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Training or Monte-Carlo prediction.
    pub domain: Domain,
    /// 0-based step, or sample.
    pub step: u32,
    /// Keep probability of each layer.
    pub keep: &'a [f64],
    /// Effective weights are multiplied by 1 / keep.
    pub inverted: bool,
}

/// How the random mask enters an optimiser step of a masked weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Masking {
    /// No random mask: every element inside M is updated.
    Deterministic,
    /// Elements that Z drops keep value and momentum.
    Frozen,
    /// Elements that Z drops have gradient 0: their momentum decays and still moves them.
    Decay,
    /// The released code: all of M has gradient and momentum, but what Z drops keeps its value and leaks minus its update.
    Leaky(Span),
    /// SNFS: the momentum is dense, only the weights are masked.
    DenseMomentum,
}

/// One parameter's part of an optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Values.
    pub value: Span,
    /// Gradient.
    pub grad: Span,
    /// Momentum (SGD) or first moment (Adam).
    pub velocity: Span,
    /// The mask and how Z enters, for a masked weight.
    pub masked: Option<(Weight, Masking)>,
    /// L2 coefficient; the decay term is part of the gradient.
    pub weight_decay: f32,
}

/// SGD as PyTorch has it: v = mu v + g, then w -= lr (g + mu v) with Nesterov, w -= lr v without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// mu.
    pub momentum: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// Adam (Kingma & Ba 2015) with bias correction; decay is added to the gradient (L2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first and second moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// 1-based count of updates, for the bias correction.
    pub t: u64,
}

/// An optimiser's step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
}

/// What decides which positions outside the mask grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// The largest |gradient| (RigL).
    Gradient,
    /// The largest |momentum| (SNFS).
    Momentum,
    /// Uniformly at random (SET), keyed by (seed, step, layer, element).
    Random {
        /// The run's seed.
        seed: u64,
        /// 0-based step.
        step: u32,
    },
}

/// One layer's mask update: `drop` smallest |W| inside M go, then `grow` positions outside come.
#[derive(Clone, Copy, Debug)]
pub struct PruneAndGrow {
    /// The layer.
    pub weight: Weight,
    /// Weights to drop.
    pub drop: usize,
    /// Positions to grow, a just-dropped one among the candidates.
    pub grow: usize,
    /// What ranks the candidates.
    pub growth: Growth,
    /// The optimiser's momentum: zeroed where the mask is, unless it is dense.
    pub velocity: Span,
    /// SNFS keeps momentum outside the mask.
    pub dense_momentum: bool,
    /// What the released code ranks and clears instead of W where Z is 0.
    pub leak: Option<Span>,
}

/// A device.
pub trait Backend: Send {
    /// The device in a few words, for logs and summaries.
    fn device(&self) -> String;

    /// Whether rayon's threads do the work. Then the caller should be one of them: from outside, every kernel has to wake
    /// one up first.
    fn works_on_pool(&self) -> bool {
        false
    }

    /// What maps are stored in where a plan does not ask for [`Precision::F32`]; the effective weights too.
    ///
    /// Convolutions read maps of this precision only, and all gradients have it; any other map may have either.
    fn precision(&self) -> Precision;
    /// 4-byte words that a map takes in this backend's layout, wherever it lies.
    fn map_len(&self, map: Map) -> usize;
    /// Makes sure that `len` 4-byte words of memory are there; keeps what is in it, new memory is zero.
    fn reserve(&mut self, len: usize) -> Result<()>;
    /// Copies values in.
    fn write(&mut self, to: Span, values: &[f32]) -> Result<()>;
    /// Copies values out.
    fn read(&mut self, from: Span) -> Result<Vec<f32>>;
    /// Copies an activation in, from (N, C, H, W) order, rounded to the map's precision; the halo and padding images become 0.
    fn write_map(&mut self, to: Map, values: &[f32]) -> Result<()>;
    /// Copies images in: what [`Backend::write_map`] does of [`Pixels::normalised`]. A device may cut, resize and normalise by itself.
    fn write_images(&mut self, to: Map, images: &Pixels) -> Result<()> {
        self.write_map(to, &images.normalised())
    }
    /// Copies an activation out, in (N, C, H, W) order.
    fn read_map(&mut self, from: Map) -> Result<Vec<f32>>;

    /// Declares the masked weights, by ordinal. Masks start at all ones.
    fn register(&mut self, weights: &[Weight]) -> Result<()>;
    /// Replaces M of one layer. Values outside are not touched.
    fn write_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()>;
    /// M of one layer.
    fn read_mask(&mut self, layer: usize) -> Result<BitMask>;
    /// Draws Z for all layers.
    fn random_mask(&mut self, draw: &Draw) -> Result<()>;
    /// Z of one layer as last drawn.
    fn read_random_mask(&mut self, layer: usize) -> Result<BitMask>;
    /// Forms the effective weights of all layers from the master values and the masks, for the passes that follow.
    /// `leaks` holds one span a layer for [`Effective::Leaky`], else nothing.
    fn effective_weights(&mut self, which: Effective, leaks: &[Span]) -> Result<()>;

    /// Sets what the next replay may depend on.
    fn begin_step(&mut self, state: StepState) -> Result<()>;

    /// Announces the launches of a plan, always the same under one key and [`StepState::extent`]. Answers true when the device had them
    /// recorded and has run them; otherwise the caller makes them, and [`Backend::end_replay`] follows whatever became of them.
    fn begin_replay(&mut self, _plan: u64) -> Result<bool> {
        Ok(false)
    }
    /// The launches since [`Backend::begin_replay`] were made, all of them if `complete`.
    fn end_replay(&mut self, _complete: bool) -> Result<()> {
        Ok(())
    }

    /// Whether products fuse with the batch norms before and behind them. Plans ask for [`Backend::fused_conv2d`],
    /// [`Backend::fused_conv2d_grad`], [`Backend::batch_statistics`], [`Backend::batch_norm_by_batch`] and
    /// [`Backend::batch_norm_grad_by_result`] only where this is true.
    fn fuses_batch_norm(&self) -> bool {
        false
    }
    /// Whether it pays to form normalised operands of this shape anew for every product of stride 1, rather than to store them.
    fn forms_operands(&self, _shape: Shape) -> bool {
        false
    }
    /// y = conv(x, w) + residual, with everything that [`Product`] asks for.
    fn fused_conv2d(&mut self, _product: &Product, _y: Map) -> Result<()> {
        unreachable!("this device does not fuse")
    }
    /// dw and dx of [`Backend::fused_conv2d`], as [`Backend::conv2d_grad_weight`] and [`Backend::conv2d_grad_input`] give them.
    fn fused_conv2d_grad(&mut self, _product: &Product, _dy: Map, _add: bool, _dx: Option<Sink<Map>>) -> Result<()> {
        unreachable!("this device does not fuse")
    }
    /// What [`Backend::batch_norm`] does besides its result: the batch's statistics, which move the running ones.
    fn batch_statistics(&mut self, _bn: &BatchNorm) -> Result<()> {
        unreachable!("this device does not fuse")
    }
    /// The result of [`Backend::batch_norm`], of statistics that are there already.
    fn batch_norm_by_batch(&mut self, _bn: &BatchNorm, _y: Map) -> Result<()> {
        unreachable!("this device does not fuse")
    }
    /// What [`Backend::batch_norm_grad`] does with a residual and ReLU, which let pass what is positive in the result `y`. Does not look
    /// at the residual, which need not be there any more. `parameters` are dscale and dshift.
    fn batch_norm_grad_by_result(
        &mut self,
        _bn: &BatchNorm,
        _y: Map,
        _dy: Map,
        _dx: Option<Sink<Map>>,
        _dresidual: Option<Sink<Map>>,
        _parameters: [Sink<Span>; 2],
    ) -> Result<()> {
        unreachable!("this device does not fuse")
    }
    /// y = conv(x, w): cross-correlation, zero padding.
    fn conv2d(&mut self, x: Map, w: Weight, conv: Conv, y: Map) -> Result<()>;
    /// y = conv(x, w) + residual. What `y` holds in between has its precision.
    fn conv2d_add(&mut self, x: Map, w: Weight, conv: Conv, residual: Map, y: Map) -> Result<()> {
        self.conv2d(x, w, conv, y)?;
        self.add(y, residual, y)
    }
    /// y = [`Backend::batch_norm_inference`] of conv(x, w), which `bn.x` need not hold. What `y` holds in between has its precision.
    fn conv2d_batch_norm(&mut self, x: Map, w: Weight, conv: Conv, bn: &BatchNorm, y: Map) -> Result<()> {
        self.conv2d(x, w, conv, y)?;
        self.batch_norm_inference(&BatchNorm { x: y, ..*bn }, y)
    }
    /// dx from dy.
    fn conv2d_grad_input(&mut self, dy: Map, w: Weight, conv: Conv, dx: Sink<Map>) -> Result<()>;
    /// dw from x and dy, as far as the step's [`Extent`] asks.
    fn conv2d_grad_weight(&mut self, x: Map, dy: Map, w: Weight, conv: Conv, add: bool) -> Result<()>;
    /// y = x + b, one b a channel.
    fn add_bias(&mut self, x: Map, bias: Span, y: Map) -> Result<()>;
    /// db = sum of dy over batch and pixels.
    fn bias_grad(&mut self, dy: Map, db: Sink<Span>) -> Result<()>;
    /// Normalises by the batch's statistics and moves the running ones.
    fn batch_norm(&mut self, bn: &BatchNorm, y: Map) -> Result<()>;
    /// Normalises by the running statistics.
    fn batch_norm_inference(&mut self, bn: &BatchNorm, y: Map) -> Result<()>;
    /// dx, dresidual, dgamma and dbeta of [`Backend::batch_norm`]; the gradient for padding images is 0.
    fn batch_norm_grad(
        &mut self,
        bn: &BatchNorm,
        dy: Map,
        dx: Option<Sink<Map>>,
        dresidual: Option<Sink<Map>>,
        dscale: Sink<Span>,
        dshift: Sink<Span>,
    ) -> Result<()>;
    /// y = max(0, x); NaN stays NaN, so that divergence shows.
    fn relu(&mut self, x: Map, y: Map) -> Result<()>;
    /// dx = dy where y > 0, else 0.
    fn relu_grad(&mut self, y: Map, dy: Map, dx: Sink<Map>) -> Result<()>;
    /// y = a + b.
    fn add(&mut self, a: Map, b: Map, y: Map) -> Result<()>;
    /// Copies or adds one map to another of the same shape; halos may differ.
    fn copy(&mut self, x: Map, y: Sink<Map>) -> Result<()>;
    /// The maximum of each window, the first in row order on ties; padding never wins.
    fn max_pool(&mut self, x: Map, window: usize, conv: Conv, y: Map) -> Result<()>;
    /// dx of [`Backend::max_pool`]: to the first maximum of each window.
    fn max_pool_grad(&mut self, x: Map, dy: Map, window: usize, conv: Conv, dx: Sink<Map>) -> Result<()>;
    /// The mean over all pixels of each channel.
    fn average_pool(&mut self, x: Map, y: Map) -> Result<()>;
    /// dx of [`Backend::average_pool`].
    fn average_pool_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()>;
    /// y = x / (1 - p) where kept, else 0; `site` numbers the dropout layers. With dy and dx it is its own derivative.
    fn dropout(&mut self, x: Map, p: f32, site: u32, y: Sink<Map>) -> Result<()>;
    /// Moves images (N, C, H, W) to rows (N, C H W), in (C, H, W) order.
    fn flatten(&mut self, x: Map, y: Map) -> Result<()>;
    /// The inverse of [`Backend::flatten`].
    fn flatten_grad(&mut self, dy: Map, dx: Sink<Map>) -> Result<()>;
    /// loss = (mean over the batch of -sum_k t_k log softmax(logits)_k, number of images whose largest logit is at the largest target).
    fn softmax_cross_entropy(&mut self, logits: Map, targets: Map, loss: Span) -> Result<()>;
    /// dlogits = (softmax(logits) - t) / N, for targets that sum to 1.
    fn softmax_cross_entropy_grad(&mut self, logits: Map, targets: Map, dlogits: Sink<Map>) -> Result<()>;

    /// What the logits (N, classes), f32, of a batch with these N labels say of accuracy, loss and calibration, in one pass over
    /// them; equal to the bit on every device.
    ///
    /// # Errors
    /// As [`Histogram::check`].
    fn calibration_histogram(&mut self, logits: Map, labels: &[u32]) -> Result<Histogram> {
        Histogram::of(&self.read_map(logits)?, labels, logits.shape.c)
    }

    /// One SGD step of some parameters.
    fn sgd(&mut self, rule: Sgd, updates: &[Update]) -> Result<()>;
    /// One Adam step; `second` holds one span of second moments an update.
    fn adam(&mut self, rule: Adam, updates: &[Update], second: &[Span]) -> Result<()>;
    /// An optimiser step, then what the next pass needs: a new Z, unless `next` is none, and the effective weights.
    ///
    /// One kernel where a device has one, for all three read the same weights. [`Effective::Leaky`] has no such step: its weights hold
    /// what the update leaves under the Z of before.
    fn update_and_mask(
        &mut self,
        rule: Rule,
        updates: &[Update],
        second: &[Span],
        next: Option<&Draw>,
        which: Effective,
    ) -> Result<()> {
        match rule {
            Rule::Sgd(rule) => self.sgd(rule, updates)?,
            Rule::Adam(rule) => self.adam(rule, updates, second)?,
        }
        if let Some(draw) = next {
            self.random_mask(draw)?;
        }
        self.effective_weights(which, &[])
    }
    /// average += (x - average) / (n + 1), or average = x for n = 0; x is the value, for a masked weight the effective one in force (`which`).
    fn average(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) -> Result<()>;
    /// Mask updates of several layers.
    fn prune_and_grow(&mut self, jobs: &[PruneAndGrow]) -> Result<()>;
    /// Keeps the `keep` largest |W| inside M over all given layers together, ties to the lower (layer, index); momentum and values outside become 0.
    fn prune_globally(&mut self, weights: &[(Weight, Span)], keep: usize) -> Result<()>;
    /// The mean |value| of `of` inside M.
    fn mean_magnitude(&mut self, weight: Weight, of: Span) -> Result<f64>;
    /// Has a masked layer multiply on a kernel for sparse weights at the density that it has now (and below), or on one for dense ones
    /// (and above). Which one runs never changes a result. False, and nothing done, on a device that has no such choice.
    fn prefer(&mut self, _layer: usize, _sparse: bool) -> bool {
        false
    }
}

/// Does work for a device, on one of rayon's threads where `works_on_pool` says that they do it.
pub(crate) fn on_pool<T: Send>(works_on_pool: bool, work: impl FnOnce() -> T + Send) -> T {
    if works_on_pool { rayon::scope(|_| work()) } else { work() }
}
