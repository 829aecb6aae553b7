//! Files of predictions from any framework, read chunk by chunk.
//!
//! | file | scores (N, C) | labels (N) |
//! |---|---|---|
//! | `.npz` | array `logits` or `probs` | array `labels`, or a file |
//! | `.npy` | the array | a file |
//! | `.csv` | every column after the first, or every column when labels come from a file | first column, or a file |
//! | `.safetensors` | tensor `logits` or `probs` | tensor `labels`, or a file |
//!
//! Scores are f16, bf16, f32 or f64, labels whole numbers of any type from 0 to C - 1. A file of labels is `.npy`, `.csv`
//! (the last column) or an archive with `labels`. Memory is O(chunk), whatever the size of the file; text of labels alone is
//! read whole.
//!
//! What the scores are is said by the array's name or by the caller; else [`Predictions::open`] looks at the first chunk and
//! [`Predictions::kind_is_a_guess`] is true: probabilities, if at least half of its rows add up to 1.
//!
//! ```
//! use cigl::calibration::predictions::{Labels, Predictions};
//! use cigl::calibration::{Evaluator, Options};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("predictions.csv");
//! std::fs::write(&path, "label,cat,dog\n0,0.9,0.1\n1,0.8,0.2\n1,0.4,0.6\n")?;
//! let file = Predictions::open(&path, Labels::Inside, None)?;
//! let mut evaluator = Evaluator::new(file.classes(), Options::default());
//! file.evaluate(&mut evaluator)?;
//! let metrics = evaluator.finish()?.metrics;
//! assert!((metrics.ece - 1.3 / 3.0).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod csv;
mod npy;
mod npz;
mod safetensors;
mod values;

use std::path::{Path, PathBuf};

use array::Array;
use csv::Table;
pub use values::Values;

use super::evaluator::Evaluator;
use super::scores::{Kind, SUM_TOLERANCE, Scores, TOP_OF_PROBABILITIES};
use super::separation::Confidences;
use crate::{Error, Result};

/// Classes that a file may have.
pub const MOST_CLASSES: u64 = 1 << 20;

/// Bytes of scores in memory that are read at once, at least one row.
const CHUNK: usize = 4 << 20;

/// Where the labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels<'a> {
    /// In the file itself.
    Inside,
    /// In a file of their own.
    File(&'a Path),
    /// Nowhere that matters: only the confidence is wanted, of so many classes.
    Unneeded {
        /// Classes of the scores; a table with one more column has labels, which are passed over.
        classes: usize,
    },
}

/// An open file of predictions.
pub struct Predictions {
    path: PathBuf,
    kind: Kind,
    guessed: bool,
    classes: usize,
    source: Source,
    /// Where labels from elsewhere come from, in step with the scores.
    labels: LabelSource,
    chunk: Chunk,
    /// Whether the chunk was read ahead to look at, and not handed out yet.
    ahead: bool,
}

enum Source {
    Array(Array),
    Table(Table),
}

enum LabelSource {
    /// None, or in the table's own rows.
    None,
    Array(Array),
    List {
        path: PathBuf,
        labels: Vec<u32>,
    },
}

/// Some rows of predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The 0-based row of the file with which it begins.
    pub first_row: u64,
    /// Scores, row-major.
    pub scores: Values,
    /// Their labels; none where they are not needed.
    pub labels: Vec<u32>,
}

