//! An experiment as data: everything a run depends on, from presets, files and the command line.

pub mod amount;
mod device;
pub mod key;
pub mod method;
pub mod preset;
mod resolve;

pub use amount::{Epoch, Steps};
pub use device::Device;
pub use method::{Ingredients, MaskUpdates, Method};
pub use resolve::{Assignment, Settings};

use crate::backend::Precision;
use crate::data::{Limits, Source};
use crate::sparse::density::Distribution;
use crate::sparse::schedule::DropSchedule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything a run depends on, resolved and checked. [`key::KEYS`] says what each field means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The program that resolved it.
    pub version: String,
    /// The preset it is based on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The method of training.
    pub method: Method,
    /// Fraction of the masked tensors' weights that are 0, in [0, 1); 0 for [`Method::Dense`].
    pub sparsity: f64,
    /// Every random number follows from it.
    pub seed: u64,
    /// Where the work is done.
    pub device: Device,
    /// How activations, their gradients and effective weights are stored; the device's own way if not given. A run records what it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The optimiser and its schedule.
    pub train: Train,
    /// The images.
    pub data: Data,
    /// The network.
    pub network: Network,
    /// The deterministic mask M.
    pub sparse: Sparse,
    /// The random mask Z.
    pub random_mask: RandomMask,
    /// Weight and mask averaging.
    pub averaging: Averaging,
}

/// Section `train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Epochs before [`Train::multiplier`].
    pub epochs: u64,
    /// Stop after so many steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Stretches epochs and schedules.
    pub multiplier: f64,
    /// Images per step.
    pub batch_size: usize,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the learning rate after the warm-up.
    pub lr_schedule: LrDecay,
    /// Length of the linear warm-up.
    pub warmup_steps: Steps,
    /// Where the step schedule decays.
    pub lr_milestones: Vec<Steps>,
    /// Factor of each decay.
    pub lr_factor: f64,
    /// Momentum of SGD, first beta of Adam.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Second beta of Adam.
    pub adam_beta2: f64,
    /// Epsilon of Adam.
    pub adam_epsilon: f64,
    /// L2 decay, a term of the gradient.
    pub weight_decay: f64,
    /// Whether biases and batch-norm parameters (rank 1) decay too.
    pub decay_biases: bool,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// Alpha of mixup; 0 is none.
    pub mixup: f64,
    /// Whose hyper-parameters the preset gives.
    pub recipe: Recipe,
    /// Weights and masks to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Log every Nth step.
    pub log_every: u64,
}

/// Section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The data set.
    pub dataset: Source,
    /// The folder with the files, or a parent of it; without one, what the program embeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Use the first N training images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use the first N test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Set apart the last N of what the limit leaves.
    pub validation: usize,
    /// Shuffle every epoch; else file order.
    pub shuffle: bool,
    /// Augment the training images as the data set's recipe says.
    pub augment: bool,
    /// Drop the last, partial batch of an epoch.
    pub drop_last: bool,
}

/// Section `network`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Which network.
    pub name: NetworkName,
    /// Number of logits; the data's classes if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Widths of the MLP's hidden layers.
    pub hidden: Vec<usize>,
    /// Dropout inside the blocks of WRN-22-2.
    pub dropout: f64,
}

/// Section `sparse`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    /// How the density is spread over the layers.
    pub distribution: Distribution,
    /// Leave the first convolution dense.
    pub dense_first: bool,
    /// Initial drop fraction.
    pub alpha: f64,
    /// Steps from one mask update to the next.
    pub delta_t: u64,
    /// Where the mask is frozen.
    pub t_end: Steps,
    /// Fall of the drop fraction.
    pub schedule: DropSchedule,
    /// The finished run that [`Method::Lottery`] takes its masks from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_from: Option<PathBuf>,
}

/// Section `random_mask`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RandomMask {
    /// Probability that a weight is kept at a step.
    pub keep: Keep,
    /// As published, or as the released code executes.
    pub semantics: Semantics,
    /// Momentum of the weights masked at a step.
    pub momentum: MaskedMomentum,
    /// Whether kept weights are scaled up.
    pub rescale: Rescale,
}

/// Section `averaging`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averaging {
    /// T*, the first averaged epoch.
    pub start: Epoch,
    /// Start before the last mask update, and prune the average to the target.
    pub reprune: bool,
    /// Keep the snapshots beside their average.
    pub keep_snapshots: bool,
}

/// A keep probability, in (0, 1], everywhere or by layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "KeepForm", into = "KeepForm")]
pub struct Keep {
    /// That of every layer without one of its own.
    pub default: f64,
    /// By the name of the masked tensor.
    pub layers: BTreeMap<String, f64>,
}

impl Keep {
    /// The keep probability of the masked tensor `name`.
    pub fn of(&self, name: &str) -> f64 {
        self.layers.get(name).copied().unwrap_or(self.default)
    }

