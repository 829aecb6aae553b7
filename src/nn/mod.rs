//! Layers and networks, built from ops.
//!
//! A [`Network`] is a recipe: [`Network::record`] puts its layers on a [`Graph`], which gives them their parameters by name. It is
//! recorded again for every batch size and mode, so it must record the same layers each time.

mod convnet;
mod layers;
mod mlp;
mod resnet;
mod vgg;
mod wide_resnet;

pub use convnet::SmallConvnet;
pub use layers::Conv2d;
pub use mlp::Mlp;
pub use resnet::{ResNet, Stem};
pub use vgg::Vgg16;
pub use wide_resnet::WideResNet;

use crate::error::{Error, Result};
use crate::graph::{Graph, Init, NodeId, Parameter};
use crate::rng::{Domain, Stream};

/// A classifier: from images to logits.
pub trait Network: Send + Sync {
    /// Its name, as configurations have it.
    fn name(&self) -> &str;

    /// Records the layers from the images (N, C, H, W) to the logits (N, classes).
    fn record(&self, graph: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId>;
}

/// The networks that configurations can name.
pub const NETWORKS: &[&str] =
    &["small-convnet", "mlp", "resnet18", "resnet50", "resnet18-imagenet", "resnet50-imagenet", "wrn22-2", "vgg16-bn"];

/// What a configuration says about a network besides its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Factor of all widths; small-dense networks have sqrt(density).
    pub width: f64,
    /// Dropout of activations, in networks that have a place for it (WRN).
    pub dropout: f64,
    /// Features of the hidden layers of an MLP.
    pub hidden: Vec<usize>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        NetworkOptions { width: 1.0, dropout: 0.0, hidden: vec![300, 100] }
    }
}

/// The network of that name.
pub fn network(name: &str, options: NetworkOptions) -> Result<Box<dyn Network>> {
    let NetworkOptions { width, dropout, hidden } = options;
    if dropout > 0.0 && name != "wrn22-2" {
        return Err(Error::Usage(format!("network.dropout = {dropout}: {name} has no dropout, only wrn22-2 has")));
    }
    Ok(match name {
        "small-convnet" => Box::new(SmallConvnet { width }),
        "mlp" => Box::new(Mlp { hidden: hidden.into_iter().map(|features| scaled(features, width)).collect() }),
        "resnet18" => Box::new(ResNet::resnet18(Stem::Cifar, width)),
        "resnet50" => Box::new(ResNet::resnet50(Stem::Cifar, width)),
        "resnet18-imagenet" => Box::new(ResNet::resnet18(Stem::ImageNet, width)),
        "resnet50-imagenet" => Box::new(ResNet::resnet50(Stem::ImageNet, width)),
        "wrn22-2" => Box::new(WideResNet { depth: 22, widen: 2, dropout, width }),
        "vgg16-bn" => Box::new(Vgg16 { width }),
        _ => return Err(Error::Usage(format!("network {name} is none of {}", NETWORKS.join(", ")))),
    })
}

/// A width times a factor, at least 1.
pub(crate) fn scaled(channels: usize, width: f64) -> usize {
    ((channels as f64 * width).round() as usize).max(1)
}