impl Predictions {
    /// Opens a file whose name ends in `.npz`, `.npy`, `.csv` or `.safetensors`. With `kind`, what the scores are is not
    /// guessed.
    ///
    /// # Errors
    /// [`Error::File`], naming the file and, where there is one, the row: no such file, another kind of file, no such array,
    /// another type or shape, as many labels as samples missing, an empty or truncated file, scores that look like neither.
    pub fn open(path: &Path, labels: Labels, kind: Option<Kind>) -> Result<Self> {
        let fail = |detail: String| Err(Error::file(path, detail));
        let (source, own_labels, named) = match ending(path) {
            "npz" => {
                let names = npz::names(path)?;
                let (name, named) = choose(path, &names, kind)?;
                let own = match labels {
                    Labels::Inside if names.iter().any(|name| name == "labels") => Some(npz::open(path, "labels")?),
                    _ => None,
                };
                (Source::Array(npz::open(path, name)?), own, Some(named))
            }
            "safetensors" => {
                let index = safetensors::Index::read(path)?;
                let names = index.names();
                let (name, named) = choose(path, &names, kind)?;
                let own = match labels {
                    Labels::Inside if names.iter().any(|name| name == "labels") => Some(index.open(path, "labels")?),
                    _ => None,
                };
                (Source::Array(index.open(path, name)?), own, Some(named))
            }
            "npy" => (Source::Array(npy::open(path)?), None, None),
            "csv" => {
                let labelled = |columns: usize| match labels {
                    Labels::Inside => true,
                    Labels::File(_) => false,
                    Labels::Unneeded { classes } => columns == classes + 1,
                };
                (Source::Table(Table::open(path, labelled)?), None, None)
            }
            _ => return fail("expected a file ending in .npz, .npy, .csv or .safetensors".into()),
        };
        let (classes, samples) = match &source {
            Source::Array(array) => (array.check_scores()?, array.rows_left()),
            Source::Table(table) => (table.classes(), u64::from(!table.is_at_end())),
        };
        if samples == 0 {
            return fail("holds no samples".into());
        }
        if !(2..=MOST_CLASSES).contains(&(classes as u64)) {
            let detail = format!("has {classes} columns of scores, expected 2 to {MOST_CLASSES}");
            return fail(detail + if matches!(labels, Labels::Inside) { " after the label" } else { "" });
        }
        let label_source = match (labels, own_labels, &source) {
            (Labels::Unneeded { .. }, ..) => LabelSource::None,
            (Labels::File(file), ..) => LabelSource::open(file, classes)?,
            (Labels::Inside, Some(array), _) => LabelSource::Array(array),
            (Labels::Inside, None, Source::Table(_)) => LabelSource::None,
            (Labels::Inside, None, Source::Array(_)) => {
                return fail("holds no labels, expected a file of them beside it (--labels)".into());
            }
        };
        if let Source::Array(_) = source {
            label_source.check(samples)?;
        }
        let chunk = Chunk { first_row: 0, scores: Values::F32(Vec::new()), labels: Vec::new() };
        let guessed = kind.or(named).is_none();
        let kind = kind.or(named).unwrap_or(Kind::Logits);
        let mut predictions = Predictions {
            path: path.into(),
            kind,
            guessed,
            classes,
            source,
            labels: label_source,
            chunk,
            ahead: false,
        };
        if guessed {
            predictions.ahead = predictions.advance()?;
            predictions.kind = predictions.guess()?;
        }
        Ok(predictions)
    }

    /// Number of classes C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What the scores are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether that was concluded from the first rows.
    pub fn kind_is_a_guess(&self) -> bool {
        self.guessed
    }

    /// The next rows; none after the last.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn next_chunk(&mut self) -> Result<Option<&Chunk>> {
        let more = std::mem::take(&mut self.ahead) || self.advance()?;
        Ok(more.then_some(&self.chunk))
    }

    /// Reads all rows into an evaluator of as many classes.
    ///
    /// # Errors
    /// As [`Self::open`]; also a row that is not in order, see [`Scores::check`].
    pub fn evaluate(mut self, evaluator: &mut Evaluator) -> Result<()> {
        let (kind, path) = (self.kind, self.path.clone());
        while let Some(chunk) = self.next_chunk()? {
            let added = match &chunk.scores {
                Values::F32(values) => evaluator.add_from(Scores::new(kind, values), &chunk.labels, chunk.first_row),
                Values::F64(values) => evaluator.add_from(Scores::new(kind, values), &chunk.labels, chunk.first_row),
            };
            added.map_err(|detail| Error::file(&path, detail))?;
        }
        Ok(())
    }

    /// Reads the confidences of all rows.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn confidences(mut self) -> Result<Confidences> {
        let (kind, classes, path) = (self.kind, self.classes, self.path.clone());
        let mut confidences = Confidences::new();
        while let Some(chunk) = self.next_chunk()? {
            let added = match &chunk.scores {
                Values::F32(values) => confidences.add_from(Scores::new(kind, values), classes, chunk.first_row),
                Values::F64(values) => confidences.add_from(Scores::new(kind, values), classes, chunk.first_row),
            };
            added.map_err(|detail| Error::file(&path, detail))?;
        }
        Ok(confidences)
    }

    /// Reads all scores, row-major (N, C), and N labels: what recalibrators are fitted on.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn read_all(mut self) -> Result<(Values, Vec<u32>)> {
        let (kind, classes, path) = (self.kind, self.classes, self.path.clone());
        let mut all: Option<Values> = None;
        let mut labels = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            let fault = match &chunk.scores {
                Values::F32(values) => Scores::new(kind, values).fault(&chunk.labels, classes, chunk.first_row),
                Values::F64(values) => Scores::new(kind, values).fault(&chunk.labels, classes, chunk.first_row),
            };
            if let Some(detail) = fault {
                return Err(Error::file(&path, detail));
            }
            labels.extend_from_slice(&chunk.labels);
            match (&mut all, &chunk.scores) {
                (Some(Values::F32(all)), Values::F32(more)) => all.extend_from_slice(more),
                (Some(Values::F64(all)), Values::F64(more)) => all.extend_from_slice(more),
                (all, more) => *all = Some(more.clone()),
            }
        }
        Ok((all.unwrap_or(Values::F32(Vec::new())), labels))
    }

    /// Reads the next rows into the chunk; says whether there were any.
    fn advance(&mut self) -> Result<bool> {
        let width = match &self.chunk.scores {
            Values::F32(_) => size_of::<f32>(),
            Values::F64(_) => size_of::<f64>(),
        };
        let most = (CHUNK / (self.classes * width)).max(1);
        self.chunk.first_row += (self.chunk.scores.len() / self.classes) as u64;
        let rows = match &mut self.source {
            Source::Array(array) => {
                let rows = most.min(usize::try_from(array.rows_left()).unwrap_or(most));
                if rows > 0 {
                    array.read_scores(rows, &mut self.chunk.scores)?;
                }
                rows
            }
            Source::Table(table) => {
                let mut scores = self.chunk.scores.take_f64(0);
                table.read(most, &mut scores, &mut self.chunk.labels)?;
                let rows = scores.len() / self.classes;
                self.chunk.scores = Values::F64(scores);
                rows
            }
        };
        let own = matches!(&self.source, Source::Table(table) if table.is_labelled());
        if !own {
            self.labels.read(rows, self.chunk.first_row, self.classes, &self.path, &mut self.chunk.labels)?;
        }
        Ok(rows > 0)
    }

    /// What the rows of the first chunk look like.
    fn guess(&self) -> Result<Kind> {
        let rows = self.chunk.scores.len() / self.classes;
        let (mut distributions, mut fractions, mut odd) = (0, 0, None);
        for row in 0..rows {
            let values = || (0..self.classes).map(|k| self.chunk.scores.get(row * self.classes + k));
            let sum: f64 = values().sum();
            let inside = values().all(|p| (0.0..=f64::from(TOP_OF_PROBABILITIES)).contains(&p));
            let adds_up = (sum - 1.0).abs() <= SUM_TOLERANCE;
            distributions += usize::from(adds_up);
            fractions += usize::from(inside);
            if inside && !adds_up {
                odd.get_or_insert((row, sum));
            }
        }
        match odd {
            _ if 2 * distributions >= rows => Ok(Kind::Probs),
            Some((row, sum)) if 2 * fractions > rows => {
                let detail =
                    format!("row {row} holds numbers in 0..1 that add up to {sum:.4}: expected probabilities that");
                Err(Error::file(&self.path, detail + " add up to 1, or --kind logits"))
            }
            _ => Ok(Kind::Logits),
        }
    }
}

