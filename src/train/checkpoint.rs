//! Files of named tensors (safetensors): written whole or not at all, and checked when read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::evolution::Evolution;
use super::masked_weight::Form;
use super::start;
use super::trained::About;
use super::trainer::{EpochSums, Trainer};
use crate::backend::Span;
use crate::bitmask::BitMask;
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::model::Model;

/// The ending of the names under which files are written before they get their own.
const TEMPORARY: &str = ".cigl-tmp";

/// Whether `path` is a file that [`write_atomically`] had not finished.
pub(super) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Writes `contents` under `path`: to a temporary file beside it, to disk, then by renaming, so that whoever looks finds the old file or
/// the new one.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let because = |what: &str, e: std::io::Error| Error::file_because(path, what.to_string(), e);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}{TEMPORARY}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself must reach the disk too.
        match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) if cfg!(unix) => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|e| {
        fs::remove_file(&temporary).ok();
        because("could not be written", e)
    })
}

/// Named tensors to be written.
#[derive(Default)]
pub(crate) struct Tensors {
    /// name -> (dtype, shape, bytes)
    all: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    pub(crate) fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.all.insert(name, (Dtype::F32, dims.into(), bytes));
    }

    pub(super) fn bytes(&mut self, name: String, dims: &[usize], values: Vec<u8>) {
        self.all.insert(name, (Dtype::U8, dims.into(), values));
    }

    /// Adds an I64 scalar.
    pub(crate) fn integer(&mut self, name: String, value: i64) {
        self.all.insert(name, (Dtype::I64, vec![], value.to_le_bytes().into()));
    }

    /// The file: 8 bytes of header length, the header as JSON, the tensors, the widest first so that all are aligned.
    ///
    /// Not by the crate's own writer, whose metadata comes in the random order of a hash map: equal tensors should be equal
    /// files. One checksum is of everything after the header, one of the state; a damaged name or shape is found for what it is.
    pub(crate) fn to_file(&self, state: &str) -> Vec<u8> {
        let mut order: Vec<_> = self.all.iter().collect();
        order.sort_by_key(|(_, (dtype, _, _))| std::cmp::Reverse(*dtype));
        let mut data = Vec::new();
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), serde_json::Value::Null);
        for (name, (dtype, shape, bytes)) in order {
            let offsets = [data.len(), data.len() + bytes.len()];
            data.extend_from_slice(bytes);
            header.insert(name.clone(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        }
        header["__metadata__"] = serde_json::json!({
            "format": "pt",
            "cigl": state,
            "cigl_blake3": blake3::hash(state.as_bytes()).to_hex().as_str(),
            "blake3": blake3::hash(&data).to_hex().as_str(),
        });
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        file
    }
}

/// A file of named tensors that was read.
pub struct TensorFile {
    path: PathBuf,
    contents: Vec<u8>,
    /// The `cigl` entry of the metadata, if there is one.
    state: Option<String>,
}

impl TensorFile {
    /// Reads a file and checks its form and, where it has one, its checksum.
    pub fn read(path: &Path) -> Result<Self> {
        let contents = fs::read(path).map_err(|e| Error::file_because(path, "could not be read", e))?;
        let broken =
            |e: safetensors::SafeTensorError| Error::file_because(path, "is not a complete safetensors file", e);
        SafeTensors::deserialize(&contents).map_err(broken)?;
        let (header, metadata) = SafeTensors::read_metadata(&contents).map_err(broken)?;
        let entry = |key: &str| metadata.metadata().as_ref().and_then(|m| m.get(key)).cloned();
        let state = entry("cigl");
        let described = state.as_deref().unwrap_or_default().as_bytes();
        for (what, key, bytes) in
            [("tensors", "blake3", &contents[8 + header..]), ("description", "cigl_blake3", described)]
        {
            // Files of other programs have no checksums; ours have both.
            let (found, expected) = (blake3::hash(bytes).to_hex(), entry(key));
            if expected.as_deref().map_or(state.is_some(), |expected| found.as_str() != expected) {
                let expected = expected.unwrap_or("nothing".into());
                let detail = format!("is damaged: the checksum of its {what} is {found}, the file says {expected}");
                return Err(Error::file(path, detail));
            }
        }
        Ok(TensorFile { path: path.into(), state, contents })
    }

