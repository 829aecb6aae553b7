//! What can be typed after `cigl calibrate`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::file_ending;
use crate::calibration::recalibration;

/// More bins than confidences can be told apart by.
const MAX_BINS: i64 = 10_000;

/// Options of `cigl calibrate`.
#[derive(Args, Clone, Debug)]
pub struct CalibrateArgs {
    /// The predictions: .npz, .npy, .csv or .safetensors
    #[arg(value_name = "PREDICTIONS")]
    pub predictions: PathBuf,
    /// The labels, where they are not in the file: .npy, .csv, .npz or .safetensors
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What the scores of all files are; default: what an array's name or the first rows say
    #[arg(long, value_enum)]
    pub kind: Option<ScoreKind>,
    /// Number of bins of every calibration error but ece_10
    #[arg(long, value_name = "B", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=MAX_BINS))]
    pub bins: u16,
    /// Bins of equal width or of equal mass, for ece, rmsce, mce, l2_debiased_sq and the diagram
    #[arg(long, value_enum, default_value_t = BinScheme::Width)]
    pub scheme: BinScheme,
    /// Recalibrate the predictions by a map fitted on those of --fit
    #[arg(long, value_name = "METHOD", value_enum, requires = "fit")]
    pub recalibrate: Option<Recalibration>,
    /// With histogram or isotonic: map the confidence alone, so that predictions stay
    #[arg(long, requires = "recalibrate")]
    pub top_label: bool,
    /// Validation predictions to fit on
    #[arg(long, value_name = "VALIDATION", requires = "recalibrate")]
    pub fit: Option<PathBuf>,
    /// The labels of --fit, where they are not in the file
    #[arg(long, value_name = "FILE", requires = "fit")]
    pub fit_labels: Option<PathBuf>,
    /// Write what was fitted to this file, for --apply
    #[arg(long, value_name = "FILE", requires = "recalibrate")]
    pub save: Option<PathBuf>,
    /// Recalibrate the predictions by a map that --save wrote
    #[arg(long, value_name = "FILE", conflicts_with = "recalibrate")]
    pub apply: Option<PathBuf>,
    /// Predictions of out-of-distribution samples, to be told apart by their confidence; labels in it are not looked at
    #[arg(long, value_name = "FILE")]
    pub ood: Option<PathBuf>,
    /// Add 95 % bootstrap intervals
    #[arg(long)]
    pub intervals: bool,
    /// The intervals' seed
    #[arg(long, value_name = "N", default_value_t = 0, requires = "intervals")]
    pub seed: u64,
    /// Draw the reliability diagram to this file, and beside it -confidence and -bins
    #[arg(long, value_name = "OUT.svg|.png", value_parser = svg_or_png)]
    pub plot: Option<PathBuf>,
    /// Threads; default: as many as the machine has. Results do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print the metrics and bins as JSON
    #[arg(long)]
    pub json: bool,
}

/// What scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScoreKind {
    /// Unnormalised log-probabilities
    Logits,
    /// Probabilities that add up to 1
    Probs,
}

/// How confidences are divided into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BinScheme {
    /// Bins of equal width
    Width,
    /// Bins of equal mass
    Mass,
}

/// A way to recalibrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Recalibration {
    /// One scalar divides the logits
    Temperature,
    /// A factor and a shift for each class's logits
    Vector,
    /// Hit rates of 15 bins of each class's probability
    Histogram,
    /// A rising curve for each class's probability
    Isotonic,
}

impl From<Recalibration> for recalibration::Method {
    fn from(choice: Recalibration) -> Self {
        match choice {
            Recalibration::Temperature => Self::Temperature,
            Recalibration::Vector => Self::Vector,
            Recalibration::Histogram => Self::Histogram,
            Recalibration::Isotonic => Self::Isotonic,
        }
    }
}

fn svg_or_png(text: &str) -> Result<PathBuf, String> {
    file_ending(text, &["svg", "png"])
}
