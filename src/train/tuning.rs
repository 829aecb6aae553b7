//! Which kernel each layer multiplies on, measured on this machine: `tuning.json` in a run folder.
//!
//! A sparse layer can run on its index of nonzero weights or densely, with the zeros. Both give the same bits, so this is a question of speed
//! alone, and a constant for each instruction set answers it well. Measuring answers it for these layers, this batch size and this machine.

use serde::{Deserialize, Serialize};

use super::checkpoint::write_atomically;
use super::run_folder::RunFolder;
use crate::backend::{Extent, StepState};
use crate::error::{Error, Result};
use crate::model::Model;

/// Times that both kernels are measured, in turn, after one time that is not.
const ROUNDS: usize = 3;

/// A kernel for the products of a masked layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// Goes through the nonzero weights.
    Sparse,
    /// Goes through all weights.
    Dense,
}

/// What was measured of a masked layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The name of its weight.
    pub layer: String,
    /// The density of its mask when it was measured.
    pub density: f64,
    /// Milliseconds of its products in a training step, forward and backward, on the sparse kernel: the least of the rounds.
    pub sparse_ms: f64,
    /// The same on the dense kernel.
    pub dense_ms: f64,
    /// The faster one. It is taken at this density; a mask that becomes denser or sparser runs on what the constant says.
    pub kernel: Kernel,
}

/// Measures both kernels of every masked layer in steps of `batch` images, and has each layer run on the faster one. Leaves gradients
/// behind, nothing else. None on a device without a choice.
pub(super) fn measure(model: &mut Model, batch: usize) -> Result<Option<Vec<Tuned>>> {
    let names: Vec<String> = model.parameters().weights().map(|(_, p)| p.name.clone()).collect();
    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
    let mut least = vec![[f64::INFINITY; 2]; names.len()];
    for round in 0..=ROUNDS {
        for (which, sparse) in [true, false].into_iter().enumerate() {
            for layer in 0..names.len() {
                if !model.backend().prefer(layer, sparse) {
                    return Ok(None);
                }
            }
            // As in a step of training, in which the weights are new.
            model.use_deterministic_weights()?;
            let seconds = model.time_products(batch, state)?;
            if round > 0 {
                least.iter_mut().zip(seconds).for_each(|(least, s)| least[which] = least[which].min(1e3 * s));
            }
        }
    }
    let mut tuned = vec![];
    for (number, (layer, [sparse_ms, dense_ms])) in names.into_iter().zip(least).enumerate() {
        let mask = model.mask(number)?;
        let density = mask.count() as f64 / mask.len().max(1) as f64;
        let kernel = if sparse_ms <= dense_ms { Kernel::Sparse } else { Kernel::Dense };
        tuned.push(Tuned { layer, density, sparse_ms, dense_ms, kernel });
    }
    apply(model, &tuned);
    Ok(Some(tuned))
}

/// Has each layer run on the kernel that was measured to be faster.
fn apply(model: &mut Model, tuned: &[Tuned]) {
    let names: Vec<String> = model.parameters().weights().map(|(_, p)| p.name.clone()).collect();
    for (layer, name) in names.iter().enumerate() {
        if let Some(tuned) = tuned.iter().find(|tuned| tuned.layer == *name) {
            model.backend().prefer(layer, tuned.kernel == Kernel::Sparse);
        }
    }
}

/// Measures, and keeps the choice in the run's folder; says what it is in a line.
pub(super) fn tune(model: &mut Model, batch: usize, folder: &RunFolder) -> Result<String> {
    let Some(tuned) = measure(model, batch)? else {
        return Ok("nothing to tune: this device has one kernel for sparse and dense layers".into());
    };
    let path = folder.tuning();
    let text = serde_json::to_string_pretty(&tuned).map_err(|e| Error::file_because(&path, "cannot be written", e))?;
    write_atomically(&path, (text + "\n").as_bytes())?;
    let dense = tuned.iter().filter(|tuned| tuned.kernel == Kernel::Dense).count();
    Ok(format!("tuned: {} layers run on the sparse kernels, {dense} on the dense ones", tuned.len() - dense))
}

/// Takes the choice that the run's folder keeps, where it keeps one.
pub(super) fn resume(model: &mut Model, folder: &RunFolder) -> Result<()> {
    let path = folder.tuning();
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|e| Error::file_because(&path, "could not be read", e))?,
    };
    let tuned: Vec<Tuned> =
        serde_json::from_str(&text).map_err(|e| Error::file_because(&path, "is not what --tune writes", e))?;
    apply(model, &tuned);
    Ok(())
}
