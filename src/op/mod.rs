//! Each op: its forward beside its derivative, and the check of its shapes.
//!
//! An op holds no memory. It says what it needs ([`Op::reads`], [`Op::halo`], [`Op::workspace`]); the plan finds the places
//! and hands them over in an [`Io`].

mod activation;
mod batch_norm;
mod bias;
mod conv;
mod dropout;
mod loss;
mod pool;

pub(crate) use activation::{Add, Flatten, Relu};
pub(crate) use batch_norm::BatchNormalise;
pub(crate) use bias::AddBias;
pub(crate) use conv::Convolve;
pub(crate) use dropout::Dropout;
pub(crate) use loss::SoftmaxCrossEntropy;
pub(crate) use pool::{AveragePool, MaxPool};

use std::any::Any;
use std::fmt::Debug;

use crate::backend::{Backend, BatchNorm, Conv, Map, Operand, Product, Sink, Span, Weight};
use crate::{Result, Shape};

/// What a backward pass looks at besides the gradient of the output: it keeps those buffers alive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reads {
    /// The arguments' values.
    pub(crate) args: bool,
    /// The op's own value.
    pub(crate) out: bool,
}

/// How an op wants its arguments stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// In f32 on every device.
    Exact,
    /// In f32 where its result is: what is added to an exact value should be no coarser.
    AsResult,
    /// In the backend's precision, whatever other readers want: no device has a kernel for anything else.
    Backends,
}

/// One kind of node. Which one it is can be asked for as of any [`Any`], by whoever writes a graph in another language.
pub(crate) trait Op: Any + Debug + Send + Sync {
    /// The op's name in plans and messages.
    fn name(&self) -> &'static str;

    /// The shape of the result, or why these arguments cannot be.
    fn shape(&self, args: &[Shape]) -> Result<Shape>;

    /// What backward reads.
    fn reads(&self) -> Reads;

    /// Zeros that forward and backward want around the arguments.
    fn halo(&self) -> usize {
        0
    }

    /// Zeros that backward wants around the gradient of the result.
    fn grad_halo(&self) -> usize {
        0
    }

    /// Whether the gradient of the result is, unchanged, that of every argument.
    fn hands_gradient_on(&self) -> bool {
        false
    }

    /// Stride and padding, for a convolution of the first argument with the first parameter.
    fn convolution(&self) -> Option<Conv> {
        None
    }

    /// Whether this normalises by the statistics of the batch.
    fn normalises_by_batch(&self) -> bool {
        false
    }

    /// Whether backward can do with the op's own value and its first argument alone, on devices that fuse.
    fn by_result(&self) -> bool {
        false
    }

    /// The normalisation, for an op that [`Op::normalises_by_batch`].
    fn batch_norm(&self, _io: &Io) -> Option<BatchNorm> {
        None
    }

    /// Whether [`Op::forward_of`] can take a convolution in place of argument `arg`.
    fn absorbs(&self, _arg: usize) -> bool {
        false
    }

    /// Computes the result with a convolution that is not stored in place of argument `arg`, one that [`Op::absorbs`] it.
    fn forward_of(&self, _on: &mut dyn Backend, _io: &Io, _product: &Product, arg: usize) -> Result<()> {
        unreachable!("{} does not absorb argument {arg}", self.name())
    }

    /// How the arguments are to be stored.
    fn demand(&self) -> Demand {
        Demand::AsResult
    }

    /// Floats kept from forward to backward.
    fn workspace(&self, _args: &[Shape]) -> usize {
        0
    }

    /// False for arguments that never get a gradient (targets).
    fn differentiable(&self, _arg: usize) -> bool {
        true
    }

    /// Computes the result.
    fn forward(&self, on: &mut dyn Backend, io: &Io) -> Result<()>;

    /// Computes the gradients that the plan asks for. Set or add was settled there, so no op ever clears a buffer.
    fn backward(&self, on: &mut dyn Backend, io: &Io) -> Result<()>;
}

/// What a step shares with its neighbours, on devices that fuse.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fusion {
    /// The first argument is not stored: it is what this makes of another map.
    pub(crate) operand: Option<BatchNorm>,
    /// The batch norm whose statistics a convolution takes along.
    pub(crate) statistics: Option<BatchNorm>,
    /// The statistics of this batch norm are there before its turn.
    pub(crate) has_statistics: bool,
    /// The result of this batch norm is formed by those who read it.
    pub(crate) formed_later: bool,
    /// The gradient of this batch norm follows from its result, without the residual.
    pub(crate) by_result: bool,
}

/// Where a node's values lie.
#[derive(Clone, Debug)]
pub(crate) struct Io {
    pub(crate) args: Vec<Map>,
    pub(crate) out: Map,
    pub(crate) grad_out: Option<Map>,
    pub(crate) grads: Vec<Option<Sink<Map>>>,
    pub(crate) fusion: Fusion,
    pub(crate) parameters: Vec<Slot>,
    /// One a parameter: true when an earlier node of the backward pass has set its gradient.
    pub(crate) add_grad: Vec<bool>,
    pub(crate) workspace: Span,
}

impl Io {
    pub(crate) fn arg(&self, i: usize) -> Map {
        self.args[i]
    }

    pub(crate) fn grad_out(&self) -> Map {
        self.grad_out.expect("the plan gives every node of a backward pass its gradient")
    }

    /// The first argument as products take it.
    pub(crate) fn operand(&self) -> Operand {
        self.fusion.operand.map_or(Operand::Stored(self.args[0]), Operand::Normalised)
    }

    /// Where the gradient of argument `i` goes; None when nobody needs it.
    pub(crate) fn grad(&self, i: usize) -> Option<Sink<Map>> {
        self.grads[i]
    }

    pub(crate) fn weight(&self, i: usize) -> Weight {
        self.parameters[i].weight.expect("the op's first parameter is a weight")
    }

    pub(crate) fn value(&self, i: usize) -> Span {
        self.parameters[i].value
    }

    pub(crate) fn parameter_grad(&self, i: usize) -> Sink<Span> {
        Sink { to: self.parameters[i].grad, add: self.add_grad[i] }
    }
}

/// Where a parameter lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slot {
    pub(crate) value: Span,
    /// Empty for statistics.
    pub(crate) grad: Span,
    /// Set for masked weights.
    pub(crate) weight: Option<Weight>,
}