    /// Checks that every layer with a probability of its own is one of the masked tensors.
    ///
    /// # Errors
    /// The first that is not, with the nearest that is.
    pub fn check_layers(&self, masked: &[&str]) -> Result<()> {
        match self.layers.keys().find(|name| !masked.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let hint = key::did_you_mean(name, masked.iter().copied());
                Err(Error::Usage(format!("random_mask.keep: the network has no masked tensor {name}{hint}")))
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeepForm {
    Everywhere(f64),
    ByLayer {
        default: f64,
        #[serde(flatten)]
        layers: BTreeMap<String, f64>,
    },
}

impl From<KeepForm> for Keep {
    fn from(form: KeepForm) -> Self {
        match form {
            KeepForm::Everywhere(default) => Keep { default, layers: BTreeMap::new() },
            KeepForm::ByLayer { default, layers } => Keep { default, layers },
        }
    }
}

impl From<Keep> for KeepForm {
    fn from(Keep { default, layers }: Keep) -> Self {
        if layers.is_empty() { KeepForm::Everywhere(default) } else { KeepForm::ByLayer { default, layers } }
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$item])* $variant),* }
    };
}

choice! {
    /// The optimiser.
    Optimizer {
        /// Stochastic gradient descent with momentum, as PyTorch's: v = mu v + g, w -= lr (g + mu v) with Nesterov.
        Sgd,
        /// Adam (Kingma & Ba 2015).
        Adam,
    }
}

choice! {
    /// Decay of the learning rate after the warm-up.
    LrDecay {
        /// By a factor at each milestone.
        Step,
        /// Half a cosine, down to 0 at the end.
        Cosine,
    }
}

choice! {
    /// Whose hyper-parameters a preset gives (method.md section 5).
    Recipe {
        /// Those of CigL's configuration files.
        Cigl,
        /// Those of plain RigL in the repository that CigL's was forked from.
        Rigl,
    }
}

choice! {
    /// The networks that are known by name.
    NetworkName {
        /// A multi-layer perceptron.
        Mlp,
        /// The small convnet of method.md section 10.
        SmallConvnet,
        /// ResNet-18, CIFAR form.
        #[serde(rename = "resnet18")]
        Resnet18,
        /// ResNet-50, CIFAR form.
        #[serde(rename = "resnet50")]
        Resnet50,
        /// ResNet-18, ImageNet form.
        #[serde(rename = "resnet18-imagenet")]
        Resnet18Imagenet,
        /// ResNet-50 v1.5, ImageNet form.
        #[serde(rename = "resnet50-imagenet")]
        Resnet50Imagenet,
        /// WRN-22-2.
        #[serde(rename = "wrn22-2")]
        Wrn22_2,
        /// VGG-16 with batch norm, CIFAR form.
        #[serde(rename = "vgg16-bn")]
        Vgg16Bn,
    }
}

choice! {
    /// What a random mask does in a step (method.md section 3).
    Semantics {
        /// As published: one Z in the forward pass, the gradient, the decay and the averaged sample.
        Paper,
        /// What the released code does: the gradient under Z(t - 1), the update under Z(t).
        Official,
    }
}

choice! {
    /// Momentum of the weights that Z masks at a step, under [`Semantics::Paper`].
    MaskedMomentum {
        /// Weight and momentum stay as they are.
        Frozen,
        /// The momentum decays and moves the weight.
        Decay,
    }
}

choice! {
    /// Whether the weights that Z keeps are scaled up.
    Rescale {
        /// Not, as in the paper.
        None,
        /// Divided by keep, as inverted dropout does.
        Inverted,
    }
}

impl Recipe {
    /// The names in configurations, in the order of the variants.
    pub const NAMES: [&str; 2] = ["cigl", "rigl"];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        Recipe::NAMES[self as usize]
    }
}

impl Semantics {
    /// The names in configurations, in the order of the variants.
    pub const NAMES: [&str; 2] = ["paper", "official"];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        Semantics::NAMES[self as usize]
    }
}

impl NetworkName {
    /// The names in configurations, in the order of the variants.
    pub const NAMES: [&str; 8] = [
        "mlp",
        "small-convnet",
        "resnet18",
        "resnet50",
        "resnet18-imagenet",
        "resnet50-imagenet",
        "wrn22-2",
        "vgg16-bn",
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        NetworkName::NAMES[self as usize]
    }

    /// The name in prose.
    pub fn title(self) -> &'static str {
        match self {
            NetworkName::Mlp => "MLP",
            NetworkName::SmallConvnet => "small convnet",
            NetworkName::Resnet18 | NetworkName::Resnet18Imagenet => "ResNet-18",
            NetworkName::Resnet50 | NetworkName::Resnet50Imagenet => "ResNet-50",
            NetworkName::Wrn22_2 => "WRN-22-2",
            NetworkName::Vgg16Bn => "VGG-16-BN",
        }
    }
}

