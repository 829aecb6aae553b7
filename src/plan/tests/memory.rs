//! Where plans put things, and when.

use std::collections::HashSet;

use super::recorder::Recorder;
use super::*;
use crate::nn::{Conv2d, NETWORKS, NetworkOptions, network};

/// No two places that are alive at one step overlap.
fn assert_apart(plan: &Plan, what: &str) {
    for (i, a) in plan.table().iter().enumerate() {
        for b in &plan.table()[..i] {
            let alive = a.live.0 <= b.live.1 && b.live.0 <= a.live.1;
            let overlap = a.at < b.at + b.len && b.at < a.at + a.len;
            assert!(!(alive && overlap), "{what}: {a:?} overlaps {b:?}");
        }
    }
}

/// Each gradient is set by its first writer, added to by the others; each learning parameter has one.
fn assert_set_then_added(plan: &Plan, what: &str) {
    let mut written = HashSet::new();
    for (to, add) in plan.gradients_written().into_iter().flatten() {
        let first = match to {
            Written::Node(i) => written.insert((0, i)),
            Written::Parameter(i) => written.insert((1, i)),
        };
        assert_eq!(add, !first, "{what}: {to:?}");
    }
    for (id, parameter) in plan.graph.parameters.iter().filter(|(_, p)| p.role.trainable()) {
        assert!(written.contains(&(1, id.0)), "{what}: {} has no gradient", parameter.name);
    }
}

/// Plans and replays a recording twice on the recorder, which checks every read.
fn check(what: &str, recorded: Recorded, precision: Precision) -> Plan {
    let Recorded { graph, images, targets, logits, loss } = recorded;
    let train = graph.mode() == Mode::Train;
    let layout = Layout::new(graph.parameters());
    let recorder = Recorder::new(layout.gradients_at, layout.base, precision);
    let plan = Plan::new(graph, &layout.slots, train.then_some(loss), &[logits, loss], &recorder, layout.base);
    for _ in 0..2 {
        let mut on = Recorder::new(layout.gradients_at, layout.base, precision);
        [images, targets].into_iter().for_each(|input| on.host_writes(plan.map(input)));
        plan.forward(&mut on).unwrap();
        plan.backward(&mut on).unwrap();
        assert!(on.calls > plan.len(), "{what}: the replay did nothing");
        on.host_reads(plan.map(logits));
        on.host_reads_span(plan.loss(loss));
        if train {
            let grads = layout.slots.iter().map(|slot| slot.grad).filter(|grad| grad.len > 0);
            grads.for_each(|grad| on.host_reads_span(grad));
            assert_set_then_added(&plan, what);
        }
    }
    assert_apart(&plan, what);
    plan
}

#[test]
fn plans_of_all_networks_read_what_was_written_and_waste_little_memory() {
    for &name in NETWORKS {
        let (size, classes) = if name.ends_with("imagenet") { (224, 1000) } else { (32, 10) };
        let dropouts: &[f64] = if name == "wrn22-2" { &[0.0, 0.3] } else { &[0.0] };
        for (&dropout, mode) in
            dropouts.iter().flat_map(|d| [Mode::Train, Mode::Evaluate, Mode::Reestimate].map(|m| (d, m)))
        {
            for (batch, precision) in [2, 15, 16, 128].into_iter().flat_map(|b| Precision::ALL.map(|p| (b, p))) {
                let what = format!("{name}, {mode:?}, batch {batch}, dropout {dropout}, {precision}");
                let body = network(name, NetworkOptions { dropout, ..NetworkOptions::default() }).unwrap();
                let images = Shape::images(batch, 3, size, size);
                let plan = check(&what, recorded(images, classes, mode, &|g, x| body.record(g, x, classes)), precision);
                let used = plan.end() - plan.table().iter().map(|p| p.at).min().unwrap();
                let ratio = used as f64 / plan.live_maximum() as f64;
                // Without a backward pass little is alive at once, and what is left over weighs more.
                let most = if mode == Mode::Train { 1.3 } else { 1.35 };
                assert!((1.0..=most).contains(&ratio), "{what}: the arena is {ratio:.2} times what is alive at once");
            }
        }
    }
}

fn conv(channels: usize, stride: usize) -> Conv2d {
    Conv2d::same(channels, 3, stride)
}

#[test]
fn a_value_used_three_times_gets_the_sum_of_three_gradients() {
    let plan = check(
        "three uses",
        recorded(Shape::images(3, 2, 5, 5), 4, Mode::Train, &|g, x| {
            let stem = g.conv2d("stem", x, conv(4, 1))?;
            let (a, b) = (g.conv2d("a", stem, conv(4, 1))?, g.relu("b", stem)?);
            let sum = g.add("sum", a, b)?;
            let all = g.add("all", sum, stem)?;
            let pooled = g.global_average_pool("pool", all)?;
            g.linear("fc", pooled, 4)
        }),
        Precision::F32,
    );
    let to_stem: Vec<bool> = plan
        .gradients_written()
        .into_iter()
        .flatten()
        .filter(|(to, _)| *to == Written::Node(1))
        .map(|(_, add)| add)
        .collect();
    assert_eq!(to_stem, [false, true, true]);
}