    /// What the metadata says of the run.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.contents)
            .map_err(|e| Error::file_because(&self.path, "is not a safetensors file", e))
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors().is_ok_and(|t| t.tensor(name).is_ok())
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.tensors()?.names().into_iter().map(String::from).collect();
        names.sort();
        Ok(names)
    }

    /// An F32 tensor of that name and shape.
    pub fn floats(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>> {
        let bytes = self.find(name, Dtype::F32, dims)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// A U8 tensor of that name and shape.
    pub fn bytes(&self, name: &str, dims: &[usize]) -> Result<&[u8]> {
        self.find(name, Dtype::U8, dims)
    }

    /// That the file is wrong in this way.
    pub(super) fn error(&self, detail: String) -> Error {
        Error::file(&self.path, detail)
    }

    fn find(&self, name: &str, dtype: Dtype, dims: &[usize]) -> Result<&[u8]> {
        let tensors = self.tensors()?;
        let tensor = tensors
            .tensor(name)
            .map_err(|_| Error::file(&self.path, format!("has no tensor {name}, expected {dtype:?} {dims:?}")))?;
        if tensor.dtype() != dtype || tensor.shape() != dims {
            let (d, s) = (tensor.dtype(), tensor.shape());
            return Err(Error::file(&self.path, format!("tensor {name} is {d:?} {s:?}, expected {dtype:?} {dims:?}")));
        }
        // The view borrows from the contents, not from the parsed header.
        let start = tensor.data().as_ptr() as usize - self.contents.as_ptr() as usize;
        Ok(&self.contents[start..start + tensor.data().len()])
    }

    /// Fails when there is a tensor besides the `known` ones.
    pub fn only(&self, known: &[String]) -> Result<()> {
        match self.names()?.into_iter().find(|name| !known.contains(name)) {
            Some(extra) => Err(Error::file(&self.path, format!("tensor {extra} is not one of this network's"))),
            None => Ok(()),
        }
    }
}

/// What a checkpoint holds besides tensors.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: u64,
    seconds: f64,
    averaged: u64,
    epoch_sums: EpochSums,
}

fn add_parameters(model: &mut Model, tensors: &mut Tensors, form: Form) -> Result<()> {
    for (id, p) in model.parameters().clone().iter() {
        let span = model.value(id);
        let values = model.read(id, span)?;
        match model.weight(id) {
            Some(weight) => tensors.weight(&p.name, &p.dims, &values, model.read_mask(id, weight)?, form),
            None => tensors.floats(p.name.clone(), &p.dims, &values),
        }
    }
    Ok(())
}

/// Writes a result: every parameter and statistic under its name, the masked weights in the given form.
pub fn save_model(model: &mut Model, about: &About, form: Form, path: &Path) -> Result<()> {
    let mut tensors = Tensors::default();
    add_parameters(model, &mut tensors, form)?;
    write_atomically(path, &tensors.to_file(&to_json(about)?))
}

/// Metadata as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Usage(format!("the file's metadata cannot be written: {e}")))
}

/// The tensors of one parameter beside its value, by suffix.
fn moments(trainer: &Trainer) -> Vec<(ParameterId, String, Span)> {
    let mut all = Vec::new();
    for m in &trainer.moments {
        let name = &trainer.model.parameters()[m.id].name;
        let spans =
            [("momentum", Some(m.velocity)), ("second_moment", m.second), ("average", m.average), ("leak", m.leak)];
        all.extend(spans.into_iter().filter_map(|(suffix, span)| Some((m.id, format!("{name}.{suffix}"), span?))));
    }
    all
}

/// The names of a weight's packed masks: the first, and of what has ever been active.
fn evolution_names(weight: &str) -> [String; 2] {
    ["first_mask", "ever_active"].map(|suffix| format!("{weight}.{suffix}"))
}