impl LabelSource {
    fn open(path: &Path, classes: usize) -> Result<Self> {
        match ending(path) {
            "npy" => Ok(LabelSource::Array(npy::open(path)?)),
            "npz" => Ok(LabelSource::Array(npz::open(path, "labels")?)),
            "safetensors" => Ok(LabelSource::Array(safetensors::Index::read(path)?.open(path, "labels")?)),
            "csv" => Ok(LabelSource::List { path: path.into(), labels: csv::labels(path, classes)? }),
            _ => Err(Error::file(path, "expected labels in a file ending in .npy, .csv, .npz or .safetensors")),
        }
    }

    /// Checks that there are `samples` labels.
    fn check(&self, samples: u64) -> Result<()> {
        match self {
            LabelSource::None => Ok(()),
            LabelSource::Array(array) => array.check_labels(samples),
            LabelSource::List { path, labels } if labels.len() as u64 != samples => {
                Err(Error::file(path, format!("holds {} labels, expected {samples}", labels.len())))
            }
            LabelSource::List { .. } => Ok(()),
        }
    }

    /// Replaces `out` by the labels of `rows` rows, the first of which is `first`; no rows are the end.
    fn read(&mut self, rows: usize, first: u64, classes: usize, scores: &Path, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        let total = first + rows as u64;
        let (path, there) = match self {
            LabelSource::None => return Ok(()),
            // Of a table it is not known before how many rows it has.
            LabelSource::Array(array) if array.rows_left() >= rows as u64 && (rows > 0 || array.rows_left() == 0) => {
                return if rows > 0 { array.read_labels(rows, first, classes, out) } else { Ok(()) };
            }
            LabelSource::Array(array) => (scores, first + array.rows_left()),
            LabelSource::List { labels, .. }
                if total <= labels.len() as u64 && (rows > 0 || total == labels.len() as u64) =>
            {
                out.extend_from_slice(&labels[first as usize..total as usize]);
                return Ok(());
            }
            LabelSource::List { path, labels } => (&**path, labels.len() as u64),
        };
        let more = if rows > 0 { " or more" } else { "" };
        Err(Error::file(path, format!("{there} labels for {total}{more} rows of scores")))
    }
}

/// The array with the scores, by its name.
fn choose<'a>(path: &Path, names: &[String], kind: Option<Kind>) -> Result<(&'a str, Kind)> {
    let has = |name: &str| names.iter().any(|other| other == name);
    match (has("logits"), has("probs"), kind) {
        (true, false, None | Some(Kind::Logits)) | (true, true, Some(Kind::Logits)) => Ok(("logits", Kind::Logits)),
        (false, true, None | Some(Kind::Probs)) | (true, true, Some(Kind::Probs)) => Ok(("probs", Kind::Probs)),
        (true, true, None) => Err(Error::file(path, "holds both logits and probs: say which with --kind")),
        _ => {
            let expected = match kind {
                None => "logits or probs",
                Some(Kind::Logits) => "logits",
                Some(Kind::Probs) => "probs",
            };
            Err(Error::file(path, format!("holds the arrays [{}], expected {expected}", names.join(", "))))
        }
    }
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
