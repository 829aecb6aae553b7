//! Layers: an op with its parameters, recorded on a graph.

use crate::backend::Conv;
use crate::error::Result;
use crate::graph::{Graph, Init, Mode, NodeId, ParameterId, Role};
use crate::op::{
    Add, AddBias, AveragePool, BatchNormalise, Convolve, Dropout, Flatten, MaxPool, Relu, SoftmaxCrossEntropy,
};

/// Epsilon of every batch norm.
const EPSILON: f32 = 1e-5;

/// A masked convolution's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// Output channels.
    pub out_channels: usize,
    /// Rows and columns of the square kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
    /// How the weight starts.
    pub init: Init,
}

impl Conv2d {
    /// A convolution with the padding that keeps the size at stride 1, and Kaiming-normal weights of fan-out.
    pub fn same(out_channels: usize, kernel: usize, stride: usize) -> Self {
        let init = Init::Normal { std: (2.0 / (kernel * kernel * out_channels) as f64).sqrt() };
        Conv2d { out_channels, kernel, stride, padding: kernel / 2, init }
    }
}

/// PyTorch's default for linear layers: uniform within 1 / sqrt(fan-in).
pub(crate) fn fan_in_uniform(fan_in: usize) -> Init {
    Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() }
}

impl Graph {
    /// A masked convolution without bias: parameter `NAME.weight` (O, I, k, k).
    pub fn conv2d(&mut self, name: &str, x: NodeId, conv: Conv2d) -> Result<NodeId> {
        let Conv2d { out_channels, kernel, stride, padding, init } = conv;
        let in_channels = self.shape(x).c;
        let dims = vec![out_channels, in_channels, kernel, kernel];
        let weight = self.parameter(name, "weight", dims, Role::Weight, init)?;
        self.push(name, Convolve { out_channels, in_channels, kernel, conv: Conv { stride, padding } }, &[x], &[weight])
    }

    /// A masked linear layer with bias: parameters `NAME.weight` (O, I) and `NAME.bias`, both uniform within 1 / sqrt(I).
    pub fn linear(&mut self, name: &str, x: NodeId, out_features: usize) -> Result<NodeId> {
        let in_features = self.shape(x).c;
        let init = fan_in_uniform(in_features);
        let weight = self.parameter(name, "weight", vec![out_features, in_features], Role::Weight, init)?;
        let op = Convolve {
            out_channels: out_features,
            in_channels: in_features,
            kernel: 1,
            conv: Conv { stride: 1, padding: 0 },
        };
        let product = self.push(name, op, &[x], &[weight])?;
        self.bias(name, product, init)
    }

    /// A bias for each channel: parameter `NAME.bias`.
    pub fn bias(&mut self, name: &str, x: NodeId, init: Init) -> Result<NodeId> {
        let bias = self.parameter(name, "bias", vec![self.shape(x).c], Role::Bias, init)?;
        self.push(name, AddBias, &[x], &[bias])
    }

    /// Batch norm: parameters `NAME.weight`, `NAME.bias`, statistics `NAME.running_mean`, `NAME.running_var`.
    pub fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let parameters = self.batch_norm_parameters(name, x, 1.0)?;
        self.normalise(name, &[x], parameters, false)
    }

    /// Batch norm and ReLU in one pass.
    pub fn batch_norm_relu(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let parameters = self.batch_norm_parameters(name, x, 1.0)?;
        self.normalise(name, &[x], parameters, true)
    }

    /// The end of a residual block, in one pass: batch norm, addition of the shortcut, ReLU. Its gamma starts at 0, so that the block
    /// starts as the identity. `shortcut` is recorded after the norm's parameters, which are numbered before its own.
    pub fn batch_norm_add_relu(
        &mut self,
        name: &str,
        x: NodeId,
        shortcut: impl FnOnce(&mut Self) -> Result<NodeId>,
    ) -> Result<NodeId> {
        let parameters = self.batch_norm_parameters(name, x, 0.0)?;
        let shortcut = shortcut(self)?;
        // A device reads and differentiates the two as different maps.
        if shortcut == x {
            let y = self.normalise(name, &[x], parameters, false)?;
            let sum = self.add(name, y, x)?;
            return self.relu(name, sum);
        }
        self.normalise(name, &[x, shortcut], parameters, true)
    }

    fn batch_norm_parameters(&mut self, name: &str, x: NodeId, scale: f32) -> Result<[ParameterId; 4]> {
        let dims = vec![self.shape(x).c];
        let mut parameter =
            |suffix, role, value| self.parameter(name, suffix, dims.clone(), role, Init::Constant(value));
        Ok([
            parameter("weight", Role::Scale, scale)?,
            parameter("bias", Role::Shift, 0.0)?,
            parameter("running_mean", Role::RunningMean, 0.0)?,
            parameter("running_var", Role::RunningVariance, 1.0)?,
        ])
    }

    /// Normalises the first argument and adds the second one, where there is one.
    fn normalise(&mut self, name: &str, args: &[NodeId], parameters: [ParameterId; 4], relu: bool) -> Result<NodeId> {
        let (inference, residual) = (self.mode() == Mode::Evaluate, args.len() == 2);
        self.push(name, BatchNormalise { inference, epsilon: EPSILON, residual, relu }, args, &parameters)
    }

    /// max(0, x).
    pub fn relu(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.push(name, Relu, &[x], &[])
    }

    /// a + b, of one shape.
    pub fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.push(name, Add, &[a, b], &[])
    }

    /// The maximum of each window.
    pub fn max_pool(&mut self, name: &str, x: NodeId, window: usize, stride: usize, padding: usize) -> Result<NodeId> {
        self.push(name, MaxPool { window, conv: Conv { stride, padding } }, &[x], &[])
    }

    /// The mean of each channel: (N, C, H, W) to (N, C).
    pub fn global_average_pool(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.push(name, AveragePool, &[x], &[])
    }

    /// (N, C, H, W) to (N, C H W).
    pub fn flatten(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        if self.shape(x).pixels() == 1 { Ok(x) } else { self.push(name, Flatten, &[x], &[]) }
    }

    /// Dropout of activations with probability `p` while training; otherwise nothing.
    pub fn dropout(&mut self, name: &str, x: NodeId, p: f64) -> Result<NodeId> {
        if self.mode() != Mode::Train || p == 0.0 {
            return Ok(x);
        }
        let site = self.next_dropout();
        self.push(name, Dropout { p: p as f32, site }, &[x], &[])
    }

    /// The mean cross-entropy of logits against target distributions, both (N, classes).
    pub fn softmax_cross_entropy(&mut self, name: &str, logits: NodeId, targets: NodeId) -> Result<NodeId> {
        self.push(name, SoftmaxCrossEntropy, &[logits, targets], &[])
    }
}
