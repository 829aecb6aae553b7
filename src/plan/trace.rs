//! The order of a plan's steps: which gradient sets and which adds, who is alive when, and which gradients are one.

use super::Pass;
use crate::graph::{Graph, NodeId};

/// The order of steps and who is alive when; no sizes yet.
pub(super) struct Trace {
    pub(super) order: Vec<TracedStep>,
    pub(super) backward_at: usize,
    pub(super) value_live: Vec<(usize, usize)>,
    pub(super) gradient_live: Vec<Option<(usize, usize)>>,
    pub(super) backward_step: Vec<Option<usize>>,
}

pub(super) struct TracedStep {
    pub(super) node: usize,
    pub(super) pass: Pass,
    /// One an argument: None without a gradient, else whether it adds.
    pub(super) grads: Vec<Option<bool>>,
    pub(super) add_parameters: Vec<bool>,
}

impl Trace {
    pub(super) fn new(
        graph: &Graph,
        loss: Option<NodeId>,
        absorbed: &[Option<(usize, usize)>],
        by_result: &[bool],
    ) -> Self {
        let count = graph.nodes.len();
        let mut order = Vec::new();
        let mut value_live = vec![(0, 0); count];
        let computed_by_others = |i: usize| absorbed.iter().any(|of| of.is_some_and(|(conv, _)| conv == i));
        for (i, node) in graph.nodes.iter().enumerate() {
            if node.op.is_some() && !computed_by_others(i) {
                value_live[i] = (order.len(), order.len());
                node.args.iter().for_each(|a| value_live[a.0].1 = order.len());
                if let Some((conv, _)) = absorbed[i] {
                    graph.nodes[conv].args.iter().for_each(|a| value_live[a.0].1 = order.len());
                }
                order.push(TracedStep { node: i, pass: Pass::Forward, grads: vec![], add_parameters: vec![] });
            }
        }
        let backward_at = order.len();
        let mut trace = Trace {
            order,
            backward_at,
            value_live,
            gradient_live: vec![None; count],
            backward_step: vec![None; count],
        };
        if let Some(loss) = loss {
            trace.walk_back(graph, loss, by_result);
        }
        trace
    }

    fn walk_back(&mut self, graph: &Graph, loss: NodeId, by_result: &[bool]) {
        let learns = learns(graph);
        let mut parameter_set = vec![false; graph.parameters.len()];
        for i in (0..=loss.0).rev() {
            let node = &graph.nodes[i];
            let Some(op) = &node.op else { continue };
            if !learns[i] || (i != loss.0 && self.gradient_live[i].is_none()) {
                continue;
            }
            let now = self.order.len();
            let grads = node
                .args
                .iter()
                .enumerate()
                .map(|(at, arg)| {
                    (learns[arg.0] && op.differentiable(at)).then(|| {
                        let add = self.gradient_live[arg.0].is_some();
                        self.gradient_live[arg.0].get_or_insert((now, now)).1 = now;
                        add
                    })
                })
                .collect();
            if let Some(live) = &mut self.gradient_live[i] {
                live.1 = now;
            }
            let (args, out) = match (by_result[i], op.reads()) {
                (true, _) => (&node.args[..1], true),
                (false, reads) => (if reads.args { &node.args[..] } else { &[] }, reads.out),
            };
            args.iter().for_each(|a| self.value_live[a.0].1 = now);
            if out {
                self.value_live[i].1 = now;
            }
            let add_parameters =
                node.parameters.iter().map(|p| std::mem::replace(&mut parameter_set[p.0], true)).collect();
            self.backward_step[i] = Some(now);
            self.order.push(TracedStep { node: i, pass: Pass::Backward, grads, add_parameters });
        }
    }
}

/// In whose place each node's gradient lies: its own, or, for a term of a sum, the sum's, whose gradient it is to begin with.
///
/// That takes no copy, as long as nobody adds to it what belongs to one of them while another is still to read it.
pub(super) fn shared_gradients(graph: &Graph, trace: &Trace) -> Vec<usize> {
    let count = graph.nodes.len();
    let mut shared: Vec<usize> = (0..count).collect();
    let mut additions = vec![vec![]; count];
    for (now, step) in trace.order.iter().enumerate() {
        for (arg, add) in graph.nodes[step.node].args.iter().zip(&step.grads) {
            if *add == Some(true) {
                additions[arg.0].push(now);
            }
        }
    }
    for (now, step) in trace.order.iter().enumerate().skip(trace.backward_at) {
        let node = &graph.nodes[step.node];
        if !node.op.as_ref().is_some_and(|op| op.hands_gradient_on()) {
            continue;
        }
        for (arg, add) in node.args.iter().zip(&step.grads) {
            let Some(read) = trace.backward_step[arg.0].filter(|_| *add == Some(false)) else { continue };
            let undisturbed = (0..count).filter(|&other| shared[other] == shared[step.node]).all(|other| {
                let last = trace.backward_step[other].filter(|&step| step >= now);
                last.is_none_or(|last| {
                    additions[arg.0].iter().all(|&at| at > last)
                        && additions[other].iter().all(|&at| at < now || at > read)
                })
            });
            if undisturbed {
                shared[arg.0] = shared[step.node];
            }
        }
    }
    shared
}

/// Whether a gradient at a node reaches a trainable parameter.
fn learns(graph: &Graph) -> Vec<bool> {
    let mut learns = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let own = node.parameters.iter().any(|p| graph.parameters[*p].role.trainable());
        let behind = |op: &dyn crate::op::Op| {
            node.args.iter().enumerate().any(|(at, arg)| learns[arg.0] && op.differentiable(at))
        };
        learns[i] = own || node.op.as_deref().is_some_and(behind);
    }
    learns
}
