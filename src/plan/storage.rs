//! How values are stored: the zeros around them and their precision.

use crate::backend::Precision;
use crate::graph::{Graph, NodeId};
use crate::op::Demand;

pub(super) struct Halos {
    pub(super) value: Vec<usize>,
    pub(super) gradient: Vec<usize>,
}

/// The zeros that the most demanding reader of each value and gradient wants.
pub(super) fn halos(graph: &Graph) -> Halos {
    let mut halos = Halos { value: vec![0; graph.nodes.len()], gradient: vec![0; graph.nodes.len()] };
    for (i, node) in graph.nodes.iter().enumerate() {
        if let Some(op) = &node.op {
            node.args.iter().for_each(|a| halos.value[a.0] = halos.value[a.0].max(op.halo()));
            halos.gradient[i] = op.grad_halo();
        }
    }
    halos
}

/// How each value is stored: in f32 where it is kept for the host, the loss reads it, or it goes into such a value without a
/// convolution between; else, and wherever a convolution reads it, in the backend's precision.
pub(super) fn precisions(graph: &Graph, keep: &[NodeId], backends: Precision) -> Vec<Precision> {
    let mut exact = vec![false; graph.nodes.len()];
    let mut convolved = vec![false; graph.nodes.len()];
    keep.iter().for_each(|node| exact[node.0] = true);
    // Readers come after what they read, so that a node's demands are complete when it is its turn.
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        exact[i] &= !convolved[i];
        match node.op.as_ref().map(|op| op.demand()) {
            Some(Demand::Exact) => node.args.iter().for_each(|a| exact[a.0] = true),
            Some(Demand::AsResult) if exact[i] => node.args.iter().for_each(|a| exact[a.0] = true),
            Some(Demand::Backends) => node.args.iter().for_each(|a| convolved[a.0] = true),
            _ => (),
        }
    }
    exact.into_iter().map(|exact| if exact { Precision::F32 } else { backends }).collect()
}