#[test]
fn a_value_added_to_itself_gets_its_gradient_twice() {
    let plan = check(
        "x + x",
        recorded(Shape::images(3, 2, 5, 5), 4, Mode::Train, &|g, x| {
            let stem = g.conv2d("stem", x, conv(4, 2))?;
            let twice = g.add("twice", stem, stem)?;
            let pooled = g.global_average_pool("pool", twice)?;
            g.linear("fc", pooled, 4)
        }),
        Precision::F32,
    );
    let to_stem: Vec<bool> = plan
        .gradients_written()
        .into_iter()
        .flatten()
        .filter(|(to, _)| *to == Written::Node(1))
        .map(|(_, add)| add)
        .collect();
    assert_eq!(to_stem, [false, true]);
}

#[test]
fn a_parameter_used_twice_is_one_parameter_whose_gradients_add_up() {
    let plan = check(
        "shared",
        recorded(Shape::images(3, 4, 5, 5), 4, Mode::Train, &|g, x| {
            let y = g.conv2d("shared", x, conv(4, 1))?;
            let y = g.batch_norm_relu("bn", y)?;
            let y = g.conv2d("shared", y, conv(4, 1))?;
            let y = g.batch_norm_relu("bn", y)?;
            let pooled = g.global_average_pool("pool", y)?;
            g.linear("fc", pooled, 4)
        }),
        Precision::F32,
    );
    assert_eq!(plan.graph.parameters.weights().count(), 2);
    let id = plan.graph.parameters.find("shared.weight").map(|ParameterId(i)| Written::Parameter(i)).unwrap();
    let adds: Vec<bool> =
        plan.gradients_written().into_iter().flatten().filter(|(to, _)| *to == id).map(|(_, add)| add).collect();
    assert_eq!(adds, [false, true]);
}

#[test]
fn what_the_loss_does_not_see_gets_no_gradient_and_images_never_do() {
    let mut unseen = None;
    let recording = recorded(Shape::images(3, 4, 5, 5), 4, Mode::Evaluate, &|g, x| {
        let pooled = g.global_average_pool("pool", x)?;
        g.linear("fc", pooled, 4)
    });
    let Recorded { mut graph, images, targets, loss, .. } = recording;
    unseen.replace(graph.relu("unseen", images).unwrap());
    let layout = Layout::new(graph.parameters());
    let recorder = Recorder::new(layout.gradients_at, layout.base, Precision::F32);
    let plan = Plan::new(graph, &layout.slots, Some(loss), &[], &recorder, layout.base);
    let nodes: Vec<Written> = plan.gradients_written().into_iter().flatten().map(|(to, _)| to).collect();
    let forbidden = [images.0, targets.0, unseen.unwrap().0];
    assert!(!nodes.is_empty() && !forbidden.iter().any(|&i| nodes.contains(&Written::Node(i))), "{nodes:?}");
}

/// A residual block as wide ResNets have it.
fn block(g: &mut Graph, x: NodeId) -> Result<NodeId> {
    let stem = g.conv2d("stem", x, conv(4, 1))?;
    let activated = g.batch_norm_relu("bn", stem)?;
    let body = g.conv2d("body", activated, conv(4, 1))?;
    let sum = g.add("sum", body, stem)?;
    let last = g.conv2d("last", sum, conv(4, 1))?;
    let normalised = g.batch_norm_relu("last_bn", last)?;
    let pooled = g.global_average_pool("pool", normalised)?;
    g.linear("fc", pooled, 4)
}

fn places(plan: &Plan, content: Content) -> Vec<&str> {
    plan.table().iter().filter(|p| p.content == content && p.len > 0).map(|p| p.name.as_str()).collect()
}

#[test]
fn the_gradient_of_a_sum_is_handed_on_to_its_terms_without_a_copy() {
    let recording = recorded(Shape::images(3, 2, 5, 5), 4, Mode::Train, &block);
    let plan = check("a residual block", recording, Precision::F32);
    let gradients = places(&plan, Content::Gradient);
    assert!(gradients.contains(&"sum"), "{gradients:?}");
    assert!(!gradients.contains(&"body") && !gradients.contains(&"stem"), "{gradients:?}");
}

#[test]
fn a_gradient_is_copied_where_an_addition_to_it_would_disturb_another_reader() {
    // The other term's derivative is taken after something was added to the first one's gradient.
    let plan = check(
        "two terms",
        recorded(Shape::images(3, 2, 5, 5), 4, Mode::Train, &|g, x| {
            let early = g.conv2d("early", x, conv(4, 1))?;
            let stem = g.conv2d("stem", x, conv(4, 1))?;
            let branch = g.relu("branch", stem)?;
            let sum = g.add("sum", early, stem)?;
            let all = g.add("all", sum, branch)?;
            let pooled = g.global_average_pool("pool", all)?;
            g.linear("fc", pooled, 4)
        }),
        Precision::F32,
    );
    let gradients = places(&plan, Content::Gradient);
    assert!(gradients.contains(&"stem") || gradients.contains(&"early"), "{gradients:?}");
}

#[test]
fn a_convolution_is_computed_by_its_only_reader_where_that_adds_or_normalises_by_running_statistics() {
    let stored = |mode| {
        let recording = recorded(Shape::images(3, 2, 5, 5), 4, mode, &block);
        let plan = check("a residual block", recording, Precision::F32);
        let values = places(&plan, Content::Value);
        ["stem", "body", "last"].map(|name| values.contains(&name))
    };
    // The batch's statistics need the sums themselves, and the stem has two readers.
    assert_eq!(stored(Mode::Train), [true, false, true]);
    assert_eq!(stored(Mode::Evaluate), [true, false, false]);
}
