//! The gradients of whole networks: the f64 reference against differences of its own loss, and the CPU against the reference.

use super::*;
use crate::backend::cpu::Cpu;
use crate::backend::parity::Reference;
use crate::backend::{Draw, Effective, Extent, Precision, StepState};
use crate::bitmask::BitMask;
use crate::nn::{Conv2d, Network, NetworkOptions, initial_values, network};
use crate::rng::{Domain, Stream};

const CLASSES: usize = 5;

type Record<'a> = &'a dyn Fn(&mut Graph, NodeId) -> Result<NodeId>;

/// A recorded network on one backend, its values written.
struct Model {
    plan: Plan,
    layout: Layout,
    parameters: Parameters,
    inputs: [(Map, Vec<f32>); 2],
    loss: Span,
}

impl Model {
    /// Every other weight has density 0.3, and Z keeps 0.8.
    fn new(on: &mut dyn Backend, images: Shape, network: Record) -> Model {
        let Recorded { graph, images, targets, loss, .. } = recorded(images, CLASSES, Mode::Train, network);
        let parameters = graph.parameters().clone();
        let layout = Layout::new(&parameters);
        let shape = graph.shape(images);
        let plan = Plan::new(graph, &layout.slots, Some(loss), &[], on, layout.base);
        on.reserve(plan.end()).unwrap();
        on.write(Span { at: layout.base, len: plan.end() - layout.base }, &vec![f32::NAN; plan.end() - layout.base])
            .unwrap();

        let mut stream = Stream::new(11, Domain::Weights, 1000, 0);
        let mut noise = move || (0.4 * stream.uniform() - 0.2) as f32;
        for (id, parameter) in parameters.iter() {
            // Noise moves gammas off 0, which would hide everything behind them.
            let fixed = !parameter.role.trainable() || parameter.role == Role::Weight;
            let start = initial_values(parameter, 3, id.0).into_iter();
            let values: Vec<f32> = start.map(|x| if fixed { x } else { x.max(0.5) + noise() }).collect();
            on.write(layout.slots[id.0].value, &values).unwrap();
        }
        let weights: Vec<Weight> = layout.slots.iter().filter_map(|slot| slot.weight).collect();
        on.register(&weights).unwrap();
        for weight in weights.iter().filter(|w| w.layer % 2 == 1 && w.len() > 30) {
            let mut stream = Stream::new(5, Domain::InitialMask, weight.layer as u32, 0);
            on.write_mask(weight.layer, &BitMask::from_fn(weight.len(), |_| stream.uniform() < 0.3)).unwrap();
        }
        let keep = vec![0.8; weights.len()];
        on.random_mask(&Draw { seed: 1, domain: Domain::RandomMask, step: 4, keep: &keep, inverted: false }).unwrap();
        on.begin_step(StepState { seed: 1, step: 4, statistics_momentum: 0.1, extent: Extent::Dense }).unwrap();

        let mut stream = Stream::new(7, Domain::Bootstrap, 0, 0);
        let pixels: Vec<f32> = (0..shape.len()).map(|_| stream.normal() as f32).collect();
        // Smoothed labels.
        let target = |i: usize| if i % CLASSES == i / CLASSES * 3 % CLASSES { 0.9 } else { 0.1 / (CLASSES - 1) as f32 };
        let labels = (0..shape.n * CLASSES).map(target).collect();
        let (inputs, loss) = ([(plan.map(images), pixels), (plan.map(targets), labels)], plan.loss(loss));
        Model { plan, layout, parameters, inputs, loss }
    }

    /// Inputs are written each time: what comes after their last reader may lie in their place.
    fn forward(&self, on: &mut dyn Backend) {
        self.inputs.iter().for_each(|(map, values)| on.write_map(*map, values).unwrap());
        on.effective_weights(Effective::Random, &[]).unwrap();
        self.plan.forward(on).unwrap();
    }

    fn trainable(&self) -> impl Iterator<Item = (&str, Slot)> {
        self.parameters
            .iter()
            .filter(|(_, p)| p.role.trainable())
            .map(|(id, p)| (p.name.as_str(), self.layout.slots[id.0]))
    }
}

