//! A trained network as other programs read it: PyTorch, ONNX runtimes, or this one from a smaller file.

mod onnx;
mod torchvision;

use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::model::Model;
use crate::train::checkpoint::{save_model, write_atomically};
use crate::train::masked_weight::Form;
use crate::train::trained::{About, Trained};

pub use onnx::OPSET;
pub use torchvision::state_dict_fits;

/// What a network can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors with exactly the tensors of torchvision's `state_dict` for this network, under its names. Masked weights are
    /// zeros.
    Torchvision,
    /// safetensors with our names, and masks as bytes: `checkpoint/model.safetensors` again.
    Dense,
    /// safetensors with our names, masks as bits and only the values inside them; this program takes it wherever it takes
    /// `model.safetensors`.
    Sparse,
    /// ONNX, the deterministic network in f32.
    Onnx,
}

/// Writes a trained network to `path`, whole or not at all.
///
/// # Errors
/// [`Error::Usage`] where the network cannot be had in that format: torchvision has none such, or it predicts by a mean over several
/// networks; [`Error::File`] where the file cannot be written.
pub fn export(trained: &mut Trained, format: Format, path: &Path) -> Result<()> {
    check_is_one_network(trained, format)?;
    // Snapshots stay where they are.
    let about = About { snapshots: 0, ..trained.about.clone() };
    match format {
        Format::Torchvision => {
            torchvision::check(&trained.config)?;
            write_atomically(path, &torchvision::state_dict(trained.model(), &about)?)
        }
        Format::Dense => save_model(trained.model(), &about, Form::Dense, path),
        Format::Sparse => save_model(trained.model(), &about, Form::Sparse, path),
        Format::Onnx => write_atomically(path, &onnx::encode(trained.model(), &about)?),
    }
}

/// The bytes of all parameters and statistics as f32.
pub fn dense_bytes(trained: &mut Trained) -> u64 {
    trained.model().parameters().iter().map(|(_, p)| 4 * p.len() as u64).sum()
}

/// A file holds one network's weights, and an ONNX model is one pass.
fn check_is_one_network(trained: &Trained, format: Format) -> Result<()> {
    let method = trained.config.method;
    if trained.config.ingredients().ensemble && trained.about.snapshots > 0 {
        return Err(Error::Usage(format!(
            "a run of {method} predicts by the mean over its {} snapshots, which no one file holds: export a run of cigl, \
             which averages them to one network, or take checkpoint/snapshot-*.safetensors, which are sparse files already",
            trained.about.snapshots
        )));
    }
    if format == Format::Onnx && trained.config.ingredients().mc_samples > 0 {
        return Err(Error::Usage(format!(
            "a run of {method} predicts by the mean over {} passes with random masks, which is no ONNX model of one pass: \
             export its weights with --format safetensors or sparse",
            trained.config.ingredients().mc_samples
        )));
    }
    Ok(())
}

/// A parameter's values in the order of files, zeros outside its mask.
fn values(model: &mut Model, id: ParameterId) -> Result<Vec<f32>> {
    let mut values = model.read(id, model.value(id))?;
    if let Some(weight) = model.weight(id) {
        let mask = model.read_mask(id, weight)?;
        values.iter_mut().zip(mask).filter(|(_, bit)| *bit == 0).for_each(|(value, _)| *value = 0.0);
    }
    Ok(values)
}
