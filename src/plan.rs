//! A graph, planned: which gradient sets and which adds, what lives when, and where everything lies in one arena.
//!
//! The plan is a flat list of steps with every address settled, so that replaying it takes no memory for values and decides nothing.
//! All of it can be printed ([`Plan::table`], `cigl info --plan`) and tested without a device.

mod arena;
mod fusion;
mod storage;
#[cfg(test)]
mod tests;
mod trace;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::backend::{Backend, Map, Operand, Precision, Product, Sink, Span};
use crate::error::Result;
use crate::graph::{Graph, Mode, NodeId};
use crate::op::{Fusion, Io, Slot};
use crate::shape::Shape;
use arena::lay_out;
use fusion::{Fused, absorbed};
use storage::{halos, precisions};
use trace::{Trace, shared_gradients};

/// Places start at multiples of this many 4-byte words: one cache line, one vector.
pub(crate) const ALIGNMENT: usize = 16;

/// What a place of the arena holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A node's value.
    Value,
    /// The gradient of the loss with respect to a node's value.
    Gradient,
    /// What an op keeps from forward to backward.
    Workspace,
}

/// One row of the memory table.
#[derive(Clone, Debug)]
pub struct Place {
    /// The layer.
    pub name: String,
    /// The op that makes the value.
    pub op: &'static str,
    /// What it holds.
    pub content: Content,
    /// The logical shape of the node.
    pub shape: Shape,
    /// The first step that writes it and the last that reads it.
    pub live: (usize, usize),
    /// How its numbers are stored.
    pub precision: Precision,
    /// First 4-byte word, from the start of memory.
    pub at: usize,
    /// 4-byte words.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

/// What of a plan is replayed.
#[derive(Clone, Copy, Debug)]
enum Part {
    Forward,
    Backward,
    Whole,
}

#[derive(Debug)]
struct Step {
    node: usize,
    pass: Pass,
    io: Io,
    /// The convolution that the op's forward pass computes along the way, in place of which argument.
    product: Option<(Product, usize)>,
    /// One an argument: whether its gradient is set (or handed on, and nothing is to be written) or added to.
    adds: Vec<Option<bool>>,
}

/// A gradient written by a step, for those who check plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The gradient of a node's value.
    Node(usize),
    /// The gradient of a parameter.
    Parameter(usize),
}

/// A planned graph.
#[derive(Debug)]
pub struct Plan {
    /// Different for each plan of the process.
    number: u64,
    graph: Graph,
    steps: Vec<Step>,
    backward_at: usize,
    maps: Vec<Map>,
    workspaces: Vec<Span>,
    places: Vec<Place>,
    end: usize,
    peak: usize,
}

impl Plan {
    /// Plans the forward pass to all nodes and, where `loss` is given, the backward pass from it.
    ///
    /// `slots` says where the graph's parameters lie; the arena starts at 4-byte word `base`. The values of `keep` can be read
    /// after the last step, and are in f32 unless a convolution reads them too.
    pub(crate) fn new(
        graph: Graph,
        slots: &[Slot],
        loss: Option<NodeId>,
        keep: &[NodeId],
        backend: &dyn Backend,
        base: usize,
    ) -> Plan {
        let absorbed = absorbed(&graph, keep);
        let fused = Fused::new(&graph, keep, &absorbed, backend);
        let mut trace = Trace::new(&graph, loss, &absorbed, &fused.by_result);
        for formed in (0..graph.nodes.len()).filter(|&i| fused.formed[i]) {
            let (read, x) = (trace.value_live[formed].1, graph.nodes[formed].args[0].0);
            trace.value_live[x].1 = trace.value_live[x].1.max(read);
        }
        let mut halos = halos(&graph);
        let shared = shared_gradients(&graph, &trace);
        for (i, &of) in shared.iter().enumerate().filter(|&(i, &of)| i != of) {
            halos.gradient[of] = halos.gradient[of].max(halos.gradient[i]);
            if let (Some(to), Some(live)) = (trace.gradient_live[i].take(), &mut trace.gradient_live[of]) {
                live.1 = live.1.max(to.1);
            }
        }
        let precisions = precisions(&graph, keep, backend.precision());
        let inference = graph.mode() == Mode::Evaluate && loss.is_none();
        let steps = trace.order.len();
        let mut places = Vec::new();
        let mut place = |node: usize, content, precision, len, live| {
            let n = &graph.nodes[node];
            places.push(Place {
                name: n.name.clone(),
                op: n.op.as_ref().map_or("input", |op| op.name()),
                content,
                shape: n.shape,
                live,
                precision,
                at: 0,
                len,
            });
            places.len() - 1
        };

        let mut values = Vec::new();
        let mut gradients = Vec::new();
        let mut workspaces = Vec::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let kept = keep.contains(&NodeId(i)) || loss == Some(NodeId(i));
            let last = if kept { steps - 1 } else { trace.value_live[i].1 };
            let stored = !fused.formed[i] && !absorbed.iter().any(|of| of.is_some_and(|(conv, _)| conv == i));
            let len = |halo, precision| backend.map_len(Map { at: 0, shape: node.shape, halo, precision, inference });
            let stored_len = if stored { len(halos.value[i], precisions[i]) } else { 0 };
            values.push(place(i, Content::Value, precisions[i], stored_len, (trace.value_live[i].0, last)));
            gradients.push(trace.gradient_live[i].map(|live| {
                let len = len(halos.gradient[i], backend.precision());
                place(i, Content::Gradient, backend.precision(), len, live)
            }));
            let shapes: Vec<Shape> = node.args.iter().map(|a| graph.shape(*a)).collect();
            let floats = node.op.as_ref().map_or(0, |op| op.workspace(&shapes));
            workspaces.push((floats > 0).then(|| {
                let (own, read) = trace.value_live[i];
                let first = fused.taken_by(i).map_or(own, |by| trace.value_live[by].0);
                let until = trace.backward_step[i].unwrap_or(if fused.formed[i] { read } else { own });
                let live = (first, if kept { steps - 1 } else { until });
                place(i, Content::Workspace, Precision::F32, floats, live)
            }));
        }
        let (end, peak) = lay_out(&mut places, base);

