use super::*;
use crate::backend::cpu::Cpu;
use crate::backend::{Extent as Weights, StepState};
use crate::data::Normalisation;
use crate::graph::{Graph, NodeId};
use crate::inference::tests::altered;
use crate::nn::{Network, NetworkOptions, network};
use crate::op::SoftmaxCrossEntropy;
use crate::rng::{Domain, Stream};
use prost::Message;

const IMAGE: [usize; 3] = [3, 32, 32];
const CLASSES: usize = 5;

fn model(network: Box<dyn Network>) -> Model {
    altered(Model::new(network, IMAGE, CLASSES, Box::new(Cpu::new())).unwrap())
}

fn about(temperature: Option<f64>) -> About {
    About {
        config: String::new(),
        class_names: ["a", "b", "c", "d", "\"e\""].map(String::from).into(),
        image: IMAGE,
        classes: CLASSES,
        normalisation: Normalisation::new(255, &[0.25, 0.5, 0.125], &[0.5, 1.0, 2.0]),
        temperature,
        snapshots: 0,
    }
}

/// Fails where the logits of another runtime, for several numbers of images, are not those of `model`, divided by the temperature.
fn compare(name: &str, model: &mut Model, temperature: Option<f64>) {
    let onnx = encode(model, &about(temperature)).unwrap();
    let other = rten::Model::load(onnx).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut draws = Stream::new(3, Domain::Weights, 0, 0);
    for n in [1, 3] {
        let images: Vec<f32> = (0..n * IMAGE.iter().product::<usize>()).map(|_| draws.normal() as f32).collect();
        let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Weights::Active };
        let mut expected = model.forward(Mode::Evaluate, &images, state).unwrap();
        expected.iter_mut().for_each(|x| *x /= temperature.unwrap_or(1.0) as f32);
        let input = rten::Value::from_shape([n, IMAGE[0], IMAGE[1], IMAGE[2]], images).unwrap();
        let logits = other.run_one(input.into(), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (shape, logits) = logits.into_shape_vec::<f32, 2>().unwrap();
        assert_eq!(shape, [n, CLASSES], "{name}");
        let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let spread = expected.iter().any(|x| (x - expected[0]).abs() > 0.01 * scale);
        assert!(scale > 0.0 && spread, "{name}: logits {expected:?} would tell nothing");
        for (x, y) in logits.iter().zip(&expected) {
            assert!((x - y).abs() <= 1e-4 * scale, "{name}, {n} images: {x}, expected {y}");
        }
    }
}

#[test]
fn another_runtime_has_the_same_logits_of_every_network() {
    for name in crate::nn::NETWORKS {
        let options = NetworkOptions { width: 0.25, ..NetworkOptions::default() };
        compare(name, &mut model(network(name, options).unwrap()), None);
    }
}

#[test]
fn another_runtime_has_the_same_logits_of_the_networks_in_their_full_width() {
    for name in ["small-convnet", "wrn22-2", "resnet18"] {
        compare(name, &mut model(network(name, NetworkOptions::default()).unwrap()), None);
    }
}

#[test]
fn a_fitted_temperature_divides_the_logits() {
    let network = network("small-convnet", NetworkOptions::default()).unwrap();
    compare("small-convnet", &mut model(network), Some(2.5));
}

/// The layers of a program's own network, recorded by a function.
struct Own(fn(&mut Graph, NodeId, usize) -> Result<NodeId>);

impl Network for Own {
    fn name(&self) -> &str {
        "own"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        (self.0)(g, images, classes)
    }
}

#[test]
fn layers_of_one_name_and_a_block_that_is_its_own_shortcut_are_told_apart() {
    let record = |g: &mut Graph, images: NodeId, classes: usize| {
        let x = g.relu("same", images)?;
        let x = g.batch_norm_add_relu("norm", x, |_| Ok(x))?;
        let x = g.relu("same", x)?;
        let x = g.max_pool("same", x, 3, 2, 1)?;
        let x = g.flatten("flat", x)?;
        // The weights are those of one layer.
        let x = g.linear("fc", x, 7)?;
        let x = g.linear("square", x, 7)?;
        let x = g.linear("square", x, 7)?;
        g.linear("last", x, classes)
    };
    compare("own", &mut model(Box::new(Own(record))), None);
}

#[test]
fn an_op_without_a_translation_is_named() {
    let record = |g: &mut Graph, images: NodeId, classes: usize| {
        let pooled = g.global_average_pool("pool", images)?;
        let logits = g.linear("fc", pooled, classes)?;
        if g.mode() == Mode::Evaluate { g.push("odd", SoftmaxCrossEntropy, &[logits, logits], &[]) } else { Ok(logits) }
    };
    let error = encode(&mut model(Box::new(Own(record))), &about(None)).unwrap_err().to_string();
    assert_eq!(error, "layer odd: the op softmax_cross_entropy has no translation to ONNX");
}

#[test]
fn metadata_say_how_pixels_become_the_input_and_what_the_logits_mean() {
    let mut model = model(network("small-convnet", NetworkOptions::default()).unwrap());
    let onnx = message::Model::decode(&encode(&mut model, &about(Some(2.5))).unwrap()[..]).unwrap();
    let entry = |key: &str| onnx.metadata_props.iter().find(|e| e.key == key).map(|e| e.value.as_str()).unwrap();
    assert_eq!((entry("mean"), entry("std")), ("[0.25,0.5,0.125]", "[0.5,1.0,2.0]"));
    assert_eq!(entry("pixel_scale").parse(), Ok(1.0 / 255.0f32));
    assert_eq!(entry("class_names"), r#"["a","b","c","d","\"e\""]"#);
    assert_eq!(entry("temperature"), "2.5");
    assert!((entry("sparsity").parse::<f64>().unwrap() - (1.0 - model.density().unwrap())).abs() < 1e-12);
}
