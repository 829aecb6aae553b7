//! NumPy's `.npz`: a zip archive of `.npy` arrays, stored or deflated.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::CrcReader;
use flate2::read::DeflateDecoder;
use npyz::zip::{CompressionMethod, ZipArchive};

use super::array::Array;
use super::npy;
use crate::{Error, Result};

/// Deflate makes nothing smaller than by this: a size that claims more is a lie.
const BEST_COMPRESSION: u64 = 1032;

/// The names of its arrays.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let archive = archive(path)?;
    let mut names: Vec<String> =
        archive.file_names().filter_map(|name| Some(name.strip_suffix(".npy")?.into())).collect();
    names.sort();
    Ok(names)
}

/// Opens one array. Each has a file handle of its own, so that several are read side by side.
pub(super) fn open(path: &Path, name: &str) -> Result<Array> {
    let damaged = |e| Error::file_because(path, format!("array {name} cannot be found in the archive"), e);
    let mut archive = archive(path)?;
    let entry = archive.by_name(&format!("{name}.npy")).map_err(damaged)?;
    let (start, packed, size, crc) = (entry.data_start(), entry.compressed_size(), entry.size(), entry.crc32());
    let method = entry.compression();
    drop(entry);
    let mut file = archive.into_inner();
    let unreadable = |e| Error::file_because(path, "could not be read", e);
    let end = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let bytes = file.take(packed);
    let (inside, most): (Box<dyn Read + Send>, u64) = match method {
        CompressionMethod::Stored => (Box::new(bytes), packed),
        CompressionMethod::Deflated => {
            (Box::new(DeflateDecoder::new(BufReader::new(bytes))), packed.saturating_mul(BEST_COMPRESSION))
        }
        other => {
            let detail = format!("array {name} is compressed with {other}, expected stored or deflated");
            return Err(Error::file(path, detail));
        }
    };
    if start.saturating_add(packed) > end || size > most {
        return Err(Error::file(path, format!("array {name}: truncated or damaged: {packed} bytes of {size}")));
    }
    let mut checked = Checked { read: CrcReader::new(inside), crc, left: size };
    let (header, used) = npy::header(path, name, &mut checked)?;
    Array::new(path, name, header, size.saturating_sub(used), Box::new(checked))
}

fn archive(path: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(path).map_err(|e| Error::file_because(path, "could not be read", e))?;
    ZipArchive::new(file).map_err(|e| Error::file_because(path, "not a zip archive, or truncated", e))
}

/// The bytes of an entry, whose checksum is compared when the last one was read.
struct Checked {
    read: CrcReader<Box<dyn Read + Send>>,
    crc: u32,
    left: u64,
}

impl Read for Checked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.read.read(&mut out[..room])?;
        self.left -= read as u64;
        if self.left == 0 && self.read.crc().sum() != self.crc {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not match"));
        }
        Ok(read)
    }
}
