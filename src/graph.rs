//! A network, recorded: nodes (an op, its arguments, a static shape) and the parameters they use.
//!
//! Recording does no arithmetic. A [`Plan`](crate::plan::Plan) made from the graph is what runs. Another batch size, and
//! another [`Mode`], is another recording of the same network; parameters are found again by name.

use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Shape;

/// A node of a graph: the value that an op makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// A parameter of a network, by position in [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParameterId(pub(crate) usize);

/// What a network is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout, a backward pass.
    Train,
    /// Running statistics, no dropout.
    Evaluate,
    /// Batch statistics, which move the running ones; no dropout and no gradient: re-estimates them for given weights.
    Reestimate,
}

/// What a parameter is, which settles how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution's or linear layer's weight: masked, decayed.
    Weight,
    /// Added per channel.
    Bias,
    /// Batch norm's gamma.
    Scale,
    /// Batch norm's beta.
    Shift,
    /// Batch norm's running mean: a statistic, not trained.
    RunningMean,
    /// Batch norm's running unbiased variance: a statistic, not trained.
    RunningVariance,
}

impl Role {
    /// True for what gradients change.
    pub fn trainable(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Uniform in [-bound, bound).
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// One parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Unique name, as files have it.
    pub name: String,
    /// Shape as files have it: (O, I, kH, kW), (O, I) or (C).
    pub dims: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// How it starts.
    pub init: Init,
}

impl Parameter {
    /// Elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// (O, I, kH, kW) of a weight; a linear layer has a 1x1 kernel.
    pub fn kernel_dims(&self) -> [usize; 4] {
        let at = |i: usize| self.dims.get(i).copied().unwrap_or(1);
        [at(0), at(1), at(2), at(3)]
    }
}

/// A network's parameters in the order of their first recording. The masked ones are numbered in that order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    all: Vec<Parameter>,
}

impl Parameters {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Parameter)> {
        self.all.iter().enumerate().map(|(i, p)| (ParameterId(i), p))
    }

    /// The masked weights, by ordinal.
    pub fn weights(&self) -> impl Iterator<Item = (ParameterId, &Parameter)> {
        self.iter().filter(|(_, p)| p.role == Role::Weight)
    }

    /// The parameter of that name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.all.iter().position(|p| p.name == name).map(ParameterId)
    }

    /// The number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True for a network without parameters.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Trainable elements.
    pub fn trainable_len(&self) -> usize {
        self.all.iter().filter(|p| p.role.trainable()).map(Parameter::len).sum()
    }

    fn intern(&mut self, parameter: Parameter) -> Result<ParameterId> {
        match self.find(&parameter.name) {
            Some(id) if self.all[id.0].dims == parameter.dims && self.all[id.0].role == parameter.role => Ok(id),
            Some(id) => Err(Error::shape(
                "parameter",
                format!("{} is {:?} here and {:?} before", parameter.name, parameter.dims, self.all[id.0].dims),
            )),
            None => {
                self.all.push(parameter);
                Ok(ParameterId(self.all.len() - 1))
            }
        }
    }
}

impl std::ops::Index<ParameterId> for Parameters {
    type Output = Parameter;

    fn index(&self, id: ParameterId) -> &Parameter {
        &self.all[id.0]
    }
}

/// One recorded operation.
#[derive(Debug)]
pub(crate) struct Node {
    /// The layer's name, for messages.
    pub(crate) name: String,
    /// None for an input, which the host writes.
    pub(crate) op: Option<Box<dyn Op>>,
    pub(crate) args: Vec<NodeId>,
    pub(crate) parameters: Vec<ParameterId>,
    pub(crate) shape: Shape,
}

/// The recording.
#[derive(Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Parameters,
    mode: Mode,
    scope: Vec<String>,
    dropouts: u32,
}

impl Graph {
    /// An empty recording of a network whose parameters may be known from an earlier one.
    pub fn new(mode: Mode, parameters: Parameters) -> Self {
        Graph { nodes: vec![], parameters, mode, scope: vec![], dropouts: 0 }
    }

    /// What this recording is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The parameters so far.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The shape of a node.
    pub fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node.0].shape
    }

    /// Records within `name.`: parameters and layers made inside carry it in front of theirs.
    pub fn scope<T>(&mut self, name: impl Into<String>, record: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.scope.push(name.into());
        let made = record(self);
        self.scope.pop();
        made
    }

    /// A value that the host writes before each replay.
    pub fn input(&mut self, name: &str, shape: Shape) -> NodeId {
        let name = self.qualified(name);
        self.nodes.push(Node { name, op: None, args: vec![], parameters: vec![], shape });
        NodeId(self.nodes.len() - 1)
    }

    /// Names a parameter, or finds the one of that name.
    pub(crate) fn parameter(
        &mut self,
        layer: &str,
        name: &str,
        dims: Vec<usize>,
        role: Role,
        init: Init,
    ) -> Result<ParameterId> {
        let name = format!("{}.{name}", self.qualified(layer));
        let len = dims.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
        if len.is_none_or(|len| len > u32::MAX as usize) {
            return Err(Error::shape("parameter", format!("{name} of {dims:?} has more than 2^32 elements")));
        }
        self.parameters.intern(Parameter { name, dims, role, init })
    }

    /// Records an op; the op itself checks the shapes.
    pub(crate) fn push(
        &mut self,
        name: &str,
        op: impl Op + 'static,
        args: &[NodeId],
        parameters: &[ParameterId],
    ) -> Result<NodeId> {
        let shapes: Vec<Shape> = args.iter().map(|&a| self.shape(a)).collect();
        let name = self.qualified(name);
        let shape = op.shape(&shapes).map_err(|e| match e {
            Error::Shape { op, detail } => Error::Shape { op, detail: format!("{detail} (layer {name})") },
            other => other,
        })?;
        self.nodes.push(Node { name, op: Some(Box::new(op)), args: args.into(), parameters: parameters.into(), shape });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Numbers the dropout layers, so that each has its own random bits.
    pub(crate) fn next_dropout(&mut self) -> u32 {
        self.dropouts += 1;
        self.dropouts - 1
    }

    fn qualified(&self, name: &str) -> String {
        self.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
    }
}
