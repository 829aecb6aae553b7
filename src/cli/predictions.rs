//! Files of predictions: `.npz` for programs, `.csv` for tables.

use std::path::{Path, PathBuf};

use crate::calibration::softmax::argmax;
use crate::error::{Error, Result};
use crate::train::checkpoint::write_atomically;
use crate::train::evaluate::Outputs;

/// Predictions as `.npz`: `logits` or `probs` (N, C) float32, and `labels` (N) int64 where there are any.
pub(super) fn write_npz(path: &Path, outputs: &Outputs, classes: usize, labels: Option<&[u32]>) -> Result<()> {
    use npyz::WriterBuilder;
    let (name, values) = match outputs {
        Outputs::Logits(values) => ("logits", values),
        Outputs::Probabilities(values) => ("probs", values),
    };
    let write = || -> std::io::Result<Vec<u8>> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut npz = npyz::npz::NpzWriter::new(&mut bytes);
        let rows = (values.len() / classes) as u64;
        let mut array = npz
            .array(name, npyz::zip::write::FileOptions::default())?
            .default_dtype()
            .shape(&[rows, classes as u64])
            .begin_nd()?;
        array.extend(values)?;
        array.finish()?;
        if let Some(labels) = labels {
            let mut array = npz
                .array("labels", npyz::zip::write::FileOptions::default())?
                .default_dtype()
                .shape(&[rows])
                .begin_nd()?;
            array.extend(labels.iter().map(|&label| i64::from(label)))?;
            array.finish()?;
        }
        drop(npz);
        Ok(bytes.into_inner())
    };
    let bytes = write().map_err(|e| Error::file_because(path, "the predictions could not be packed", e))?;
    write_atomically(path, &bytes)
}

/// Probabilities (N, C) as CSV: a header, then for each image its path, the name of its likeliest class, and every class's
/// probability. `classes` are the names of the C classes.
pub(super) fn write_csv(path: &Path, images: &[PathBuf], classes: &[String], probabilities: &[f32]) -> Result<()> {
    let mut csv = String::from("image,class");
    classes.iter().for_each(|class| csv += &format!(",{}", quoted(class)));
    for (image, row) in images.iter().zip(probabilities.chunks_exact(classes.len())) {
        csv += &format!("\n{},{}", quoted(&image.display().to_string()), quoted(&classes[argmax(row)]));
        row.iter().for_each(|p| csv += &format!(",{p}"));
    }
    write_atomically(path, (csv + "\n").as_bytes())
}

/// A cell of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}
