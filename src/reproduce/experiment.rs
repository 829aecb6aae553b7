//! The paper's tables and figures as data: which networks, methods and sparsities each one shows.

use crate::config::key::did_you_mean;
use crate::config::{Method, NetworkName};
use crate::data::Source;
use crate::{Error, Result};

/// A table or figure of the paper (method.md section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Experiment {
    /// Accuracy of RigL and CigL, ResNet-50 on CIFAR-10 and CIFAR-100.
    Table1,
    /// Accuracy of four methods on CIFAR-10, ResNet-50 and WRN-22-2.
    Table2,
    /// ECE of the same.
    Table3,
    /// RigL on CIFAR-100 from dense to 99.9 % sparse.
    Fig1c,
    /// ECE of RigL and CigL with 95 % intervals.
    Fig2,
    /// The same on ImageNet.
    Fig3,
    /// ECE of CigL beside mixup, label smoothing and temperature scaling.
    Fig4,
    /// CigL without its parts.
    Fig5,
    /// Replacing W by Z W, with a fresh Z, in a network trained without Z.
    AppendixC,
}

/// A network on a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The data set.
    pub dataset: Source,
    /// The network.
    pub network: NetworkName,
}

/// What a row of a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A method's result. At sparsity 0 that is the dense network, whatever the method.
    Method(Method),
    /// RigL's network under a random mask that it was not trained with.
    FreshMask,
}

/// The rows of a table that belong to one network and data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The network and its data.
    pub setting: Setting,
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// In rising order.
    pub sparsities: Vec<f64>,
}

/// How an experiment is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Curves over sparsity.
    Curves,
    /// One spoke a sparsity.
    Radar,
    /// Bars in groups, one group a sparsity.
    Bars,
}

/// A number that tables show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Fraction of right predictions, shown in percent.
    Accuracy,
    /// The expected calibration error of the paper's code: 10 bins [lo, hi), a fraction.
    Ece,
    /// Mean negative log-likelihood in nats.
    Nll,
}

const R50_CIFAR10: Setting = Setting { dataset: Source::Cifar10, network: NetworkName::Resnet50 };
const R50_CIFAR100: Setting = Setting { dataset: Source::Cifar100, network: NetworkName::Resnet50 };
const WRN_CIFAR10: Setting = Setting { dataset: Source::Cifar10, network: NetworkName::Wrn22_2 };
const R50_IMAGENET: Setting = Setting { dataset: Source::ImageNet, network: NetworkName::Resnet50Imagenet };

const RIGL: Row = Row::Method(Method::Rigl);
const CIGL: Row = Row::Method(Method::Cigl);
/// The sparsities of most of the paper.
const USUAL: [f64; 4] = [0.8, 0.9, 0.95, 0.99];

impl Experiment {
    /// All of them, in the paper's order.
    pub const ALL: [Experiment; 9] = [
        Experiment::Table1,
        Experiment::Table2,
        Experiment::Table3,
        Experiment::Fig1c,
        Experiment::Fig2,
        Experiment::Fig3,
        Experiment::Fig4,
        Experiment::Fig5,
        Experiment::AppendixC,
    ];

