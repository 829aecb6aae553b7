//! Kept snapshots: samples Z M W of the network, each with its own batch-norm statistics, kept sparse.

use std::path::{Path, PathBuf};

use super::checkpoint::{Tensors, write_atomically};
use super::masked_weight::Form;
use super::trainer::Trainer;
use crate::backend::Span;
use crate::error::{Error, Result};
use crate::graph::ParameterId;

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
        // What Z left out needs no place either.
        let mask = values.iter().map(|x| u8::from(*x != 0.0)).collect();
        tensors.weight(&p.name, &p.dims, &values, mask, Form::Sparse);
    }
    write_atomically(path, &tensors.to_file("snapshot"))
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
