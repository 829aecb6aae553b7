//! What can be typed after `cigl export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of `cigl export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A run folder, or a model file in one
    #[arg(value_name = "RUN|MODEL.safetensors")]
    pub model: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = ExportFormat::Safetensors)]
    pub format: ExportFormat,
    /// Of safetensors: whose tensors; default: torchvision's where torchvision has the network, else cigl's
    #[arg(long, value_enum)]
    pub names: Option<Names>,
    /// The file to write; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What `cigl export` can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Every value in f32, for PyTorch
    Safetensors,
    /// Masks as bits and the values inside them: the smallest file that eval, predict and train.init take
    Sparse,
    /// The network itself, for ONNX runtimes: from normalised images to logits, in f32
    Onnx,
}

/// Whose tensors a safetensors file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// What torchvision's load_state_dict takes, and nothing else
    Torchvision,
    /// Parameters, statistics and masks, as in model.safetensors
    Cigl,
}
