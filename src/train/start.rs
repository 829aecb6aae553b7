//! How a run starts: initial weights and masks, drawn by seed, read from a file, or taken from a finished run.

use std::path::Path;

use super::checkpoint::TensorFile;
use super::run_folder::RunFolder;
use crate::bitmask::BitMask;
use crate::config::{Config, MaskUpdates};
use crate::error::{Error, Result};
use crate::graph::Role;
use crate::model::Model;
use crate::nn::{self, Network, NetworkOptions};
use crate::rng::{self, Domain};
use crate::sparse::density::{LayerDensity, layer_densities};

/// The network that a configuration asks for.
pub fn network(config: &Config) -> Result<Box<dyn Network>> {
    let options = NetworkOptions {
        width: config.width_factor(),
        dropout: config.network.dropout,
        hidden: config.network.hidden.clone(),
    };
    nn::network(config.network.name.name(), options)
}

/// The densities that a configuration gives the masked tensors, by ordinal: at the end of training, which for pruning from dense is
/// the target.
pub fn densities(config: &Config, model: &Model) -> Result<Vec<LayerDensity>> {
    let shapes: Vec<Vec<usize>> = model.parameters().weights().map(|(_, p)| p.dims.clone()).collect();
    layer_densities(config.sparse.distribution, config.mask_density(), &shapes, config.sparse.dense_first)
}

/// Sets the initial weights and masks.
pub fn initialise(config: &Config, model: &mut Model) -> Result<()> {
    if config.ingredients().updates == MaskUpdates::Lottery {
        rewind(config, model)?;
    } else {
        model.initialise(config.seed)?;
        draw_masks(config, model)?;
    }
    if let Some(file) = &config.train.init {
        read_start(model, file)?;
    }
    clear_outside(model)
}

/// A ticket is the masks that a finished run ended with and the weights that it started from.
fn rewind(config: &Config, model: &mut Model) -> Result<()> {
    let Some(path) = &config.sparse.mask_from else {
        return Err(Error::Usage("method lottery needs sparse.mask_from, the run that found the masks".into()));
    };
    let run = RunFolder::finished(path)?;
    let found = run.config()?;
    model.initialise(found.seed)?;
    if let Some(file) = &found.train.init {
        read_parameters(model, &TensorFile::read(file)?)?;
    }
    read_masks(model, &TensorFile::read(&run.model())?)?;
    let planned: usize = densities(config, model)?.iter().map(|density| density.n_active).sum();
    let mut ones = 0;
    for weight in model.weights() {
        ones += model.mask(weight.layer)?.count();
    }
    if ones.abs_diff(planned) > model.weights().len() {
        return Err(Error::Usage(format!(
            "sparse.mask_from = {}: its masks have {ones} ones, a sparsity of {} has {planned}",
            path.display(),
            config.sparsity
        )));
    }
    Ok(())
}

/// The initial M of every layer: the n_active elements with the smallest 32-bit keys, the lower index first.
fn draw_masks(config: &Config, model: &mut Model) -> Result<()> {
    if matches!(config.ingredients().updates, MaskUpdates::Dense | MaskUpdates::Gmp) {
        return Ok(());
    }
    let densities = densities(config, model)?;
    for (weight, density) in model.weights().into_iter().zip(densities) {
        let key = |i: usize| rng::element_key(config.seed, Domain::InitialMask, weight.layer as u32, 0, i as u32);
        let mut keys: Vec<(u32, usize)> = (0..weight.len()).map(|i| (key(i), i)).collect();
        let n = density.n_active;
        if n > 0 && n < keys.len() {
            keys.select_nth_unstable(n - 1);
        }
        let mut mask = BitMask::zeros(weight.len());
        keys[..n].iter().for_each(|&(_, i)| mask.set(i, true));
        model.backend().write_mask(weight.layer, &mask)?;
    }
    Ok(())
}

/// Reads every parameter, and the masks that the file has, from `path`; names and shapes must match exactly.
fn read_start(model: &mut Model, path: &Path) -> Result<()> {
    let file = TensorFile::read(path)?;
    read_parameters(model, &file)?;
    let mut known: Vec<String> = vec![];
    for (id, p) in model.parameters().clone().iter() {
        let Some(weight) = model.weight(id) else {
            known.push(p.name.clone());
            continue;
        };
        if let Some(mask) = file.mask(&p.name, &p.dims)? {
            model.write_mask(id, weight, &mask)?;
        }
        known.extend(file.weight_names(&p.name));
    }
    file.only(&known)
}

/// Reads all parameters and statistics by name.
pub(super) fn read_parameters(model: &mut Model, file: &TensorFile) -> Result<()> {
    for (id, p) in model.parameters().clone().iter() {
        let span = model.value(id);
        let values = match model.weight(id) {
            Some(_) => file.weight(&p.name, &p.dims)?,
            None => file.floats(&p.name, &p.dims)?,
        };
        model.write(id, span, &values)?;
    }
    Ok(())
}

/// Reads the masks of all masked tensors.
pub(super) fn read_masks(model: &mut Model, file: &TensorFile) -> Result<()> {
    for (id, p) in model.parameters().clone().iter() {
        if let Some(weight) = model.weight(id) {
            let mask = file.mask(&p.name, &p.dims)?;
            let mask = mask.ok_or_else(|| file.error(format!("has no tensor {}.mask, nor {0}.bits", p.name)))?;
            model.write_mask(id, weight, &mask)?;
        }
    }
    Ok(())
}

/// Loads a result: parameters, statistics and masks of `path`, in either form of masked weights.
pub fn load_model(model: &mut Model, path: &Path) -> Result<()> {
    let file = TensorFile::read(path)?;
    model.reserve()?;
    read_parameters(model, &file)?;
    read_masks(model, &file)?;
    model.use_deterministic_weights()
}

/// Weights outside M are always exactly 0.
fn clear_outside(model: &mut Model) -> Result<()> {
    for (id, p) in model.parameters().clone().iter() {
        if p.role != Role::Weight {
            continue;
        }
        let weight = model.weight(id).ok_or_else(|| Error::shape("weight", format!("{} has no mask", p.name)))?;
        let mask = model.mask(weight.layer)?;
        let mut values = model.backend().read(weight.value)?;
        values.iter_mut().enumerate().filter(|(i, _)| !mask.get(*i)).for_each(|(_, v)| *v = 0.0);
        model.backend().write(weight.value, &values)?;
    }
    Ok(())
}
