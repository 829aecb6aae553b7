//! `.safetensors`: a header in JSON, then the tensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::array::{Array, Element, Header};
use crate::{Error, Result};

/// Bytes of a header at most: predictions are a few tensors.
const LONGEST: u64 = 1 << 20;

/// Where the tensors of a file are.
pub(super) struct Index {
    tensors: HashMap<String, TensorInfo>,
    /// Bytes before the first tensor.
    start: u64,
    /// Bytes of the file.
    length: u64,
}

impl Index {
    /// Reads the header.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let damaged = |detail: String| Error::file(path, format!("not a safetensors file, or truncated: {detail}"));
        let unreadable = |e| Error::file_because(path, "could not be read", e);
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| damaged(format!("{length} bytes")))?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST.min(length.saturating_sub(8)) {
            return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Index { tensors, start: 8 + size, length })
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors.keys().cloned().collect();
        names.sort();
        names
    }

    /// Opens one tensor, with a file handle of its own.
    pub(super) fn open(&self, path: &Path, name: &str) -> Result<Array> {
        let fail = |detail: String| Error::file(path, format!("array {name}: {detail}"));
        let info = self.tensors.get(name).ok_or_else(|| fail("not there".into()))?;
        let element = match info.dtype {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            Dtype::I8 => Element::Signed(1),
            Dtype::U8 => Element::Unsigned(1),
            Dtype::I16 => Element::Signed(2),
            Dtype::U16 => Element::Unsigned(2),
            Dtype::I32 => Element::Signed(4),
            Dtype::U32 => Element::Unsigned(4),
            Dtype::I64 => Element::Signed(8),
            Dtype::U64 => Element::Unsigned(8),
            other => return Err(fail(format!("elements of type {other:?}, expected F16, BF16, F32, F64 or integers"))),
        };
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let begin = self.start.saturating_add(from);
        let available = to.saturating_sub(from).min(self.length.saturating_sub(begin));
        let unreadable = |e| Error::file_because(path, "could not be read", e);
        let mut file = File::open(path).map_err(unreadable)?;
        file.seek(SeekFrom::Start(begin)).map_err(unreadable)?;
        let header = Header { element, shape: info.shape.iter().map(|&extent| extent as u64).collect() };
        Array::new(path, name, header, available, Box::new(file.take(available)))
    }
}