/// Adds, for each weight, its first mask and the union of all of its masks so far, one bit an element.
fn add_evolution(trainer: &mut Trainer, tensors: &mut Tensors) -> Result<()> {
    let Trainer { evolution, model, .. } = trainer;
    let evolution = Evolution::begun(evolution, model)?;
    for (id, p) in model.parameters().iter() {
        let Some(weight) = model.weight(id) else { continue };
        for (name, mask) in evolution_names(&p.name).into_iter().zip(evolution.masks(weight.layer)) {
            let bits = model.mask_to_file(id, mask).to_bytes();
            tensors.bytes(name, &[bits.len()], bits);
        }
    }
    Ok(())
}

fn read_evolution(trainer: &mut Trainer, file: &TensorFile) -> Result<()> {
    let model = &trainer.model;
    let mut layers = Vec::new();
    for (id, p) in model.parameters().iter().filter(|(id, _)| model.weight(*id).is_some()) {
        let [first, ever] = evolution_names(&p.name);
        let mask = |name: &str| -> Result<BitMask> {
            let bits = file.bytes(name, &[p.len().div_ceil(8)])?;
            Ok(model.mask_from_file(id, &BitMask::from_bytes(bits, p.len())))
        };
        layers.push([mask(&first)?, mask(&ever)?]);
    }
    trainer.evolution = Some(Evolution::resumed(model, layers));
    Ok(())
}

/// Writes everything that the run needs to go on; `seconds` of training so far.
///
/// Beside the values and masks of a model: the optimiser's moments and the average of each parameter, and of each weight NAME its
/// first mask, `NAME.first_mask`, and the union of its masks so far, `NAME.ever_active`: one bit an element in the order of files,
/// lowest bit first.
///
/// All of it is f32 in whatever precision the run stores its activations: the file can be read in any.
pub fn save(trainer: &mut Trainer, seconds: f64, path: &Path) -> Result<()> {
    let mut tensors = Tensors::default();
    add_parameters(&mut trainer.model, &mut tensors, Form::Dense)?;
    for (id, name, span) in moments(trainer) {
        let values = trainer.model.read(id, span)?;
        let dims = trainer.model.parameters()[id].dims.clone();
        tensors.floats(name, &dims, &values);
    }
    add_evolution(trainer, &mut tensors)?;
    let state = State { step: trainer.step, seconds, averaged: trainer.averaged, epoch_sums: trainer.epoch_sums };
    write_atomically(path, &tensors.to_file(&to_json(&state)?))
}

/// Puts a run back to where [`save`] saw it; returns the seconds of training until then.
pub fn restore(trainer: &mut Trainer, path: &Path) -> Result<f64> {
    let file = TensorFile::read(path)?;
    let state = file.state().ok_or_else(|| Error::file(path, "is not the checkpoint of a run"))?;
    let state: State = serde_json::from_str(state).map_err(|e| Error::file_because(path, "holds no run state", e))?;
    let model = trainer.model();
    model.reserve()?;
    start::read_parameters(model, &file)?;
    start::read_masks(model, &file)?;
    for (id, name, span) in moments(trainer) {
        let values = file.floats(&name, &trainer.model.parameters()[id].dims.clone())?;
        trainer.model.write(id, span, &values)?;
    }
    read_evolution(trainer, &file)?;
    (trainer.step, trainer.averaged, trainer.epoch_sums) = (state.step, state.averaged, state.epoch_sums);
    Ok(state.seconds)
}

/// Bytes that the files of a run take at most: the checkpoint twice, for the moment in which both the old and the new one are there, the
/// model, and snapshots.
pub fn disk_needed(trainer: &Trainer) -> u64 {
    let parameters = trainer.model.parameters();
    let values: usize = parameters.iter().map(|(_, p)| p.len()).sum();
    let masks: usize = parameters.weights().map(|(_, p)| p.len()).sum();
    let extra: usize = moments(trainer).iter().map(|(_, _, span)| span.len).sum();
    let model = 4 * values + masks;
    let kept = if trainer.config.keeps_snapshots() { trainer.timetable.snapshot_count() } else { 0 };
    let active = (masks as f64 * trainer.config.mask_density()).ceil() as usize;
    let snapshot = 4 * (values - masks + active) + masks / 8;
    2 * (model + 4 * extra + masks.div_ceil(4)) as u64 + model as u64 + kept * snapshot as u64 + (2 << 20)
}