    /// The names on the command line, in the same order.
    pub const NAMES: [&str; 9] = ["table1", "table2", "table3", "fig1c", "fig2", "fig3", "fig4", "fig5", "appendix-c"];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Experiment::NAMES[self as usize]
    }

    /// What it shows, in a line.
    pub fn title(self) -> &'static str {
        match self {
            Experiment::Table1 => "Table 1: accuracy of RigL and CigL",
            Experiment::Table2 => "Table 2: accuracy of RigL, its dropout variants and CigL",
            Experiment::Table3 => "Table 3: ECE of RigL, its dropout variants and CigL",
            Experiment::Fig1c => "Figure 1c: RigL from dense to very sparse",
            Experiment::Fig2 => "Figure 2: ECE of RigL and CigL",
            Experiment::Fig3 => "Figure 3: RigL and CigL on ImageNet",
            Experiment::Fig4 => "Figure 4: CigL beside other ways to calibrate",
            Experiment::Fig5 => "Figure 5: CigL without its parts",
            Experiment::AppendixC => "Appendix C: W against Z W with a fresh Z",
        }
    }

    /// The measures that it shows, the one that it is about first. Accuracy, ECE and NLL are always together, for ECE falls
    /// when accuracy collapses.
    pub fn measures(self) -> [Measure; 3] {
        match self {
            Experiment::Table1 | Experiment::Table2 | Experiment::AppendixC => {
                [Measure::Accuracy, Measure::Ece, Measure::Nll]
            }
            _ => [Measure::Ece, Measure::Accuracy, Measure::Nll],
        }
    }

    /// How it is drawn.
    pub fn figure(self) -> Figure {
        match self {
            Experiment::Fig4 => Figure::Radar,
            Experiment::Fig5 => Figure::Bars,
            _ => Figure::Curves,
        }
    }

    /// Its cells in the paper. Figures 4 and 5 do not say their data set: CIFAR-10 with ResNet-50 is assumed.
    pub fn blocks(self) -> Vec<Block> {
        let block = |setting, rows: &[Row], sparsities: &[f64]| Block {
            setting,
            rows: rows.to_vec(),
            sparsities: sparsities.to_vec(),
        };
        let methods = |methods: &[Method]| methods.iter().map(|&method| Row::Method(method)).collect::<Vec<_>>();
        let baselines = methods(&[Method::Rigl, Method::RiglWdp, Method::RiglMcdp, Method::Cigl]);
        match self {
            Experiment::Table1 => [R50_CIFAR10, R50_CIFAR100].map(|s| block(s, &[RIGL, CIGL], &USUAL)).into(),
            Experiment::Table2 | Experiment::Table3 => {
                [R50_CIFAR10, WRN_CIFAR10].map(|s| block(s, &baselines, &USUAL)).into()
            }
            Experiment::Fig1c => {
                let range = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.997, 0.999];
                vec![block(R50_CIFAR100, &[RIGL], &range)]
            }
            Experiment::Fig2 => {
                [R50_CIFAR10, WRN_CIFAR10, R50_CIFAR100].map(|s| block(s, &[RIGL, CIGL], &USUAL)).into()
            }
            Experiment::Fig3 => vec![block(R50_IMAGENET, &[RIGL, CIGL], &[0.8, 0.9])],
            Experiment::Fig4 => {
                let rows = [Method::Rigl, Method::RiglMixup, Method::RiglTs, Method::RiglLs, Method::Cigl];
                vec![block(R50_CIFAR10, &methods(&rows), &USUAL)]
            }
            Experiment::Fig5 => {
                let rows = [Method::Rigl, Method::CiglNoRm, Method::CiglNoWma, Method::Cigl];
                vec![block(R50_CIFAR10, &methods(&rows), &USUAL)]
            }
            Experiment::AppendixC => {
                vec![block(R50_CIFAR10, &[RIGL, Row::FreshMask], &[0.0, 0.8, 0.9, 0.95, 0.99])]
            }
        }
    }
}

impl std::str::FromStr for Experiment {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let at = Experiment::NAMES.iter().position(|known| *known == name);
        at.map(|at| Experiment::ALL[at]).ok_or_else(|| {
            Error::Usage(format!("unknown experiment {name:?}{}", did_you_mean(name, Experiment::NAMES)))
        })
    }
}

impl Setting {
    /// As in "CIFAR-10, ResNet-50".
    pub fn title(self) -> String {
        format!("{}, {}", self.dataset.title(), self.network.title())
    }
}

impl Row {
    /// The row's name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Row::Method(method) => method.name(),
            Row::FreshMask => "rigl, fresh Z",
        }
    }

    /// The method that has to be trained for it at `sparsity`.
    pub fn trained_as(self, sparsity: f64) -> Method {
        match self {
            _ if sparsity == 0.0 => Method::Dense,
            Row::Method(method) => method.trained_as(),
            Row::FreshMask => Method::Rigl,
        }
    }
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 3] = [Measure::Accuracy, Measure::Ece, Measure::Nll];

    /// The name in tables, with its unit.
    pub fn title(self) -> &'static str {
        match self {
            Measure::Accuracy => "accuracy (%)",
            Measure::Ece => "ECE (10 bins)",
            Measure::Nll => "NLL",
        }
    }

    /// The name in files: that of the published numbers, or of `summary.json`.
    pub fn key(self) -> &'static str {
        match self {
            Measure::Accuracy => "accuracy",
            Measure::Ece => "ece_10",
            Measure::Nll => "nll",
        }
    }

    /// What one unit of it is shown as, and with how many decimals.
    pub fn shown(self) -> (f64, usize) {
        match self {
            Measure::Accuracy => (100.0, 2),
            Measure::Ece => (1.0, 4),
            Measure::Nll => (1.0, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_experiments_are_in_the_same_order() {
        for (experiment, name) in Experiment::ALL.into_iter().zip(Experiment::NAMES) {
            assert_eq!((name.parse::<Experiment>().unwrap(), experiment.name()), (experiment, name));
        }
        let error = "tabel3".parse::<Experiment>().unwrap_err().to_string();
        assert_eq!(error, "unknown experiment \"tabel3\"; did you mean table3?");
    }

    // method.md section 5: RigL + MC-DP reuses W-DP's training, w/o WMA CigL's.
    #[test]
    fn rows_share_what_is_trained_alike() {
        for (row, sparsity, expected) in [
            (Row::Method(Method::RiglMcdp), 0.9, Method::RiglWdp),
            (Row::Method(Method::RiglTs), 0.9, Method::Rigl),
            (Row::Method(Method::CiglNoWma), 0.9, Method::Cigl),
            (Row::Method(Method::CiglNoRm), 0.9, Method::CiglNoRm),
            (Row::FreshMask, 0.9, Method::Rigl),
            (Row::FreshMask, 0.0, Method::Dense),
            (Row::Method(Method::Rigl), 0.0, Method::Dense),
        ] {
            assert_eq!(row.trained_as(sparsity), expected, "{row:?} at {sparsity}");
        }
    }
}