        let map = |place: usize, halo: usize| {
            let Place { at, shape, precision, .. } = places[place];
            Map { at, shape, halo, precision, inference }
        };
        let maps: Vec<Map> = (0..graph.nodes.len()).map(|i| map(values[i], halos.value[i])).collect();
        let workspace =
            |i: usize| workspaces[i].map_or(Span::default(), |p: usize| Span { at: places[p].at, len: places[p].len });
        let batch_norm = |i: usize| {
            let node = &graph.nodes[i];
            node.op.as_ref()?.batch_norm(&Io {
                args: node.args.iter().map(|a| maps[a.0]).collect(),
                out: maps[i],
                grad_out: None,
                grads: vec![],
                fusion: Fusion::default(),
                parameters: node.parameters.iter().map(|p| slots[p.0]).collect(),
                add_grad: vec![],
                workspace: workspace(i),
            })
        };
        let operand = |i: usize| if fused.formed[i] { batch_norm(i) } else { None };
        let list = trace
            .order
            .iter()
            .map(|step| {
                let node = &graph.nodes[step.node];
                let grad = |i: usize| gradients[shared[i]].map(|p| map(p, halos.gradient[shared[i]]));
                let sink = |(arg, add): (&NodeId, &Option<bool>)| {
                    let handed_on = *add == Some(false) && shared[arg.0] == shared[step.node];
                    add.filter(|_| !handed_on).and_then(|add| Some(Sink { to: grad(arg.0)?, add }))
                };
                let io = Io {
                    args: node.args.iter().map(|a| maps[a.0]).collect(),
                    out: maps[step.node],
                    grad_out: grad(step.node),
                    grads: node.args.iter().zip(&step.grads).map(sink).collect(),
                    fusion: Fusion {
                        operand: node.args.first().and_then(|a| operand(a.0)),
                        statistics: fused.statistics[step.node].and_then(batch_norm),
                        has_statistics: fused.taken_by(step.node).is_some(),
                        formed_later: fused.formed[step.node],
                        by_result: fused.by_result[step.node],
                    },
                    parameters: node.parameters.iter().map(|p| slots[p.0]).collect(),
                    add_grad: step.add_parameters.clone(),
                    workspace: workspace(step.node),
                };
                let product = absorbed[step.node].filter(|_| step.pass == Pass::Forward).and_then(|(of, arg)| {
                    let (of, statistics) = (&graph.nodes[of], io.fusion.statistics);
                    let x = of.args[0].0;
                    let x = operand(x).map_or(Operand::Stored(maps[x]), Operand::Normalised);
                    let (weight, conv) = (slots[of.parameters[0].0].weight?, of.op.as_ref()?.convolution()?);
                    Some((Product { x, weight, conv, residual: None, statistics }, arg))
                });
                Step { node: step.node, pass: step.pass, io, product, adds: step.grads.clone() }
            })
            .collect();
        let workspaces = (0..graph.nodes.len()).map(workspace).collect();
        static PLANS: AtomicU64 = AtomicU64::new(0);
        let number = PLANS.fetch_add(1, Ordering::Relaxed);
        Plan { number, graph, steps: list, backward_at: trace.backward_at, maps, workspaces, places, end, peak }
    }

    /// Where a node's value lies.
    pub fn map(&self, node: NodeId) -> Map {
        self.maps[node.0]
    }

    /// Where a loss node leaves (mean loss, images predicted right).
    pub fn loss(&self, node: NodeId) -> Span {
        self.workspaces[node.0]
    }

    /// The 4-byte word after the arena's last.
    pub fn end(&self) -> usize {
        self.end
    }

    /// The most 4-byte words that are alive at one step: what no layout can go below.
    pub fn live_maximum(&self) -> usize {
        self.peak
    }

    /// The memory table, in recording order.
    pub fn table(&self) -> &[Place] {
        &self.places
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// True for a plan without steps.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What each step of the backward pass writes or hands on, and whether it adds.
    pub fn gradients_written(&self) -> Vec<Vec<(Written, bool)>> {
        let writes = |step: &Step| {
            let node = &self.graph.nodes[step.node];
            let to_nodes = node.args.iter().zip(&step.adds).filter_map(|(a, add)| Some((Written::Node(a.0), (*add)?)));
            let to_parameters = node
                .parameters
                .iter()
                .zip(&step.io.add_grad)
                .filter(|(p, _)| self.graph.parameters[**p].role.trainable())
                .map(|(p, &add)| (Written::Parameter(p.0), add));
            to_nodes.chain(to_parameters).collect()
        };
        self.steps[self.backward_at..].iter().map(writes).collect()
    }

    /// Replays the forward pass.
    pub fn forward(&self, on: &mut dyn Backend) -> Result<()> {
        self.replay_all(on, Part::Forward, &self.steps[..self.backward_at])
    }

    /// Replays the backward pass.
    pub fn backward(&self, on: &mut dyn Backend) -> Result<()> {
        self.replay_all(on, Part::Backward, &self.steps[self.backward_at..])
    }

    /// Replays both: what a device may make one launch of.
    pub fn run(&self, on: &mut dyn Backend) -> Result<()> {
        self.replay_all(on, Part::Whole, &self.steps)
    }

    fn replay_all(&self, on: &mut dyn Backend, part: Part, steps: &[Step]) -> Result<()> {
        if on.begin_replay(3 * self.number + part as u64)? {
            return Ok(());
        }
        let done = steps.iter().try_for_each(|step| self.replay(on, step));
        let ended = on.end_replay(done.is_ok());
        // The first failure is the one to tell.
        done.and(ended)
    }

    /// Replays both passes, each step by itself. Returns the seconds that the products with each masked weight took, by its ordinal.
    pub(crate) fn time_products(&self, on: &mut dyn Backend) -> Result<Vec<f64>> {
        let mut seconds = vec![];
        for step in &self.steps {
            let since = Instant::now();
            self.replay(on, step)?;
            let own = || step.io.parameters.iter().find_map(|slot| slot.weight);
            if let Some(weight) = step.product.as_ref().map(|(product, _)| product.weight).or_else(own) {
                seconds.resize(seconds.len().max(weight.layer + 1), 0.0);
                seconds[weight.layer] += since.elapsed().as_secs_f64();
            }
        }
        Ok(seconds)
    }

    /// Replays the forward pass and names the first layer whose value is not finite.
    pub fn first_non_finite(&self, on: &mut dyn Backend) -> Result<Option<String>> {
        for step in &self.steps[..self.backward_at] {
            self.replay(on, step)?;
            let node = &self.graph.nodes[step.node];
            if step.io.fusion.formed_later {
                continue;
            }
            if on.read_map(self.maps[step.node])?.iter().any(|x| !x.is_finite()) {
                return Ok(Some(node.name.clone()));
            }
        }
        Ok(None)
    }

    fn replay(&self, on: &mut dyn Backend, step: &Step) -> Result<()> {
        let op = self.graph.nodes[step.node].op.as_ref().expect("only ops become steps");
        match step.pass {
            Pass::Forward => match &step.product {
                Some((product, arg)) => op.forward_of(on, &step.io, product, *arg),
                None => op.forward(on, &step.io),
            },
            Pass::Backward => op.backward(on, &step.io),
        }
    }
}

impl fmt::Display for Plan {
    /// The memory table: one line a place, in kilobytes, and the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = |words: usize| words as f64 * 4.0 / 1024.0;
        let wide = self.places.iter().map(|p| p.name.len()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:wide$}  {:22} {:10} {:22} {:6} {:>10} {:>12} {:>9}",
            "layer", "op", "content", "shape", "stored", "KiB", "at (KiB)", "steps"
        )?;
        for p in &self.places {
            writeln!(
                f,
                "{:wide$}  {:22} {:10} {:22} {:6} {:>10.1} {:>12.1} {:>9}",
                p.name,
                p.op,
                format!("{:?}", p.content).to_lowercase(),
                p.shape.to_string(),
                p.precision,
                kb(p.len),
                kb(p.at),
                format!("{}-{}", p.live.0, p.live.1)
            )?;
        }
        let start = self.places.iter().map(|p| p.at).min().unwrap_or(self.end);
        write!(
            f,
            "{} steps, arena {:.1} KiB, most alive at once {:.1} KiB",
            self.len(),
            kb(self.end - start),
            kb(self.peak)
        )
    }
}