fn exact(on: &Reference, span: Span) -> Vec<f64> {
    on.bounded(span).iter().map(|x| x.value).collect()
}

/// In f64, along a random direction d for each parameter: (loss(w + e d) - loss(w - e d)) / 2 e is <gradient, d>, within 1e-4 of
/// the gradient's length, since a few of the many ReLUs and maxima may change sides within e = 1e-6.
fn assert_gradients_are_differences(what: &str, on: &mut Reference, model: &Model) {
    const STEP: f64 = 1e-6;
    let mut stream = Stream::new(13, Domain::Bootstrap, 0, 0);
    for (name, slot) in model.trainable() {
        let active = slot.weight.map(|weight| {
            let (mask, random) = (on.read_mask(weight.layer).unwrap(), on.read_random_mask(weight.layer).unwrap());
            (0..weight.len()).map(|i| mask.get(i) && random.get(i)).collect::<Vec<bool>>()
        });
        let moves = |i: usize| active.as_ref().is_none_or(|active| active[i]);
        let direction: Vec<f64> = (0..slot.value.len).map(|i| if moves(i) { stream.normal() } else { 0.0 }).collect();
        let (at, gradient) = (exact(on, slot.value), exact(on, slot.grad));
        let mut loss = |by: f64| {
            on.write_exact(slot.value, &at.iter().zip(&direction).map(|(w, d)| w + by * d).collect::<Vec<_>>());
            model.forward(on);
            exact(on, model.loss)[0]
        };
        let difference = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        on.write_exact(slot.value, &at);
        let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(
            (difference - product).abs() <= 1e-4 * length + 1e-8,
            "{what}, {name}: {product} is not {difference}, gradient of length {length}"
        );
    }
}

/// The CPU's f32 gradients are the reference's within 1e-3 of the largest element of each: layers of batch norm over few images
/// amplify roundings of 1e-7.
fn assert_cpu_agrees(what: &str, images: Shape, network: Record, on: &mut Reference, model: &Model) {
    let mut cpu = Cpu::new();
    let same = Model::new(&mut cpu, images, network);
    same.forward(&mut cpu);
    same.plan.backward(&mut cpu).unwrap();
    let (got, expected) = (cpu.read(same.loss).unwrap()[0], exact(on, model.loss)[0]);
    assert!((f64::from(got) - expected).abs() < 1e-4 * expected, "{what}: loss {got} is not {expected}");
    for ((name, slot), (_, there)) in model.trainable().zip(same.trainable()) {
        let expected = exact(on, slot.grad);
        let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        for (i, (got, expected)) in cpu.read(there.grad).unwrap().into_iter().zip(expected).enumerate() {
            let off = (f64::from(got) - expected).abs();
            assert!(off <= 1e-3 * largest + 1e-6, "{what}, {name}[{i}]: {got} is not {expected}, largest {largest}");
        }
    }
}

fn check(what: &str, images: Shape, network: Record) {
    let mut on = Reference::new();
    let model = Model::new(&mut on, images, network);
    model.forward(&mut on);
    model.plan.backward(&mut on).unwrap();
    assert_cpu_agrees(what, images, network, &mut on, &model);
    assert_gradients_are_differences(what, &mut on, &model);
}

fn check_named(name: &str, width: f64, dropout: f64, images: Shape) {
    let body: Box<dyn Network> = network(name, NetworkOptions { width, dropout, ..NetworkOptions::default() }).unwrap();
    check(name, images, &|g, x| body.record(g, x, CLASSES));
}

