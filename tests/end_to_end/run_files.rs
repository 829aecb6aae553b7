//! What a run leaves in its folder, without what a clock decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The tensors of a safetensors file and its metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensors {
    /// name -> (dtype, shape, bytes)
    pub(crate) all: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    /// The entry `cigl` of the metadata.
    pub(crate) about: Value,
}

impl Tensors {
    pub(crate) fn read(path: &Path) -> Tensors {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = &metadata.metadata().as_ref().unwrap()["cigl"];
        let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Tensors {
            all: file.iter().map(tensor).collect(),
            about: serde_json::from_str(about).unwrap_or(Value::String(about.clone())),
        }
    }

    /// An F32 tensor in the order of the file.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = self.all.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(*dtype, Dtype::F32, "{name}");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The mask of a weight in the order of the file.
    pub(crate) fn mask(&self, weight: &str) -> Vec<bool> {
        let (dtype, _, bytes) = &self.all[&format!("{weight}.mask")];
        assert_eq!(*dtype, Dtype::U8, "{weight}");
        bytes.iter().map(|&byte| byte == 1).collect()
    }

    /// The names of the masked weights.
    pub(crate) fn masked(&self) -> Vec<String> {
        self.all.keys().filter_map(|name| Some(name.strip_suffix(".mask")?.to_owned())).collect()
    }

    /// Active elements and elements of each masked weight, by name.
    pub(crate) fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let count = |weight: String| {
            let mask = self.mask(&weight);
            (weight, (mask.iter().filter(|&&bit| bit).count(), mask.len()))
        };
        self.masked().into_iter().map(count).collect()
    }

    /// Active elements of all masks together.
    pub(crate) fn active(&self) -> usize {
        self.counts().values().map(|(active, _)| active).sum()
    }
}

/// The result of a run.
pub(crate) fn model(run: &Path) -> Tensors {
    Tensors::read(&run.join("checkpoint/model.safetensors"))
}

/// The last checkpoint of a run, without its time.
pub(crate) fn last(run: &Path) -> Tensors {
    let mut tensors = Tensors::read(&run.join("checkpoint/last.safetensors"));
    tensors.about.as_object_mut().unwrap().remove("seconds");
    tensors
}

/// The log of a run, without times and rates.
pub(crate) fn log(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| timeless(serde_json::from_str(line).unwrap())).collect()
}

/// The summary of a run, without times and rates.
pub(crate) fn summary(run: &Path) -> Value {
    timeless(serde_json::from_str(&std::fs::read_to_string(run.join("summary.json")).unwrap()).unwrap())
}

fn timeless(mut value: Value) -> Value {
    let fields = value.as_object_mut().unwrap();
    fields.shift_remove("seconds");
    fields.shift_remove("images_per_second");
    value
}

/// Every file below a folder, relative to it, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path.strip_prefix(folder).unwrap().to_path_buf()) }
        }
    }
    found.sort();
    found
}

/// Asserts that two finished runs are the same but for the clock: files, models to the byte, checkpoints, logs, summaries.
pub(crate) fn assert_same_run(run: &Path, expected: &Path) {
    assert_eq!(files(run), files(expected), "the files of {}", run.display());
    for file in files(expected).iter().filter(|file| timeless_file(file)) {
        let [bytes, wanted] = [run, expected].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(bytes == wanted, "{} differs from the uninterrupted run's", file.display());
    }
    assert!(last(run) == last(expected), "the last checkpoints differ");
    assert_eq!(log(run), log(expected));
    assert_eq!(summary(run), summary(expected));
}

/// Whether a file of a run has no time in it.
fn timeless_file(file: &Path) -> bool {
    !["last.safetensors", "metrics.jsonl", "summary.json"].iter().any(|name| file.ends_with(name))
}
