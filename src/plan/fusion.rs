//! What steps compute together: convolutions in their only reader, statistics behind a convolution, normalised values where they are read.

use crate::backend::Backend;
use crate::graph::{Graph, Node, NodeId};

/// For each node the convolution that it computes itself, (node, argument): one whose value nobody else looks at.
pub(super) fn absorbed(graph: &Graph, keep: &[NodeId]) -> Vec<Option<(usize, usize)>> {
    let mut readers = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.args).for_each(|arg| readers[arg.0] += 1);
    let is_convolution = |node: &Node| node.op.as_ref().is_some_and(|op| op.convolution().is_some());
    let of = |node: &Node| {
        let op = node.op.as_ref()?;
        let mut args = node.args.iter().enumerate();
        let fits = |&(at, arg): &(usize, &NodeId)| {
            op.absorbs(at) && readers[arg.0] == 1 && !keep.contains(arg) && is_convolution(&graph.nodes[arg.0])
        };
        args.find(fits).map(|(at, arg)| (arg.0, at))
    };
    graph.nodes.iter().map(of).collect()
}

/// What steps share on devices that fuse convolutions with batch norms.
pub(super) struct Fused {
    /// Batch norms whose results are not stored: their readers, convolutions of stride 1, form them.
    pub(super) formed: Vec<bool>,
    /// For each node that computes a convolution the batch norm whose statistics it takes along.
    pub(super) statistics: Vec<Option<usize>>,
    /// Nodes whose backward pass looks at the result in place of all arguments but the first.
    pub(super) by_result: Vec<bool>,
}

impl Fused {
    pub(super) fn new(
        graph: &Graph,
        keep: &[NodeId],
        absorbed: &[Option<(usize, usize)>],
        backend: &dyn Backend,
    ) -> Self {
        let nodes = &graph.nodes;
        let no = vec![false; nodes.len()];
        let mut fused = Fused { formed: no.clone(), statistics: vec![None; nodes.len()], by_result: no };
        if !backend.fuses_batch_norm() {
            return fused;
        }
        let convolution = |i: usize| nodes[i].op.as_ref().and_then(|op| op.convolution());
        for (i, node) in nodes.iter().enumerate() {
            fused.by_result[i] = node.op.as_ref().is_some_and(|op| op.by_result());
            if !node.op.as_ref().is_some_and(|op| op.normalises_by_batch()) {
                continue;
            }
            let x = node.args[0].0;
            // The sum that computes a convolution takes its statistics when it has added the rest.
            if fused.statistics[x].is_none() && (convolution(x).is_some() || absorbed[x].is_some()) {
                fused.statistics[x] = Some(i);
            }
            let mut readers = (0..nodes.len()).filter(|&r| nodes[r].args.contains(&NodeId(i))).peekable();
            fused.formed[i] = node.args.len() == 1
                && !keep.contains(&NodeId(i))
                && backend.forms_operands(node.shape)
                && readers.peek().is_some()
                && readers.all(|r| convolution(r).is_some_and(|conv| conv.stride == 1));
        }
        fused
    }

    /// The node that takes the statistics of a batch norm along.
    pub(super) fn taken_by(&self, batch_norm: usize) -> Option<usize> {
        self.statistics.iter().position(|&of| of == Some(batch_norm))
    }
}
