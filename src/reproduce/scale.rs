//! How much of an experiment is run: as published, in minutes, or in seconds.

use toml::Value;

use super::experiment::Setting;
use crate::Result;
use crate::config::{Assignment, NetworkName};
use crate::data::Source;

/// The scale of a reproduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As published.
    Paper,
    /// WRN-22-2 on the first images of the data set, for a CPU.
    Short,
    /// The small convnet on handwritten digits, for tests.
    Smoke,
}

impl Scale {
    /// The names on the command line.
    pub const NAMES: [&str; 3] = ["paper", "short", "smoke"];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Scale::NAMES[self as usize]
    }

    /// What it means, for whoever reads its numbers.
    pub fn about(self) -> &'static str {
        match self {
            Scale::Paper => "as published: 250 epochs on CIFAR, 100 on ImageNet, all images",
            Scale::Short => {
                "short: WRN-22-2 in place of every network, the first 3,500 training images (the last 500 of them for \
                 validation) and the first 2,000 test images, 40 epochs, a mask update every 20 steps, averaging from epoch 32; \
                 not the paper's experiment, so only directions can be compared"
            }
            Scale::Smoke => {
                "smoke: the small convnet on 576 handwritten digits for 6 epochs, to see that everything works; \
                 its numbers mean nothing"
            }
        }
    }

    /// What is run in place of a published setting; nothing stands in for ImageNet.
    pub fn setting(self, published: Setting) -> Option<Setting> {
        match (self, published.dataset) {
            (Scale::Paper, _) => Some(published),
            (_, Source::ImageNet) => None,
            (Scale::Short, dataset) => Some(Setting { dataset, network: NetworkName::Wrn22_2 }),
            (Scale::Smoke, _) => Some(Setting { dataset: Source::Digits, network: NetworkName::SmallConvnet }),
        }
    }

    /// The preset of a setting that [`setting`](Self::setting) gave.
    pub(super) fn preset(self, setting: Setting) -> &'static str {
        match (setting.network, setting.dataset) {
            (NetworkName::Wrn22_2, _) => "cifar10-wrn22-2",
            (NetworkName::Resnet50, Source::Cifar100) => "cifar100-resnet50",
            (NetworkName::Resnet50, _) => "cifar10-resnet50",
            (NetworkName::Resnet50Imagenet, _) => "imagenet-resnet50",
            _ => "digits",
        }
    }

    /// What it changes in the preset.
    pub(super) fn assignments(self, setting: Setting) -> Result<Vec<Assignment>> {
        let changes: &[(&str, i64)] = match self {
            Scale::Paper => &[],
            Scale::Short => &[
                ("data.train_limit", 3_500),
                ("data.validation", 500),
                ("data.test_limit", 2_000),
                ("sparse.delta_t", 20),
                ("train.epochs", 40),
                ("averaging.start", 32),
            ],
            Scale::Smoke => &[
                ("data.train_limit", 640),
                ("data.validation", 64),
                ("data.test_limit", 200),
                ("sparse.delta_t", 5),
                ("train.epochs", 6),
            ],
        };
        let mut all = vec![("data.dataset", Value::from(setting.dataset.name()))];
        all.extend(changes.iter().map(|&(key, value)| (key, Value::from(value))));
        all.into_iter().map(|(key, value)| Assignment::new(key, value)).collect()
    }

    /// Which of an experiment's sparsities are run where none are asked for. Dense networks always are.
    pub fn sparsities(self, published: &[f64]) -> Vec<f64> {
        let run = |sparsity: &f64| self == Scale::Paper || [0.0, 0.9, 0.95].contains(sparsity);
        published.iter().copied().filter(run).collect()
    }

    /// The seeds that are run where no number is asked for.
    pub fn seeds(self) -> u64 {
        if self == Scale::Paper { 3 } else { 1 }
    }
}
