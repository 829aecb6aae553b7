//! `.csv`: a row for each sample, its label first, then a score for each class; a header line is optional.

use std::fs::File;
use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};

use super::array::label_fault;
use crate::{Error, Result};

/// A table that is read row by row.
pub(super) struct Table {
    path: PathBuf,
    reader: Reader<File>,
    /// The next row, read already; none at the end.
    next: Option<StringRecord>,
    columns: usize,
    /// Whether the first column is the label.
    labelled: bool,
    row: u64,
}

impl Table {
    /// Opens it and reads its first row, past a header: a line whose first cell is no number. `labelled`, given the number of
    /// columns, says whether the first one is the label.
    pub(super) fn open(path: &Path, labelled: impl Fn(usize) -> bool) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file_because(path, "could not be read", e))?;
        // Every row is compared with the first here, so that the message is the same as for other files.
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        let mut table = Table { path: path.into(), reader, next: None, columns: 0, labelled: false, row: 0 };
        table.advance()?;
        let header = table.next.as_ref().is_some_and(|row| number(row.get(0).unwrap_or_default()).is_none());
        if header {
            table.advance()?;
        }
        table.columns = table.next.as_ref().map_or(0, StringRecord::len);
        table.labelled = labelled(table.columns);
        Ok(table)
    }

    /// Columns of scores.
    pub(super) fn classes(&self) -> usize {
        self.columns - usize::from(self.labelled && self.columns > 0)
    }

    pub(super) fn is_labelled(&self) -> bool {
        self.labelled
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next.is_none()
    }

    /// Replaces the scores by those of the next rows, at most `rows`, and the labels of a table that has some by theirs.
    pub(super) fn read(&mut self, rows: usize, scores: &mut Vec<f64>, labels: &mut Vec<u32>) -> Result<()> {
        scores.clear();
        labels.clear();
        for _ in 0..rows {
            let Some(record) = self.next.take() else { return Ok(()) };
            if record.len() != self.columns {
                let detail = format!("has {} cells, expected {}", record.len(), self.columns);
                return Err(self.fail(&record, &detail));
            }
            let mut cells = record.iter();
            if self.labelled {
                let cell = cells.next().unwrap_or_default();
                labels.push(label(cell, self.row, self.classes()).map_err(|detail| Error::file(&self.path, detail))?);
            }
            for cell in cells {
                let Some(score) = number(cell) else {
                    return Err(self.fail(&record, &format!("holds {cell:?}, expected a number")));
                };
                scores.push(score);
            }
            self.row += 1;
            self.advance()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        let mut record = StringRecord::new();
        let read = self.reader.read_record(&mut record);
        let more = read.map_err(|e| Error::file_because(&self.path, format!("row {} cannot be read", self.row), e))?;
        self.next = more.then_some(record);
        Ok(())
    }

    fn fail(&self, record: &StringRecord, detail: &str) -> Error {
        let line = record.position().map_or(String::new(), |position| format!(" (line {})", position.line()));
        Error::file(&self.path, format!("row {}{line} {detail}", self.row))
    }
}

fn number(cell: &str) -> Option<f64> {
    cell.trim().parse().ok()
}

fn label(cell: &str, row: u64, classes: usize) -> Result<u32, String> {
    let found = number(cell).filter(|x| x.fract() == 0.0 && (0.0..classes as f64).contains(x));
    found.map(|x| x as u32).ok_or_else(|| label_fault(row, cell.trim(), classes))
}

/// Reads a file of labels alone: the last cell of each row, past a header, so that both a plain list and one beside sample
/// names will do.
pub(super) fn labels(path: &Path, classes: usize) -> Result<Vec<u32>> {
    let mut table = Table::open(path, |_| false)?;
    let mut labels = Vec::new();
    while let Some(record) = table.next.take() {
        let cell = record.iter().next_back().unwrap_or_default();
        labels.push(label(cell, table.row, classes).map_err(|detail| Error::file(path, detail))?);
        table.row += 1;
        table.advance()?;
    }
    Ok(labels)
}