impl Config {
    /// The target density 1 - sparsity, free of that subtraction's rounding error (1 - 0.9 is 0.1).
    pub fn density(&self) -> f64 {
        ((1.0 - self.sparsity) * 1e12).round() / 1e12
    }

    /// The density of the masks once training is over: 1 for the methods that mask nothing.
    pub fn mask_density(&self) -> f64 {
        if self.ingredients().updates == MaskUpdates::Dense { 1.0 } else { self.density() }
    }

    /// The factor on every layer's width: sqrt(density) for [`Method::SmallDense`], else 1.
    pub fn width_factor(&self) -> f64 {
        if self.method == Method::SmallDense { self.density().sqrt() } else { 1.0 }
    }

    /// What the method consists of.
    pub fn ingredients(&self) -> Ingredients {
        self.method.ingredients()
    }

    /// Whether every snapshot becomes a file of the run.
    pub fn keeps_snapshots(&self) -> bool {
        let parts = self.ingredients();
        parts.ensemble || (parts.averaging && self.averaging.keep_snapshots)
    }

    /// The keep probability of the masked tensor `name` in training: 1 for a method without a random mask.
    pub fn keep(&self, name: &str) -> f64 {
        if self.ingredients().random_mask { self.random_mask.keep.of(name) } else { 1.0 }
    }

    /// Epochs of training, the multiplier applied and halves rounded up.
    pub fn epochs(&self) -> u64 {
        amount::round_half_up(self.train.epochs as f64 * self.train.multiplier).max(1)
    }

    /// T*, the first epoch that a snapshot is taken of.
    pub fn first_snapshot(&self) -> u64 {
        self.averaging.start.resolve(self.epochs(), self.train.multiplier)
    }

    /// How much of the data is used.
    pub fn limits(&self) -> Limits {
        let Data { train_limit, test_limit, validation, .. } = self.data;
        Limits { train_limit, test_limit, validation }
    }

    /// Splits `available` training images (the file's) into those to train on, which come first, and for validation.
    ///
    /// # Errors
    /// Those of [`Limits::split_sizes`].
    pub fn split(&self, available: usize) -> Result<(usize, usize)> {
        self.limits().split_sizes(available)
    }

    /// The first key that makes `other` another experiment; where the data is, on which device and by which version of the program is
    /// no difference, and neither is a precision that only one of them gives.
    pub fn first_difference(&self, other: &Config) -> Option<String> {
        let table = |config: &Config, other: &Config| {
            let precision = config.precision.or(other.precision);
            let mut config = Config { version: String::new(), device: Device::Auto, precision, ..config.clone() };
            config.data.dir = None;
            toml::Table::try_from(config).expect("to_toml says why")
        };
        difference("", &table(self, other), &table(other, self))
    }

    /// The configuration as TOML with every value written out; [`Config::from_toml`] reads it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is made of what TOML can hold: no integer is above i64::MAX")
    }
}

fn difference(prefix: &str, a: &toml::Table, b: &toml::Table) -> Option<String> {
    a.keys().chain(b.keys()).find_map(|name| match (a.get(name), b.get(name)) {
        (Some(toml::Value::Table(a)), Some(toml::Value::Table(b))) => difference(&format!("{prefix}{name}."), a, b),
        (a, b) => (a != b).then(|| format!("{prefix}{name}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_name_is_the_one_it_is_written_with() {
        for name in NetworkName::NAMES {
            let network: NetworkName = toml::Value::String(name.into()).try_into().unwrap();
            assert_eq!((network.name(), toml::Value::try_from(network).unwrap().as_str()), (name, Some(name)));
            assert!(crate::nn::NETWORKS.contains(&name), "{name} can be configured but not built");
        }
        assert_eq!(NetworkName::NAMES.len(), crate::nn::NETWORKS.len());
    }

    // method.md section 5: the multiplier stretches the 250 epochs; averaging starts at 80 % of them.
    #[test]
    fn epochs_and_the_first_snapshot_follow_the_multiplier() {
        for (multiplier, expected) in [("1", (250, 200)), ("2", (500, 400)), ("0.5", (125, 100)), ("0.001", (1, 1))] {
            let set = [Assignment::parse(&format!("train.multiplier={multiplier}")).unwrap()];
            let config = Config::resolve(Some("cifar10-resnet50"), None, &set).unwrap();
            assert_eq!((config.epochs(), config.first_snapshot()), expected, "{multiplier}");
        }
    }

    // method.md section 5: CIFAR sets 5,000 apart, the others none.
    #[test]
    fn only_the_cifar_presets_set_images_apart() {
        for name in preset::names() {
            let config = Config::resolve(Some(name), None, &[]).unwrap();
            let cifar = matches!(config.data.dataset, Source::Cifar10 | Source::Cifar100);
            assert_eq!(config.data.validation, if cifar { 5_000 } else { 0 }, "{name}");
        }
    }
}
