//! How plans have each map stored.

use super::recorder::Recorder;
use super::*;
use crate::backend::Precision::{self, Bf16, F32};
use crate::nn::Conv2d;

/// A network planned for training on a backend of some precision.
fn planned(backends: Precision, network: &dyn Fn(&mut Graph, NodeId) -> Result<NodeId>) -> Plan {
    let Recorded { graph, loss, .. } = recorded(Shape::images(3, 2, 6, 6), 4, Mode::Train, network);
    let layout = Layout::new(graph.parameters());
    let recorder = Recorder::new(layout.gradients_at, layout.base, backends);
    Plan::new(graph, &layout.slots, Some(loss), &[], &recorder, layout.base)
}

/// (layer, op, precision) of each node's value but the loss's own, which nobody writes.
fn values(plan: &Plan) -> Vec<(&str, &str, Precision)> {
    let values = plan.table().iter().filter(|p| p.content == Content::Value && p.name != "loss");
    values.map(|p| (p.name.as_str(), p.op, p.precision)).collect()
}

fn small(g: &mut Graph, x: NodeId) -> Result<NodeId> {
    let y = g.conv2d("conv", x, Conv2d::same(4, 3, 1))?;
    let y = g.batch_norm_relu("bn", y)?;
    let y = g.global_average_pool("pool", y)?;
    g.linear("fc", y, 4)
}

#[test]
fn logits_targets_and_the_sums_before_the_bias_are_f32_and_the_rest_is_the_backends() {
    let plan = planned(Bf16, &small);
    let expected = [
        ("images", "input", Bf16),
        ("conv", "conv2d", Bf16),
        ("bn", "batch_norm_relu", Bf16),
        ("pool", "average_pool", Bf16),
        ("fc", "conv2d", F32),
        ("fc", "add_bias", F32),
        ("targets", "input", F32),
    ];
    assert_eq!(values(&plan), expected);
}

#[test]
fn the_demand_for_f32_goes_through_every_op_up_to_a_convolution() {
    let plan = planned(Bf16, &|g, x| {
        let y = g.conv2d("stem", x, Conv2d::same(4, 3, 1))?;
        let y = g.batch_norm_relu("bn1", y)?;
        let y = g.conv2d("conv", y, Conv2d::same(4, 3, 1))?;
        let y = g.batch_norm("bn2", y)?;
        let y = g.relu("relu", y)?;
        let y = g.max_pool("max", y, 2, 2, 0)?;
        let y = g.dropout("dropout", y, 0.5)?;
        g.global_average_pool("pool", y)
    });
    let coarse = values(&plan).into_iter().filter(|(_, _, precision)| *precision == Bf16);
    assert_eq!(coarse.map(|(name, ..)| name).collect::<Vec<_>>(), ["images", "stem", "bn1"]);
}

#[test]
fn a_value_that_a_convolution_reads_stays_the_backends_and_asks_nothing_of_what_it_is_made_of() {
    let plan = planned(Bf16, &|g, x| {
        let shared = g.conv2d("stem", x, Conv2d::same(4, 3, 1))?;
        let shared = g.relu("shared", shared)?;
        let branch = g.conv2d("branch", shared, Conv2d::same(4, 3, 1))?;
        let sum = g.add("sum", branch, shared)?;
        g.global_average_pool("pool", sum)
    });
    let exact = values(&plan).into_iter().filter(|(_, _, precision)| *precision == F32);
    assert_eq!(exact.map(|(name, ..)| name).collect::<Vec<_>>(), ["branch", "sum", "pool", "targets"]);
}

#[test]
fn logits_kept_for_the_host_are_f32_without_a_loss_too() {
    let mut graph = Graph::new(Mode::Evaluate, Parameters::default());
    let images = graph.input("images", Shape::images(3, 2, 6, 6));
    let logits = small(&mut graph, images).unwrap();
    let layout = Layout::new(graph.parameters());
    let recorder = Recorder::new(layout.gradients_at, layout.base, Bf16);
    let plan = Plan::new(graph, &layout.slots, None, &[logits], &recorder, layout.base);
    assert_eq!(plan.map(logits).precision, F32);
    assert_eq!(plan.map(images).precision, Bf16);
}

#[test]
fn gradients_have_the_backends_precision_and_an_f32_backend_knows_no_other() {
    for backends in Precision::ALL {
        let plan = planned(backends, &small);
        let gradients: Vec<_> = plan.table().iter().filter(|p| p.content == Content::Gradient).collect();
        assert_eq!(gradients.len(), 5);
        assert!(gradients.iter().all(|p| p.precision == backends), "{gradients:?}");
        assert!(plan.table().iter().all(|p| p.precision == F32 || backends == Bf16));
    }
}