/// Initial values of parameter number `ordinal`, in element order ((O, kH, kW, I) for weights).
pub(crate) fn initial_values(parameter: &Parameter, seed: u64, ordinal: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, Domain::Weights, ordinal as u32, 0);
    let mut draw = || match parameter.init {
        Init::Constant(value) => value,
        Init::Uniform { bound } => ((2.0 * stream.uniform() - 1.0) * bound) as f32,
        Init::Normal { std } => (stream.normal() * std) as f32,
    };
    (0..parameter.len()).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Mode, Parameters};
    use crate::shape::Shape;

    fn parameters(name: &str, image: [usize; 3], classes: usize) -> Parameters {
        let mut graph = Graph::new(Mode::Train, Parameters::default());
        let images = graph.input("images", Shape::images(2, image[0], image[1], image[2]));
        let logits = network(name, NetworkOptions::default()).unwrap().record(&mut graph, images, classes).unwrap();
        assert_eq!(graph.shape(logits), Shape::features(2, classes));
        graph.parameters().clone()
    }

    // The counts of the specification, torchvision's own where it has the network.
    #[test]
    fn networks_have_the_published_parameter_counts() {
        let (cifar, imagenet) = ([3, 32, 32], [3, 224, 224]);
        let cases = [
            ("resnet50", cifar, 10, 23_520_842, 23_467_712, 54),
            ("resnet50", cifar, 100, 23_705_252, 23_652_032, 54),
            ("wrn22-2", cifar, 10, 1_079_642, 1_076_912, 23),
            ("wrn22-2", cifar, 100, 1_091_252, 1_088_432, 23),
            ("resnet50-imagenet", imagenet, 1000, 25_557_032, 25_502_912, 54),
            ("resnet18", cifar, 10, 11_173_962, 11_164_352, 21),
            ("resnet18-imagenet", imagenet, 1000, 11_689_512, 11_678_912, 21),
            ("vgg16-bn", cifar, 10, 14_728_266, 14_715_584, 14),
            ("small-convnet", [1, 28, 28], 10, 70_330, 69_904, 6),
        ];
        for (name, image, classes, all, maskable, tensors) in cases {
            let p = parameters(name, image, classes);
            assert_eq!(p.trainable_len(), all, "{name}, {classes} classes");
            assert_eq!(p.weights().map(|(_, w)| w.len()).sum::<usize>(), maskable, "{name}, {classes} classes");
            assert_eq!(p.weights().count(), tensors, "{name}");
        }
    }

    #[test]
    fn tensors_carry_torchvisions_names() {
        let resnet = parameters("resnet50", [3, 32, 32], 10);
        for name in [
            "conv1.weight",
            "bn1.running_mean",
            "layer1.0.conv3.weight",
            "layer4.2.bn3.bias",
            "layer2.0.downsample.0.weight",
            "layer2.0.downsample.1.running_var",
            "fc.bias",
        ] {
            assert!(resnet.find(name).is_some(), "{name}");
        }
        let wrn = parameters("wrn22-2", [3, 32, 32], 10);
        assert!(wrn.find("groups.2.blocks.1.conv2.weight").is_some());
        let vgg = parameters("vgg16-bn", [3, 32, 32], 10);
        for name in [
            "features.0.weight",
            "features.0.bias",
            "features.1.running_var",
            "features.40.weight",
            "classifier.weight",
        ] {
            assert!(vgg.find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_last_batch_norm_of_a_residual_block_starts_at_zero() {
        let p = parameters("resnet50", [3, 32, 32], 10);
        let init = |name: &str| p[p.find(name).unwrap()].init;
        assert_eq!(init("layer1.0.bn3.weight"), Init::Constant(0.0));
        assert_eq!(init("layer1.0.bn2.weight"), Init::Constant(1.0));
    }

    #[test]
    fn an_image_of_the_wrong_shape_is_an_error_that_names_the_layer() {
        let mut graph = Graph::new(Mode::Train, Parameters::default());
        let images = graph.input("images", Shape::images(2, 3, 1, 1));
        let error = Vgg16 { width: 1.0 }.record(&mut graph, images, 10).unwrap_err().to_string();
        assert!(error.contains("max_pool") && error.contains("features.6"), "{error}");
    }

    #[test]
    fn initial_weights_have_the_asked_spread() {
        let p = Parameter {
            name: "w".into(),
            dims: vec![100, 100],
            role: crate::graph::Role::Weight,
            init: Init::Normal { std: 0.5 },
        };
        let values = initial_values(&p, 1, 0);
        let variance = values.iter().map(|x| f64::from(x * x)).sum::<f64>() / 1e4;
        assert!((variance.sqrt() - 0.5).abs() < 0.02);
        assert_ne!(values, initial_values(&p, 1, 1), "each parameter has draws of its own");
    }
}
