//! Kept snapshots: samples Z M W of the network, each with its own batch-norm statistics, kept sparse.
//!
//! A weight is `NAME.bits`, one bit an element in the order of files, lowest bit first, and `NAME.values`, the values of the ones;
//! everything else is a tensor of its own name.

use std::path::{Path, PathBuf};

use super::checkpoint::{TensorFile, Tensors, write_atomically};
use super::trainer::Trainer;
use crate::backend::Span;
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::model::Model;

/// Writes the snapshot that the trainer just took.
pub(super) fn save(trainer: &mut Trainer, path: &Path) -> Result<()> {
    let mut tensors = Tensors::default();
    let taken: Vec<(ParameterId, Span)> = trainer.moments.iter().filter_map(|m| Some((m.id, m.snapshot?))).collect();
    for (id, p) in trainer.model.parameters().clone().iter() {
        let span = taken.iter().find(|(of, _)| *of == id).map_or(trainer.model.value(id), |(_, span)| *span);
        let values = trainer.model.read(id, span)?;
        if trainer.model.weight(id).is_none() {
            tensors.floats(p.name.clone(), &p.dims, &values);
            continue;
        }
        let eight = |chunk: &[f32]| chunk.iter().enumerate().fold(0, |byte, (i, x)| byte | u8::from(*x != 0.0) << i);
        let bits: Vec<u8> = values.chunks(8).map(eight).collect();
        let ones: Vec<f32> = values.into_iter().filter(|x| *x != 0.0).collect();
        tensors.floats(format!("{}.values", p.name), &[ones.len()], &ones);
        tensors.bytes(format!("{}.bits", p.name), &[bits.len()], bits);
    }
    write_atomically(path, &tensors.to_file("snapshot"))
}

/// Puts a snapshot's weights and statistics into `model`, with masks where its weights are.
pub(super) fn load(model: &mut Model, path: &Path) -> Result<()> {
    let file = TensorFile::read(path)?;
    for (id, p) in model.parameters().clone().iter() {
        let span = model.value(id);
        let Some(weight) = model.weight(id) else {
            model.write(id, span, &file.floats(&p.name, &p.dims)?)?;
            continue;
        };
        let bits = file.bytes(&format!("{}.bits", p.name), &[p.len().div_ceil(8)])?;
        let mask: Vec<u8> = (0..p.len()).map(|i| bits[i / 8] >> (i % 8) & 1).collect();
        let ones = mask.iter().filter(|&&bit| bit == 1).count();
        let mut values = file.floats(&format!("{}.values", p.name), &[ones])?.into_iter();
        let dense: Vec<f32> =
            mask.iter().map(|&bit| if bit == 1 { values.next().unwrap_or_default() } else { 0.0 }).collect();
        model.write(id, span, &dense)?;
        model.write_mask(id, weight, &mask)?;
    }
    model.use_deterministic_weights()
}

/// The snapshots in a folder of checkpoints, in order: `count` of them, for a network that predicts with fewer is another one.
pub(super) fn files(folder: &Path, count: u64) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file_because(folder, "could not be read", e))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("snapshot-") && name.ends_with(".safetensors")
        })
        .collect();
    files.sort();
    if files.len() as u64 != count {
        let detail = format!("holds {} files snapshot-NNNN.safetensors, the run kept {count}", files.len());
        return Err(Error::file(folder, detail));
    }
    Ok(files)
}