/// A stored value is off by a random part of up to 2^-8. Through some twenty stores that makes about a percent, and several in
/// gradients, where ReLUs and maxima change sides: their length of error stays below a seventh, which is a cosine of .99.
#[test]
fn in_bf16_the_cpu_finds_nearly_the_same_loss_and_direction_of_descent_but_not_the_same_bits() {
    let options = NetworkOptions { width: 0.5, ..NetworkOptions::default() };
    let body: Box<dyn Network> = network("small-convnet", options).unwrap();
    let [(loss, gradient), (coarse_loss, coarse)] = Precision::ALL.map(|precision| {
        let mut on = Cpu::new().with_precision(precision);
        let model = Model::new(&mut on, Shape::images(33, 1, 12, 12), &|g, x| body.record(g, x, CLASSES));
        model.forward(&mut on);
        model.plan.backward(&mut on).unwrap();
        let gradient: Vec<f32> = model.trainable().flat_map(|(_, slot)| on.read(slot.grad).unwrap()).collect();
        (on.read(model.loss).unwrap()[0], gradient)
    });
    assert!(loss != coarse_loss && (coarse_loss - loss).abs() < 0.03 * loss, "{coarse_loss} is not about {loss}");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = dot(&gradient, &coarse) / (dot(&gradient, &gradient) * dot(&coarse, &coarse)).sqrt();
    assert!(gradient != coarse && cosine > 0.99, "cosine {cosine}");
}

#[test]
fn gradients_of_the_small_convnet_are_differences_of_its_loss() {
    check_named("small-convnet", 0.25, 0.0, Shape::images(17, 1, 9, 7));
}

#[test]
fn gradients_of_the_multilayer_perceptron_are_differences_of_its_loss() {
    check_named("mlp", 0.05, 0.0, Shape::images(15, 2, 3, 5));
}

#[test]
fn gradients_of_residual_networks_with_strides_are_differences_of_their_loss() {
    check_named("resnet18", 0.05, 0.0, Shape::images(6, 3, 16, 16));
    check_named("resnet18-imagenet", 0.05, 0.0, Shape::images(6, 3, 34, 30));
}

#[test]
fn gradients_of_a_wide_residual_network_with_dropout_are_differences_of_its_loss() {
    check_named("wrn22-2", 0.125, 0.3, Shape::images(5, 3, 8, 8));
}

#[test]
fn gradients_of_vgg_are_differences_of_its_loss() {
    check_named("vgg16-bn", 0.03, 0.0, Shape::images(8, 3, 32, 32));
}

#[test]
fn gradients_of_shortcuts_with_several_readers_are_differences_of_the_loss() {
    check("shortcuts", Shape::images(9, 3, 5, 4), &|g, x| {
        let same = Conv2d::same(4, 3, 1);
        let a = g.conv2d("a", x, same)?;
        let a = g.batch_norm_add_relu("of itself", a, |_| Ok(a))?;
        let b = g.conv2d("b", a, same)?;
        // The gradient of `a` is set by the sum, then added to.
        let b = g.batch_norm_add_relu("bn", b, |_| Ok(a))?;
        let sum = g.add("sum", a, b)?;
        let pooled = g.global_average_pool("pool", sum)?;
        g.linear("fc", pooled, CLASSES)
    });
}

#[test]
fn gradients_of_shared_values_and_parameters_are_differences_of_the_loss() {
    check("shared", Shape::images(16, 4, 6, 5), &|g, x| {
        let same = Conv2d::same(4, 3, 1);
        let a = g.conv2d("shared", x, same)?;
        let a = g.batch_norm_relu("bn", a)?;
        let b = g.conv2d("shared", a, same)?;
        let b = g.batch_norm_relu("bn", b)?;
        let twice = g.add("twice", b, b)?;
        let c = g.max_pool("max", a, 3, 1, 1)?;
        let d = g.add("sum", twice, c)?;
        let e = g.add("all", d, a)?;
        // From here on each op's argument has a later reader, so that its gradient adds.
        let rectified = g.relu("relu", e)?;
        let e = g.add("rectified", rectified, e)?;
        let pooled = g.global_average_pool("pool", e)?;
        let y = g.conv2d("odd", e, Conv2d { padding: 0, ..Conv2d::same(3, 5, 2) })?;
        let rows = g.flatten("flatten", y)?;
        let y = g.global_average_pool("pool odd", y)?;
        let dropped = g.dropout("dropout", rows, 0.4)?;
        let rows = g.add("dropped", dropped, rows)?;
        let logits =
            [g.linear("fc", rows, CLASSES)?, g.linear("fc pooled", pooled, CLASSES)?, g.linear("fc odd", y, CLASSES)?];
        let sum = g.add("two", logits[0], logits[1])?;
        g.add("three", sum, logits[2])
    });
}
