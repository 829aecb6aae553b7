//! Plans, checked by watching what they do: [`memory`] and [`precision`] on a backend that computes nothing, [`gradients`] and [`fusion`] in
//! numbers.

mod fusion;
mod gradients;
mod memory;
mod precision;
mod recorder;

use super::*;
use crate::backend::Weight;
use crate::graph::{Mode, ParameterId, Parameters, Role};

/// The places of a network's parameters, from the start of memory: values, then gradients, then the arena.
struct Layout {
    slots: Vec<Slot>,
    gradients_at: usize,
    base: usize,
}

impl Layout {
    fn new(parameters: &Parameters) -> Self {
        let mut end = 0;
        let mut span = |len: usize| {
            let at = end;
            end = (end + len).next_multiple_of(ALIGNMENT);
            Span { at, len }
        };
        let values: Vec<Span> = parameters.iter().map(|(_, p)| span(p.len())).collect();
        let gradients_at = span(0).at;
        let grads: Vec<Span> =
            parameters.iter().map(|(_, p)| if p.role.trainable() { span(p.len()) } else { Span::default() }).collect();
        let base = span(0).at;
        let mut slots: Vec<Slot> =
            values.into_iter().zip(grads).map(|(value, grad)| Slot { value, grad, weight: None }).collect();
        for (layer, (id, parameter)) in parameters.weights().enumerate() {
            let [out_channels, in_channels, rows, cols] = parameter.kernel_dims();
            let Slot { value, grad, .. } = slots[id.0];
            let weight = Weight { layer, value, grad, out_channels, in_channels, kernel: [rows, cols] };
            slots[id.0].weight = Some(weight);
        }
        Layout { slots, gradients_at, base }
    }
}

/// A network with its loss, recorded for training.
struct Recorded {
    graph: Graph,
    images: NodeId,
    targets: NodeId,
    logits: NodeId,
    loss: NodeId,
}

fn recorded(
    images: Shape,
    classes: usize,
    mode: Mode,
    network: &dyn Fn(&mut Graph, NodeId) -> Result<NodeId>,
) -> Recorded {
    let mut graph = Graph::new(mode, Parameters::default());
    let images = graph.input("images", images);
    let logits = network(&mut graph, images).unwrap();
    let targets = graph.input("targets", Shape::features(graph.shape(images).n, classes));
    let loss = graph.softmax_cross_entropy("loss", logits, targets).unwrap();
    Recorded { graph, images, targets, logits, loss }
}
